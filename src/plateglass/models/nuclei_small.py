"""nuclei-small: a U-Net that speaks Cellpose's language, small enough to ship with the package.

The network, its units and its diameter estimate are ours; the representation (two flow components
and a cell probability, masks by following the flows) is Cellpose's (Stringer et al., Nature Methods
18:100-106, 2021), computed by ``cellpose.dynamics``. Trained by ``scripts/train_nuclei_small.py``.
"""

import logging
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from plateglass.errors import SetupError
from plateglass.models import third_party
from plateglass.models.cells import typical_diameter

# not cellpose.models, which takes seconds longer
dynamics, utils = third_party.load("cellpose.dynamics"), third_party.load("cellpose.utils")

logging.getLogger("cellpose.dynamics").setLevel(logging.ERROR)  # it warns of every empty image

FOLD = 2  # px on a side that enter and leave the network as one
WIDTHS = (32, 64, 128)
STRIDE = FOLD * 2 ** (len(WIDTHS) - 1)
DIAMETER = 28.0  # px at which the network works; fields are resized so that nuclei have it
STEEPNESS = 5.0  # flows leave the network times this, as Cellpose's do
FORMAT = "nuclei-small-1"
KEEP = (0.85, 1.18)  # scales in this range are taken as 1: resampling would only blur
SPECK = 0.04  # of the typical nucleus' area; less is noise
TILE, REACH = 1024, 96  # px; a tile sees so much beyond its edge, which is more than it can use


def block(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
    """3 × 3 convolution, batch norm (training only, folded for shipping), ReLU."""
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Three levels from half size down, two convolutions each on both ways, skips added.

    Takes ``(N, 2, H, W)`` from :func:`encode`, H and W multiples of :data:`STRIDE`; gives
    ``(N, 3, H, W)``: flow along y and x (times :data:`STEEPNESS`) and the logit of the cell
    probability. Pixels go in and come out folded into channels, so that nothing is lost at half
    size, and the widest maps, which take the time, are a quarter.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS, norm: bool = False):
        super().__init__()
        above = (2 * FOLD**2, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(block(a, w, norm), block(w, w, norm)) for a, w in zip(above, widths)
        )
        self.merge = nn.ModuleList(nn.Conv2d(b, w, 1) for w, b in pairwise(widths))
        self.up = nn.ModuleList(
            nn.Sequential(block(w, w, norm), block(w, w, norm)) for w in widths[:-1]
        )
        self.head = nn.Conv2d(widths[0], 3 * FOLD**2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, 2, H, W)`` → ``(N, 3, H, W)``."""
        x = F.pixel_unshuffle(x, FOLD).contiguous(memory_format=torch.channels_last)
        skips = []
        for level, down in enumerate(self.down):
            x = down(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = F.interpolate(self.merge[level](x), scale_factor=2, mode="nearest")
            x = self.up[level](x + skips[level])
        return F.pixel_shuffle(self.head(x), FOLD)


def normalise(image: np.ndarray) -> np.ndarray:
    """Any image ``(y, x)`` to float32 with its 1st percentile at 0 and its 99th at 1."""
    image = image.astype(np.float32)
    low, high = (float(v) for v in np.percentile(image, (1, 99)))
    if high - low < 1e-3 * max(abs(high), 1e-6):  # a flat field, perhaps with a few nuclei
        high = max(float(image.max()), low + 1.0)
    return (image - low) / (high - low)


def encode(normalised: torch.Tensor) -> torch.Tensor:
    """``(N, H, W)`` normalised → ``(N, 2, H, W)``: linear (clipped), and compressed.

    The compressed copy keeps dim nuclei beside bright ones in reach of 16 channels.
    """
    compressed = torch.log1p(20 * normalised.clamp(min=0)) / np.log(21)
    return torch.stack([normalised.clamp(-0.5, 2.0), compressed.clamp(max=1.5)], 1)


def resize(stack: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """``(C, y, x)`` to another shape, linear, anti-aliased on the way down."""
    if stack.shape[1:] == shape:
        return stack
    return F.interpolate(stack[None], shape, mode="bilinear", antialias=True)[0]


def resize_labels(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Labels ``(y, x)`` to another shape: the label under each pixel's centre."""
    y, x = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, labels.shape))
    return labels[y[:, None], x[None, :]]


