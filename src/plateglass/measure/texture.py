"""Haralick's textures of all objects of a field at once.

The features are those of mahotas (by which CellProfiler and cp_measure compute them) to rounding;
the tests hold each to cp_measure. mahotas builds a 256 × 256 matrix for each object and direction,
of which an object of some hundred pixels fills one cell in a hundred; here the pairs of pixels
themselves are counted, for all objects together. That takes a sixth of the time for nuclei of 200
pixels and less than half for cells of 700, and the pairs are laid out once for all channels.
"""

import numpy as np

SCALE = 3  # pixels between the two of a pair
LEVELS = 256
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))  # (y, x): 0°, 135°, 90°, 45°


class Pairs:
    """Pairs of pixels of one object, ``SCALE`` apart, in each of the four directions."""

    def __init__(self, labels: np.ndarray):
        """``labels`` ``(y, x)``, objects 1..N."""
        self.labels = labels
        self.objects = int(labels.max())
        self.at = [_pairs(labels, SCALE * dy, SCALE * dx) for dy, dx in DIRECTIONS]

    def haralick(self, grey: np.ndarray) -> dict[str, np.ndarray]:
        """Thirteen features by direction: ``<name>_<scale>_<direction>_<levels>`` → (N,).

        ``grey`` ``(y, x)``: levels 1 to 255. An object without a pair in any one direction is NaN
        throughout, as in CellProfiler.
        """
        inside = self.labels > 0
        largest = np.zeros(self.objects + 1, np.int64)
        np.maximum.at(largest, self.labels[inside], grey[inside])
        flat, found, absent = grey.ravel(), {}, np.zeros(self.objects, bool)
        for direction, (first, second) in enumerate(self.at):
            of = self.labels.ravel()[first] - 1
            pairs = np.bincount(of, minlength=self.objects)
            absent |= pairs == 0
            levels = flat[first].astype(np.int64), flat[second].astype(np.int64)
            for name, values in _features(of, *levels, pairs, largest[1:]).items():
                found[f"{name}_{SCALE}_{direction:02d}_{LEVELS}"] = values
        return {name: np.where(absent, np.nan, values) for name, values in found.items()}


def _pairs(labels: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat positions of both pixels of every pair that lies within one object."""
    height, width = labels.shape
    left, right = max(0, -dx), width - max(0, dx)
    here = labels[: max(0, height - dy), left:right]
    there = labels[dy:, left + dx : right + dx]
    y, x = np.nonzero((here > 0) & (here == there))
    first = y * width + x + left
    return first, first + dy * width + dx


def _features(
    of: np.ndarray, i: np.ndarray, j: np.ndarray, pairs: np.ndarray, largest: np.ndarray
) -> dict[str, np.ndarray]:
    """Haralick's 13 from levels i and j of pairs of the objects ``of``; a pair counts both ways."""
    objects = len(pairs)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(of, values, minlength=objects) / pairs

    total, apart = i + j, np.abs(i - j)
    average = mean(total)
    level = average / 2
    variance = mean(i * i + j * j) / 2 - level**2
    variance = np.maximum(variance, 0)
    covariance = mean(i * j) - level**2
    # Each pair twice in the margin; in the matrix, (i, j) and (j, i) are two cells unless i = j.
    margin = _entropy(_counts(of, i, LEVELS, objects) + _counts(of, j, LEVELS, objects))
    by_apart = _counts(of, apart, LEVELS, objects)
    codes = (of * LEVELS + np.minimum(i, j)) * LEVELS + np.maximum(i, j)
    codes = np.sort(codes.astype(np.int32) if objects < 2**15 else codes)
    start = np.flatnonzero(np.diff(codes, prepend=-1))
    count = np.diff(start, append=len(codes))
    cell = codes[start]
    own, off = cell // LEVELS**2, (cell // LEVELS) % LEVELS != cell % LEVELS
    share = count / pairs[own]
    moment = np.bincount(own, share**2 * np.where(off, 0.5, 1.0), minlength=objects)
    entropy = np.bincount(own, share * (off - np.log2(share)), minlength=objects)
    spread = by_apart / pairs[:, None]
    length = (
        largest + 1
    )  # mahotas: the variance of the histogram's bins, up to the object's brightest
    difference = (spread**2).sum(1) / length - (1 / length) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.where(variance > 0, covariance / variance, 1.0)
        first = (entropy - 2 * margin) / np.where(margin > 0, margin, 1)
    second = np.sqrt(np.maximum(0, 1 - np.exp(-2 * (2 * margin - entropy))))
    return {
        "AngularSecondMoment": moment,
        "Contrast": mean(apart * apart),
        "Correlation": correlation,
        "Variance": variance,
        "InverseDifferenceMoment": mean(1 / (1 + apart * apart)),
        "SumAverage": average,
        "SumVariance": mean(total * total) - average**2,
        "SumEntropy": _entropy(_counts(of, total, 2 * LEVELS, objects)),
        "Entropy": entropy,
        "DifferenceVariance": difference,
        "DifferenceEntropy": _entropy(by_apart),
        "InfoMeas1": first,
        "InfoMeas2": second,
    }


def _counts(of: np.ndarray, values: np.ndarray, levels: int, objects: int) -> np.ndarray:
    """Histogram of each object: (N, levels)."""
    return np.bincount(of * levels + values, minlength=objects * levels).reshape(objects, levels)


def _entropy(counts: np.ndarray) -> np.ndarray:
    """Entropy in bits of each row of counts."""
    number = np.arange(counts.max(initial=0) + 1, dtype=float)
    number[1:] *= np.log2(number[1:])
    total = counts.sum(1)
    return np.log2(np.maximum(total, 1)) - number[counts].sum(1) / np.maximum(total, 1)
