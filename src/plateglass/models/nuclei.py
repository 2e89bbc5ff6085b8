"""One door to nucleus models: ``nuclei-small``, Cellpose's own by name, any Cellpose file by path.

Cellpose replaces a name it does not find by its default, downloads that unasked and unverified, and
loads files whose keys do not fit. So names, files and keys are checked here first, and nothing is
ever downloaded. :func:`check` and :func:`content_key` import neither torch nor cellpose.
"""

import difflib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from plateglass.errors import DataError, SetupError, UserError

if TYPE_CHECKING:
    import numpy as np

SMALL = Path(__file__).parent / "weights" / "nuclei_small.safetensors"
SOURCE = "https://huggingface.co/mouseland/cellpose-sam/resolve/main/"
PUBLISHED = ("cpsam_v2", "cpsam", "cpdino", "cpdino-vitb")  # what Cellpose 4 knows by name


class Segmenter(Protocol):
    """What :func:`load` gives."""

    def __call__(self, image: "np.ndarray", diameter: float | None = None) -> "np.ndarray":
        """Image ``(y, x)`` or ``(1, y, x)`` → labels int32 of the same shape, 1..N.

        ``diameter`` in px; None lets the model judge. DataError for more than one plane.
        """


def models_folder() -> Path:
    """Where Cellpose keeps its models, and where a downloaded file belongs."""
    folder = os.environ.get("CELLPOSE_LOCAL_MODELS_PATH")
    return Path(folder) if folder else Path.home() / ".cellpose" / "models"


def check(name: str) -> Path:
    """The model's file, or the reason why there is none.

    Raises
    ------
    UserError
        The name is no model's.
    SetupError
        The model is known or named by path, but its file is not on this machine.
    """
    if name == "nuclei-small":
        return SMALL
    by_path = "/" in name or os.sep in name
    path = Path(name).expanduser() if by_path else models_folder() / name
    if path.is_file():
        return path
    if by_path:
        raise SetupError(
            f"segment.nuclei.model: no file {path}. Give the path of a Cellpose 4 model file, or "
            "write nuclei-small, which ships with plateglass"
        )
    if name in PUBLISHED:
        raise SetupError(
            f"segment.nuclei.model: the weights of {name} are not on this machine. Download "
            f"{SOURCE}{name} and put it at {path}; or write nuclei-small, which ships with "
            "plateglass"
        )
    known = ["nuclei-small", *PUBLISHED]
    near = difflib.get_close_matches(name, known, 1, 0.5)
    raise UserError(
        f"segment.nuclei.model: {name!r} is no model"
        + (f", did you mean {near[0]!r}?" if near else ".")
        + f" Known are {', '.join(known)}, files in {path.parent}, and paths (with a '/')"
    )


def content_key(name: str) -> str:
    """Hash of the model by what is in its file, so that a replaced file is noticed.

    A PyTorch archive is keyed by the names, sizes and CRC-32 of its entries: milliseconds for a
    gigabyte, and it changes with any weight. Other files are read whole.
    """
    path = check(name)
    import zipfile

    digest = hashlib.blake2b(digest_size=8)
    if path != SMALL and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.CRC for entry in entries):
            inside = sorted((e.filename.partition("/")[2], e.file_size, e.CRC) for e in entries)
            digest.update(repr(inside).encode())
            return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def load(name: str, device: str = "cpu") -> Segmenter:
    """The model, checked, on a device (``cpu``, ``cuda``, …).

    Raises
    ------
    UserError, SetupError
        As :func:`check`; and SetupError where the file is not such a model.
    """
    path = check(name)
    if name == "nuclei-small" or path.suffix == ".safetensors":
        from plateglass.models.nuclei_small import NucleiSmall

        return OfPlanes(NucleiSmall(path, device))
    return OfPlanes(_cellpose(path, device))


class OfPlanes:
    """Takes ``(y, x)`` and ``(1, y, x)`` alike."""

    def __init__(self, segment):
        self.segment = segment

    def __call__(self, image: "np.ndarray", diameter: float | None = None) -> "np.ndarray":
        """As :class:`Segmenter` says."""
        if image.ndim == 2:
            return self.segment(image, diameter)
        if image.ndim != 3 or len(image) != 1:
            raise DataError(
                f"an image of shape {image.shape} cannot be segmented yet: nuclei are found in "
                "single planes. Project the stack, or choose a plane in ingest"
            )
        return self.segment(image[0], diameter)[None]


def _cellpose(path: Path, device: str):
    """Cellpose's own class around a file that was compared with it, key by key."""
    import torch

    from plateglass.models import third_party

    models, vit = third_party.load("cellpose.models"), third_party.load("cellpose.vit")

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found = {k.removeprefix("module."): tuple(t.shape) for k, t in state.items()}
    except Exception as error:  # pickle, zip and type errors of any kind: not a file of weights
        raise SetupError(f"{path}: cannot be read as model weights ({error})") from error
    try:
        with torch.device("meta"):  # shapes only: a gigabyte is not filled twice
            network = vit.CPDINO(models.get_backbone(path)[-4:]) if _dino(found) else vit.CPSAM()
    except NameError as error:
        raise SetupError(f"{path}: a DINO model, which needs the package dinov3") from error
    expected = {k: tuple(t.shape) for k, t in network.state_dict().items()}
    if expected != found:
        odd = sorted(k for k, _ in set(expected.items()) ^ set(found.items()))
        raise SetupError(
            f"{path}: not a Cellpose 4 model: {len(odd)} tensors are missing, unknown or of "
            f"another shape, as {', '.join(odd[:3])}. Models of Cellpose 3 and older do not work"
        )
    place = torch.device(device)
    model = models.CellposeModel(
        pretrained_model=str(path), device=place, use_bfloat16=place.type == "cuda"
    )

    def segment(image, diameter=None):
        return model.eval(image, diameter=diameter, max_size_fraction=1.0)[0].astype("int32")

    return segment


def _dino(keys) -> bool:
    return "encoder.cls_token" in keys
