"""Pixels to pictures inside the page: channels blended, maps laid over, outlines drawn.

Arrays are float32 in [0, 1]: tones (c, y, x), colour (y, x, 3). Pictures are data URIs.
"""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from plateglass import store
from plateglass.report.palette import rgb, viridis


def read(root: Path, well: str, field: int, level: int = 0) -> tuple[np.ndarray, list[str]]:
    """Tones of a field's central plane within the plate's display windows, and their colours."""
    shown = store.display(root, well, field)
    image = store.read_field(root, well, field, level)
    plane = image[:, image.shape[1] // 2].astype(np.float32)
    low, high, colours = zip(*shown.values())
    low, high = (np.array(values, np.float32)[:, None, None] for values in (low, high))
    return np.clip((plane - low) / np.maximum(high - low, 1e-6), 0, 1), list(colours)


def key(root: Path, well: str, field: int) -> list[tuple[str, str]]:
    """Channels of a field and the colours (#RRGGBB) in which ``blend`` shows them."""
    shown = store.display(root, well, field)
    return [(name, f"#{colour.removeprefix('#')}") for name, (_, _, colour) in shown.items()]


def bar_unit(told_um: float | None, size: float) -> str:
    """``px`` where nothing tells a pixel's size (ingest then takes 1 µm a pixel), else ``µm``.

    told_um: ingest.pixel_size_um; size: the store's pixel size.
    """
    return "px" if told_um is None and size == 1.0 else "µm"


def bar_words(length: int, unit: str) -> str:
    """A scale bar's length, and why it is in pixels where it is."""
    if unit == "µm":
        return f"{length}\u00a0µm"
    why = "nothing tells how large a pixel is; set ingest.pixel_size_um"
    return f"{length}\u00a0px of the images ({why})"


def blend(tones: np.ndarray, colours: list[str]) -> np.ndarray:
    """Channels added in their colours, as fluorescence is looked at."""
    mix = np.stack([rgb(c) for c in colours])
    return np.clip(np.tensordot(tones**0.8, mix, axes=(0, 0)), 0, 1).astype(np.float32)


def grey(tones: np.ndarray) -> np.ndarray:
    """The mean of the channels in grey, darkened: a quiet ground for a map."""
    return np.repeat(0.62 * (tones**0.8).mean(0)[..., None], 3, axis=-1)


def lay_over(ground: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """A map in viridis over a picture: where it is 0 the ground shows, where it is 1 the map does.

    ``amount`` (y, x) is cut at 0 and divided by its 99.5th percentile: maps of different cells are
    comparable in place, not in height.
    """
    positive = np.maximum(np.nan_to_num(amount.astype(np.float32)), 0)
    top = np.percentile(positive, 99.5) or positive.max()
    level = np.clip(positive / top, 0, 1) if top > 0 else positive
    weight = 0.85 * np.clip(level * 1.6, 0, 1)[..., None]
    return ground * (1 - weight) + viridis(level) * weight


def edge(labels: np.ndarray, width: int = 1) -> np.ndarray:
    """Pixels (bool) of a labelled object that touch another label or the ground."""
    found = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        for axis in (0, 1):
            for shift in (-step, step):
                found |= labels != _shifted(labels, shift, axis)
    return found & (labels > 0)


def enlarge(array: np.ndarray, shape: tuple[int, int], smooth: bool = True) -> np.ndarray:
    """To ``shape`` (y, x): bicubic for pictures and maps, nearest for labels and masks."""
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    size = (shape[1], shape[0])
    if array.ndim == 3:
        return np.stack(
            [enlarge(array[..., i], shape, smooth) for i in range(array.shape[-1])], axis=-1
        )
    if smooth:
        return np.asarray(Image.fromarray(array.astype(np.float32)).resize(size, how))
    return np.asarray(Image.fromarray(array.astype(np.int32)).resize(size, how))


def scale_bar(picture: np.ndarray, um_per_pixel: float) -> int:
    """Draw a bar of a round length at the lower left; returns its length in µm.

    Where a pixel counts as 1 µm that is its length in the images' pixels, too (``bar_unit``).
    """
    height, width = picture.shape[:2]
    room = 0.32 * width * um_per_pixel
    length = max((n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if n <= room), default=1)
    thick, away = max(2, height // 90), max(4, height // 22)
    end = away + round(length / um_per_pixel)
    picture[height - away - thick : height - away, away:end] = 1
    return length


def jpeg(picture: np.ndarray, quality: int = 84) -> str:
    """A picture (y, x, 3) as a data URI."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def outlines(layers: list[tuple[np.ndarray, str]]) -> str:
    """Edges (bool) in their colours over nothing, as a PNG data URI to lie upon a picture."""
    shape = layers[0][0].shape
    index = np.zeros(shape, np.uint8)
    palette = [0, 0, 0]
    for number, (mask, colour) in enumerate(layers, start=1):
        index[mask] = number
        palette += [round(float(v) * 255) for v in rgb(colour)]
    image = Image.fromarray(index)
    image.putpalette(palette)  # which makes it a palette image
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, transparency=0, bits=2)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shifted(array: np.ndarray, by: int, axis: int) -> np.ndarray:
    moved = np.roll(array, by, axis)
    rim = [slice(None)] * array.ndim
    rim[axis] = slice(0, by) if by > 0 else slice(by, None)
    moved[tuple(rim)] = array[tuple(rim)]
    return moved
