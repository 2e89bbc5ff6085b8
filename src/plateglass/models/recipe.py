"""A trained model on disk: its networks, what they were made from, and the donors its audit needs.

``model.safetensors`` holds the networks (``seed<i>.final``, ``seed<i>.fold<j>``, and the control
networks ``background.…``, ``permuted.…``), ``model.json`` what rebuilds them and says how they were
trained, ``donors.safetensors`` cells of training wells (see plateglass.models.controls).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from plateglass.errors import DataError
from plateglass.files import replacing, write_atomically
from plateglass.models.backbone import Network
from plateglass.models.controls import Donors

FORMAT = 1
ANEW = "delete the folder to have it trained anew, or name another in train.model"
FINAL = "seed0.final"  # the network of which all wells get their embedding


@dataclass
class Model:
    """Networks by name (``seed0.final``, ``seed0.fold1``, …), in evaluation mode, and ``model.json``."""

    info: dict[str, Any]
    networks: dict[str, Network]
    donors: Donors
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def to(self, device: torch.device | str) -> "Model":
        """Move all networks; crops are to follow."""
        self.device = torch.device(device)
        for network in self.networks.values():
            network.to(self.device)
        return self

    def fold(self, plate: str, well: str) -> int | None:
        """The fold that left this training well out; None for a well that no network learnt from."""
        return self.info["folds"].get(plate, {}).get(well)


def judge_of(fold: int | None) -> str:
    """Name of the network that judges a well: the one whose training left its fold out."""
    return FINAL if fold is None else f"seed0.fold{fold}"


def rebuild(info: dict[str, Any]) -> Network:
    """An untrained network of the saved model's shape."""
    return Network(
        len(info["channels"]),
        len(info["classes"]),
        info["backbone"],
        crop=info["crop"]["px"],
        cut=info["cut"],
        blends=info["blends"],
        alpha=info["alpha_kind"],
        drop=info["drop"],
    )


def save_model(
    folder: Path, info: dict[str, Any], networks: dict[str, Network], donors: Donors
) -> None:
    """Write the model's three files, each whole or not at all; ``model.json`` comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{key}": value.contiguous()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    write_tensors(folder / "model.safetensors", tensors)
    write_tensors(
        folder / "donors.safetensors", donors.tensors(), {"wells": json.dumps(donors.wells)}
    )
    text = json.dumps({"format": FORMAT, **info, "networks": sorted(networks)}, indent=1)
    write_atomically(folder / "model.json", text + "\n")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], notes: dict | None = None) -> None:
    """Write a whole safetensors file, or leave what was there."""
    with replacing(path) as temporary:
        save_file(tensors, temporary, notes)
        temporary.chmod(0o644)  # safetensors writes for the owner alone


def load_model(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> Model:
    """Read a model; ``wanted`` chooses among the networks by name.

    Raises
    ------
    DataError
        A file is missing or damaged, of another format, or does not fit ``model.json``.
    """
    folder = Path(folder)
    try:
        info = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "model.safetensors")
        donors = Donors.read(folder / "donors.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{folder}: the model cannot be read ({error}); {ANEW}") from error
    if info.get("format") != FORMAT:
        raise DataError(
            f"{folder / 'model.json'}: format {info.get('format')!r}, this version reads {FORMAT}; "
            f"{ANEW}"
        )
    networks = {}
    for name in filter(wanted, info["networks"]):
        network = rebuild(info)
        own = {
            k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")
        }
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            raise DataError(f"{folder}: {name} does not fit model.json; {ANEW}") from error
        networks[name] = network.eval()
    return Model(info, networks, donors)
