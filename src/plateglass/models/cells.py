"""Whole cells around nuclei, and the numbers that the two share.

With a cell channel, a pixel belongs to the nucleus from which it is reached most cheaply: a step
costs its length, more where the channel changes (the idea is CellProfiler's propagation, Jones et
al. 2005, LNCS 3765:535; the cost on the logarithm, by which dim cells keep their borders and a
channel that is bright *in* the nucleus does not mislead, is ours). Cells are flooded over that
distance by a seeded watershed. Without a cell channel, nuclei are grown.
"""

import numpy as np
from scipy import ndimage
from skimage.graph import MCP_Geometric
from skimage.segmentation import expand_labels, watershed

STEEPNESS = 20.0  # cost of one e-fold of the channel, in px
FLOOR = 0.1  # of the channel's range: changes below it are noise
GRADIENT_SIGMA = 1.0  # px


def grow(
    nuclei: np.ndarray,
    image: np.ndarray | None = None,
    *,
    grow: float = 5.0,
    reach: float = 30.0,
    threshold: float = 0.012,
) -> np.ndarray:
    """Cells ``(y, x)`` int32, each with its nucleus' number, which it contains.

    Parameters
    ----------
    nuclei : labels ``(y, x)``, any positive numbers
    image : the cell channel ``(y, x)``; without one, nuclei grow by ``grow``
    grow : px
    reach : px; no cell ends farther from its nucleus
    threshold : share of the channel's range (background to 99th percentile) above the background
        at which a cell begins, but at least three standard deviations of the background
    """
    if image is None or not nuclei.any():
        return expand_labels(nuclei, grow).astype(np.int32)
    smooth = ndimage.gaussian_filter(image.astype(np.float32), 1)
    level, spread, extent = background(smooth)
    cell = smooth > level + max(3 * spread, threshold * extent)
    cell &= ndimage.distance_transform_edt(nuclei == 0) <= reach
    cell |= nuclei > 0
    brightness = np.log(np.maximum((smooth - level) / extent, 0) + FLOOR)
    slope = ndimage.gaussian_gradient_magnitude(brightness, GRADIENT_SIGMA)
    cost = np.where(cell, np.hypot(1, STEEPNESS * slope), -1)
    cost[nuclei > 0] = 1e-3  # a nucleus is reached at once
    rim = (nuclei > 0) & (ndimage.grey_erosion(nuclei, 3) != nuclei)
    seeds = np.argwhere(rim) if rim.any() else np.argwhere(nuclei > 0)
    distance, _ = MCP_Geometric(cost).find_costs(seeds)
    distance[~np.isfinite(distance)] = distance[np.isfinite(distance)].max() + 1
    return watershed(distance, nuclei, mask=cell).astype(np.int32)


def background(image: np.ndarray) -> tuple[float, float, float]:
    """Level, standard deviation (by MAD) and range up to the 99th percentile of a field.

    From the darker quarter of the pixels; where cells cover everything, the darkest of them count
    as background, which costs a rim and no cell.
    """
    quarter = np.percentile(image, 25)
    dark = image[image <= quarter]
    level = float(np.median(dark))
    spread = 1.4826 * float(np.median(np.abs(dark - level)))
    return level, spread, max(float(np.percentile(image, 99)) - level, 1e-6)


def typical_diameter(areas: np.ndarray) -> float:
    """Median equivalent diameter (px) of the objects, debris aside; 0.0 without objects.

    Debris: less than half as wide as the object at the 75th percentile.
    """
    if len(areas) == 0:
        return 0.0
    diameters = np.sqrt(4 / np.pi * np.asarray(areas, float))
    return float(np.median(diameters[diameters >= np.percentile(diameters, 75) / 2]))


def drop_debris(nuclei: np.ndarray, share: float) -> tuple[np.ndarray, int]:
    """Nuclei ``(y, x)`` without fragments, micronuclei and dust, and how many were dropped.

    Debris is less than ``share`` of the field's typical diameter wide. What touches the border stays:
    most of it may lie outside.
    """
    areas = np.bincount(nuclei.ravel())
    areas[0] = 0
    diameters = np.sqrt(4 / np.pi * areas)
    debris = (areas > 0) & (diameters < share * typical_diameter(areas[areas > 0]))
    debris[1:] &= ~at_edge(nuclei)
    return np.where(debris[nuclei], 0, nuclei), int(debris.sum())


def number(nuclei: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Give each cell and its nucleus the same number, 1..N from top to bottom of the field.

    The nucleus of a cell is the one of largest overlap (the lower label, of equals); a nucleus
    belongs to the cell that it overlaps most. What is left over, of either kind, leaves both labels
    and is counted. Pixels of a kept nucleus are its cell's: no cell contains another's nucleus.

    Returns
    -------
    nuclei, cells : int32, of the same shape as the input (any dimensions)
    orphans : ``{"nuclei": count, "cells": count}``
    """
    n_nuclei, n_cells = int(nuclei.max(initial=0)), int(cells.max(initial=0))
    both = (nuclei > 0) & (cells > 0)
    pairs, overlap = np.unique(
        np.stack([nuclei[both], cells[both]]).astype(np.int64), axis=1, return_counts=True
    )
    # by overlap, largest first; then by label
    order = np.lexsort((pairs[1], pairs[0], -overlap))
    home = np.zeros(n_nuclei + 1, np.int64)  # nucleus → its cell
    kernel = np.zeros(n_cells + 1, np.int64)  # cell → its nucleus
    for nucleus, cell in pairs[:, order].T:
        if home[nucleus] == 0:
            home[nucleus] = cell
            if kernel[cell] == 0:
                kernel[cell] = nucleus
    kept = np.unique(kernel[kernel > 0])
    first = np.full(n_nuclei + 1, nuclei.size, np.int64)
    flat = nuclei.ravel()
    at = np.flatnonzero(flat)[::-1]
    first[flat[at]] = at  # the last write, the first pixel, stays
    kept = kept[np.argsort(first[kept])]
    new_nucleus = np.zeros(n_nuclei + 1, np.int32)
    new_cell = np.zeros(n_cells + 1, np.int32)
    new_nucleus[kept] = np.arange(1, len(kept) + 1)
    new_cell[home[kept]] = np.arange(1, len(kept) + 1)
    orphans = {
        "nuclei": len(np.unique(flat[flat > 0])) - len(kept),
        "cells": len(np.unique(cells[cells > 0])) - len(kept),
    }
    nuclei, cells = new_nucleus[nuclei], new_cell[cells]
    return nuclei, np.where(nuclei > 0, nuclei, cells), orphans


def at_edge(labels: np.ndarray) -> np.ndarray:
    """Which of the labels 1..N of ``(…, y, x)`` touch the field's border: bool ``(N,)``."""
    border = np.zeros(int(labels.max(initial=0)) + 1, bool)
    for side in (labels[..., 0, :], labels[..., -1, :], labels[..., 0], labels[..., -1]):
        border[np.unique(side)] = True
    return border[1:]