def join(labels: np.ndarray, flows: np.ndarray, gap: int, parting: float) -> np.ndarray:
    """Join touching objects between which the flows do not part. Ours; Cellpose has no such step.

    Between two nuclei the flows point away from each other. Where one lobed nucleus has got two
    sinks they hardly do.

    Parameters
    ----------
    labels : integers ``(y, x)``
    flows : ``(2, y, x)``, times :data:`STEEPNESS`
    gap : px between the two pixels, one of either object, at which flows are compared
    parting : objects stay two from this on: the difference of the two flows along the way between
        them, over the sum of their lengths, mean over the border. 1 is straight away from each other
    """
    count = int(labels.max(initial=0)) + 1
    length = np.hypot(*flows)
    pairs, apart, sides = [], [], []
    for axis in (0, 1):
        ahead, behind = ((slice(None),) * axis + (cut,) for cut in (slice(gap, None), slice(-gap)))
        one, other = labels[behind].astype(np.int64), labels[ahead].astype(np.int64)
        border = (one != other) & (one > 0) & (other > 0)
        one, other = one[border], other[border]
        lengths = length[ahead][border] + length[behind][border]
        pairs.append(np.minimum(one, other) * count + np.maximum(one, other))
        apart.append((flows[axis][ahead] - flows[axis][behind])[border] / (lengths + 0.5))
        sides.append(np.full(len(one), axis))
    pairs, at = np.unique(np.concatenate(pairs), return_inverse=True)
    apart, sides = np.concatenate(apart), np.concatenate(sides)
    height, width = (np.bincount(at[sides == axis], minlength=len(pairs)) for axis in (0, 1))
    mean = np.bincount(at, apart, len(pairs)) / np.hypot(height, width)
    one, other = np.divmod(pairs[mean < parting], count)
    links = sparse.coo_matrix((np.ones(len(one)), (one, other)), (count, count))
    whole = sparse.csgraph.connected_components(links, directed=False)[
        1
    ]  # the first is 0's: no object
    return whole.astype(np.int32)[labels]


