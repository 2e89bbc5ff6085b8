"""Classical features of every cell of a field, under CellProfiler's names.

Measured by cp_measure (a maintained port of CellProfiler's modules), except where it goes through
the objects or channels one by one: the rings of a radial distribution depend on the labels alone, so
they are laid out once and every channel is binned into them (2 channels: 1.9 times as fast, and the
more so the more channels); textures (see texture.py) and correlations are counts and sums by label.
All three are held to cp_measure column by column in the tests.

Where a value is undefined it is NaN. cp_measure and CellProfiler write 0 for some: a mean
fraction or variation of an empty ring, the edge of a cell that fills the field, the form of an
object without a perimeter.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from centrosome.cpmorphology import color_labels
from centrosome.propagate import propagate
from cp_measure.core.measureobjectintensity import get_intensity
from cp_measure.core.measureobjectsizeshape import get_feret, get_sizeshape, get_zernike
from scipy.ndimage import distance_transform_edt

from plateglass.measure import names
from plateglass.measure.texture import LEVELS, Pairs

RINGS = 4
WEDGES = 8


def measure(
    image: np.ndarray,
    nuclei: np.ndarray,
    cells: np.ndarray,
    channels: Sequence[str],
    windows: Mapping[str, tuple[float, float]] | None = None,
) -> pd.DataFrame:
    """Classical features of the cells of one field.

    Parameters
    ----------
    image
        ``(c, y, x)``, raw grey values. Intensities come out in these very units.
    nuclei, cells
        ``(y, x)`` integer labels; the nucleus of a cell has its number. The cytoplasm is the cell
        without the nuclei.
    channels
        Names of the image's channels, in its order.
    windows
        Per channel the (low, high) grey values between which textures tell 255 levels apart;
        what lies outside is clipped. Without it the whole range of the image's type, as
        CellProfiler does, which leaves few levels to a dim 16-bit image.

    Returns
    -------
    pandas.DataFrame
        One row a cell, index ``Metadata_Cell`` (the cell's number, ascending), columns
        ``names.columns(channels)``, float32; the same columns for a field without cells.
        NaN where a feature is undefined or the cell lacks the compartment.
    """
    if image.shape != (len(channels), *cells.shape) or nuclei.shape != cells.shape:
        raise ValueError(
            f"image {image.shape}, nuclei {nuclei.shape} and cells {cells.shape} do not belong "
            f"together, or are not of the {len(channels)} channels {list(channels)}"
        )
    columns = names.columns(channels)
    numbers = np.unique(cells[cells > 0])
    values = np.full((len(numbers), len(columns)), np.nan, np.float32)
    at = {column: i for i, column in enumerate(columns)}
    planes = {channel: plane.astype(np.float64) for channel, plane in zip(channels, image)}
    grey = {
        channel: _levels(plane, image.dtype, (windows or {}).get(channel))
        for channel, plane in planes.items()
    }
    compartments = {"Nuclei": nuclei, "Cells": cells, "Cytoplasm": np.where(nuclei > 0, 0, cells)}
    for compartment, labels in compartments.items():
        present = np.intersect1d(labels, numbers)
        if present.size == 0:
            continue
        # The library wants 1..N: a cell without cytoplasm leaves a gap, a stray nucleus has no row.
        place = np.minimum(np.searchsorted(present, labels), present.size - 1)
        clean = np.where(present[place] == labels, place + 1, 0).astype(np.int32)
        rows = np.searchsorted(numbers, present)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # objects too small for a hull or an ellipse: NaN
            found = _compartment(clean, planes, grey)
        for name, column in found.items():
            column = np.asarray(column, np.float64)
            values[rows, at[f"{compartment}_{name}"]] = np.where(
                np.isfinite(column), column, np.nan
            )
    index = pd.Index(numbers.astype(np.int32), name="Metadata_Cell")
    return pd.DataFrame(values, index=index, columns=columns)


def _compartment(
    labels: np.ndarray, planes: dict[str, np.ndarray], grey: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """CellProfiler's name → a value per object, for one compartment with labels 1..N."""
    shape = get_sizeshape(labels, None, calculate_advanced=False, new_features=False)
    for name in ("FormFactor", "Compactness"):  # a line or a point has no perimeter here
        shape[name] = np.where(shape["Perimeter"] > 0, shape[name], np.nan)
    found = _named("shape", shape)
    found |= _named("feret", get_feret(labels, None))
    found |= _named("zernike", get_zernike(labels, None))
    rings, pairs = Rings(labels), Pairs(labels)
    for channel, plane in planes.items():
        intensity = get_intensity(labels, plane)
        if labels.min() == labels.max():  # the object fills the field: it has no edge to measure
            intensity |= {k: np.full(1, np.nan) for k in intensity if k.endswith("Edge")}
        found |= _named("intensity", intensity, channel=channel)
        found |= _named("radial", rings.distribution(plane), channel=channel)
        found |= _named("texture", pairs.haralick(grey[channel]), channel=channel)
    for first, second in names.pairs(list(planes)):
        correlation = {"Correlation_Pearson": pearson(labels, planes[first], planes[second])}
        found |= _named("correlation", correlation, first=first, second=second)
    return found


def _named(group: str, measured: Mapping[str, np.ndarray], **channel: str) -> dict[str, np.ndarray]:
    """The measured features that are columns, under CellProfiler's names."""
    return {name.format(**channel): measured[key] for key, name in names.templates(group).items()}


def _levels(plane: np.ndarray, dtype: np.dtype, window: tuple[float, float] | None) -> np.ndarray:
    """Grey levels 1–255 of a plane; never 0, which a co-occurrence would take for 'outside'."""
    if window is None:
        window = (0.0, float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0)
    low, high = window
    scaled = (plane - low) / max(high - low, np.finfo(float).tiny)
    return np.rint(1 + (LEVELS - 2) * np.clip(scaled, 0, 1)).astype(np.uint8)


class Rings:
    """Each object in 4 rings about its innermost pixel, each ring in 8 wedges.

    As CellProfiler's MeasureObjectIntensityDistribution lays them out: a pixel's ring is its
    distance from the centre (through the object) over that plus its distance to the edge.
    """

    def __init__(self, labels: np.ndarray):
        self.objects = int(labels.max())
        colors = color_labels(labels)  # objects of one colour do not touch: done in one pass
        masks = [colors == color for color in range(1, int(colors.max()) + 1)]
        to_edge = np.zeros(labels.shape)
        for mask in masks:
            to_edge[mask] = distance_transform_edt(mask)[mask]
        y, x = _innermost(labels, to_edge, self.objects)
        centres = np.zeros(labels.shape, int)
        centres[y, x] = np.arange(1, self.objects + 1)
        from_centre = np.full(labels.shape, -1.0)
        for mask in masks:
            _, distance = propagate(np.zeros(labels.shape), centres, mask, 1)
            from_centre[mask] = distance[mask]
        # A piece of the object that the centre cannot reach counts nowhere.
        self.at = np.nonzero((labels > 0) & (from_centre >= 0))
        self.object = labels[self.at] - 1
        distance = from_centre[self.at]
        share = distance / (distance + to_edge[self.at] + 0.001)
        self.ring = np.minimum((share * RINGS).astype(int), RINGS - 1)
        dy = self.at[0] - y[self.object]
        dx = self.at[1] - x[self.object]
        self.wedge = (dy > 0) + 2 * (dx > 0) + 4 * (np.abs(dy) > np.abs(dx))
        self.pixels = self._sums(np.ones(len(self.object)))

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Sums by (object, ring, wedge)."""
        bins = (self.object * RINGS + self.ring) * WEDGES + self.wedge
        sums = np.bincount(bins, values, minlength=self.objects * RINGS * WEDGES)
        return sums.reshape(self.objects, RINGS, WEDGES)

    def distribution(self, plane: np.ndarray) -> dict[str, np.ndarray]:
        """Share, mean share and angular variation of a channel in each ring, per object."""
        sums = self._sums(plane[self.at])
        of_object = sums.sum((1, 2))[:, None]
        fraction = sums.sum(2) / of_object
        area = self.pixels.sum(2) / self.pixels.sum((1, 2))[:, None]
        wedges = np.ma.masked_array(sums, self.pixels == 0) / np.maximum(self.pixels, 1)
        variation = np.ma.filled(wedges.std(2) / wedges.mean(2), np.nan)
        features: dict[str, np.ndarray] = {}
        for ring in range(RINGS):
            at = f"{ring + 1}of{RINGS}"
            features[f"RadialDistribution_FracAtD_{at}"] = fraction[:, ring]
            features[f"RadialDistribution_MeanFrac_{at}"] = fraction[:, ring] / area[:, ring]
            features[f"RadialDistribution_RadialCV_{at}"] = variation[:, ring]
        return features


def _innermost(labels: np.ndarray, to_edge: np.ndarray, objects: int) -> tuple[np.ndarray, ...]:
    """(y, x) of each object's first pixel, row by row, that is farthest from its edge."""
    flat, depth = labels.ravel(), to_edge.ravel()
    inside = np.flatnonzero(flat)
    order = inside[np.lexsort((inside, -depth[inside], flat[inside]))]
    first = np.searchsorted(flat[order], np.arange(1, objects + 1))
    return np.unravel_index(order[first], labels.shape)


def pearson(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation of two planes over each object's pixels; NaN where one is constant."""
    inside = labels > 0
    of = labels[inside] - 1
    objects = int(labels.max())
    pixels = np.bincount(of, minlength=objects)
    deviations = []
    for plane in (first, second):
        values = plane[inside]
        deviations.append(values - (np.bincount(of, values, minlength=objects) / pixels)[of])
    a, b = deviations
    sums = [np.bincount(of, product, minlength=objects) for product in (a * b, a * a, b * b)]
    return sums[0] / np.sqrt(sums[1] * sums[2])
