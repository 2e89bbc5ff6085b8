"""Crops around cells, and what is done to their pixels: erase the cell, swap its surroundings.

`cut` and `background` take NumPy fields in plate units; the rest takes tensors (N, C, y, x) with
masks (N, y, x), or one more spatial axis in both, and gives new tensors. Reports cut crops too and
need no network, so torch is imported where tensors come in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import torch

GROWN = 2  # px by which a mask grows before its cell is erased: the rim carries signal too


def cut(
    field: np.ndarray,
    cells: np.ndarray,
    size: int,
    nuclei: np.ndarray | None = None,
    only: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut one crop a cell, centred on its nucleus.

    Parameters
    ----------
    field : float32 (C, y, x) in plate units.
    cells, nuclei : int labels (y, x), a nucleus and its cell with one number; without ``nuclei``
        the cell's own centroid is the centre.
    size : edge in px. What lies outside the field is filled with the field's background.
    only : the cells wanted, in this order; all where None.

    Returns
    -------
    crops float32 (N, C, size, size), masks bool (N, size, size) of the own cell, cell numbers (N,),
    centres (N, 2) as y, x in the field.
    """
    centred = cells if nuclei is None else nuclei
    present = np.unique(centred[centred > 0])
    numbers = present if only is None else np.asarray(only)
    centres = np.zeros((0, 2))
    if len(numbers):
        centres = np.array(ndimage.center_of_mass(centred > 0, centred, numbers)).reshape(-1, 2)
    half = size // 2
    level = background(field, cells)
    padded = np.pad(field, ((0, 0), (half, size), (half, size)))
    outside = np.pad(
        np.zeros(field.shape[1:], bool), ((half, size), (half, size)), constant_values=True
    )
    padded[:, outside] = level[:, None]
    own = np.pad(cells, ((half, size), (half, size)))
    crops = np.empty((len(numbers), len(field), size, size), np.float32)
    masks = np.empty((len(numbers), size, size), bool)
    for i, (number, centre) in enumerate(zip(numbers, centres)):
        y, x = np.floor(centre + 0.5).astype(int)  # pixel (y, x) lands at (half, half)
        crops[i] = padded[:, y : y + size, x : x + size]
        masks[i] = own[y : y + size, x : x + size] == number
    return crops, masks, numbers.astype(np.int32), centres


def background(field: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Median of each channel outside all cells, (C,); its 5th percentile where cells fill the field."""
    empty = ~ndimage.binary_dilation(cells > 0, iterations=GROWN)
    if empty.sum() < 100:
        return np.percentile(field, 5, axis=(1, 2)).astype(np.float32)
    return np.median(field[:, empty], axis=1).astype(np.float32)


def texture(field: np.ndarray, cells: np.ndarray, size: int) -> np.ndarray | None:
    """Real background of a field, (C, size, size): its largest square without cells, mirrored to size.

    None where no square of 12 px is free of cells.
    """
    empty = np.pad(~ndimage.binary_dilation(cells > 0, iterations=GROWN), 1)
    room = ndimage.distance_transform_cdt(empty, metric="chessboard")[1:-1, 1:-1]
    y, x = np.unravel_index(room.argmax(), room.shape)
    half = int(room[y, x]) - 1
    if 2 * half + 1 < 12:
        return None
    patch = field[:, y - half : y + half + 1, x - half : x + half + 1]
    missing = max(0, size - patch.shape[1])
    patch = np.pad(patch, ((0, 0), (0, missing), (0, missing)), mode="reflect")
    return patch[:, :size, :size].astype(np.float32)


def dilate(masks: torch.Tensor, pixels: int = GROWN) -> torch.Tensor:
    """Grow masks (N, *spatial) by `pixels` in every direction (squares)."""
    if pixels == 0:
        return masks
    import torch

    pool = torch.nn.functional.max_pool2d if masks.ndim == 3 else torch.nn.functional.max_pool3d
    return pool(masks[:, None].float(), 2 * pixels + 1, 1, pixels)[:, 0] > 0


def erase(
    crops: torch.Tensor, masks: torch.Tensor, fill: torch.Tensor, grown: int = GROWN
) -> torch.Tensor:
    """Put `fill`, a level (N, C) or a texture shaped as the crops, where the cell grown by `grown` is."""
    import torch

    if fill.ndim == 2:
        fill = fill.reshape(*fill.shape, *[1] * (crops.ndim - 2))
    return torch.where(dilate(masks, grown)[:, None], fill, crops)


def swap(crops: torch.Tensor, masks: torch.Tensor, surroundings: torch.Tensor) -> torch.Tensor:
    """Keep each cell's own pixels exactly, take all others from `surroundings` (as the crops).

    The seam is hard: softened, the cell's own glow would stay around it and tell the class.
    """
    import torch

    return torch.where(masks[:, None], crops, surroundings)