class NucleiSmall:
    """Segments nuclei of 10 to 80 px; their diameter is estimated field by field.

    Parameters
    ----------
    path : safetensors file made by ``scripts/train_nuclei_small.py``
    device : where the network runs; masks are made on the CPU
    cellprob_threshold, flow_threshold : as in Cellpose (logit; mean squared error of the flows, 0 for
        no such check: it drops more good nuclei than bad ones here, and takes most of the time)
    parting : how far flows must part between neighbours that stay two, see :func:`join`
    confidence : an object whose logits are lower on average is dropped; Cellpose has no such check
    min_size : px; smaller objects, and those under :data:`SPECK` of the typical nucleus' area, are
        dropped
    """

    def __init__(
        self,
        path: Path,
        device: str = "cpu",
        cellprob_threshold: float = -0.15,
        flow_threshold: float = 0.0,
        parting: float = 0.15,
        confidence: float = 0.8,
        min_size: int = 20,
    ):
        self.device = torch.device(device)
        self.cellprob_threshold = cellprob_threshold
        self.flow_threshold = flow_threshold
        self.parting = parting
        self.confidence = confidence
        self.min_size = min_size
        self.network = read_network(path).to(self.device, memory_format=torch.channels_last).eval()

    def __call__(self, image: np.ndarray, diameter: float | None = None) -> np.ndarray:
        """Image ``(y, x)``, any integer or float type → labels int32 ``(y, x)``, 1..N.

        ``diameter`` in px; estimated where None.
        """
        field = normalise(image)
        given = diameter is not None
        diameter = diameter or self.estimate(field)
        if not diameter:
            return np.zeros(image.shape, np.int32)
        labels = self.segment(field, diameter)
        found = typical_diameter(np.bincount(labels.ravel())[1:])
        if not given and found and not 0.75 < found / diameter < 1.33:
            labels = self.segment(field, found)
        return labels

    def estimate(self, field: np.ndarray) -> float:
        """Typical diameter (px) of the nuclei in a normalised field; 0.0 where there are none.

        A copy at half size serves nuclei from 22 px on, the field itself the smaller ones.
        """
        for shrink in (2, 1):
            shape = tuple(max(8, round(n / shrink)) for n in field.shape)
            flows, logit = self.predict(field, shape)
            labels = self.masks(flows, logit, DIAMETER, min_size=15)
            found = shrink * typical_diameter(np.bincount(labels.ravel())[1:])
            if found >= 22 * (shrink > 1):
                break
        return found

    def segment(self, field: np.ndarray, diameter: float) -> np.ndarray:
        """Labels int32 of a normalised field whose nuclei are ``diameter`` px wide."""
        scale = DIAMETER / diameter
        scale = 1.0 if KEEP[0] < scale < KEEP[1] else scale
        shape = tuple(max(8, round(n * scale)) for n in field.shape)
        flows, logit = self.predict(field, shape)
        if scale < 1:  # borders are decided at the field's own resolution
            up = resize(torch.from_numpy(np.concatenate([flows, logit[None]])), field.shape)
            flows, logit = up[:2].numpy(), up[2].numpy()
        size = max(self.min_size, SPECK * np.pi / 4 * diameter**2) * max(scale, 1) ** 2
        labels = self.masks(flows, logit, max(diameter, DIAMETER), round(size))
        return resize_labels(labels, field.shape).astype(np.int32)

    def masks(self, flows: np.ndarray, logit: np.ndarray, diameter: float, min_size: int):
        """Follow the flows as Cellpose does: as many steps as a nucleus is wide, at least."""
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of sparse tensors, since torch 2.13
            labels = dynamics.compute_masks(
                flows,
                logit,
                niter=int(max(50, 2 * diameter)),
                cellprob_threshold=self.cellprob_threshold,
                flow_threshold=self.flow_threshold,
                max_size_fraction=1.0,
            )
        labels = join(labels, flows, max(1, round(diameter / 6)), self.parting)
        sums, areas = np.bincount(labels.ravel(), logit.ravel()), np.bincount(labels.ravel())
        labels[(sums < self.confidence * areas)[labels]] = 0
        return utils.fill_holes_and_remove_small_masks(labels, min_size=min_size)

    @torch.inference_mode()
    def predict(self, field: np.ndarray, shape: tuple[int, int]):
        """Flows ``(2, *shape)`` and logits ``shape`` of a normalised field, at another size."""
        x = resize(torch.from_numpy(field)[None], shape).to(self.device)
        out = self._tiled(encode(x)[0]).float().cpu().numpy()
        return out[:2], out[2]

    def _tiled(self, x: torch.Tensor) -> torch.Tensor:
        """The network over tiles with a margin beyond its reach: the same as in one go."""
        height, width = x.shape[1:]
        x = F.pad(x[None], (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        out = torch.empty(3, *x.shape[2:], device=x.device)
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                y0, x0 = max(0, top - REACH), max(0, left - REACH)
                view = x[:, :, y0 : top + TILE + REACH, x0 : left + TILE + REACH]
                tile = self.network(view)[0]
                part = tile[:, top - y0 :, left - x0 :][:, :TILE, :TILE]
                out[:, top : top + TILE, left : left + TILE] = part
        return out[:, :height, :width]


def read_network(path: Path) -> UNet:
    """The network of a nuclei-small file; SetupError where the file is not one."""
    try:
        with safe_open(path, "pt") as file:
            info = file.metadata() or {}
        state = load_file(path)
    except Exception as error:  # safetensors raises its own type, OSError, ValueError
        raise SetupError(f"{path}: cannot be read as safetensors ({error})") from error
    network = UNet()
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in state.items()}
    if info.get("format") != FORMAT or expected != found:
        odd = sorted(set(expected.items()) ^ set(found.items()))[:3]
        raise SetupError(
            f"{path}: not a {FORMAT} file (format {info.get('format')!r}, tensors that differ: "
            f"{odd}). Make it with scripts/train_nuclei_small.py, or name another model in "
            "segment.nuclei.model"
        )
    network.load_state_dict({name: t.float() for name, t in state.items()})
    return network
