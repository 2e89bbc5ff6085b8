"""Figures of an assay: separation of controls, dose response, accuracy, with intervals over wells.

Cells of a well share everything that happened to the well, so wells are what is drawn, never cells:
intervals are 95 % bootstrap intervals over wells, stratified by class. With fewer than four wells
of a class there is none, and the wells themselves are to be shown. Frames and arrays in, numbers
out.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

DRAWS = 1000
FEWEST = 4  # wells of a class below which an interval would say more than the wells do
WELL = ["Metadata_Plate", "Metadata_Well"]
AT_ONCE = 2**18  # positions of wells that are drawn together

# of the wells at these positions, repeats included: (..., wells) → (...)
Statistic = Callable[[np.ndarray], np.ndarray]


class Interval(NamedTuple):
    """A figure, its 95 % interval (None where wells are too few), and how many wells it has."""

    value: float
    low: float | None
    high: float | None
    wells: int

    def __str__(self) -> str:
        of = f"{self.wells} wells"
        if self.low is None:
            return f"{self.value:.3f} ({of}, too few for an interval)"
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f}; {of})"


class ZPrime(NamedTuple):
    """Z′ and the wells it stands on."""

    value: float
    positive: int
    negative: int

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.positive} positive, {self.negative} negative wells)"


def z_prime(positive: Sequence[float], negative: Sequence[float]) -> ZPrime:
    """``1 − 3 (s₊ + s₋) / |m₊ − m₋|`` of wells' figures (Zhang 1999), s with n − 1.

    NaN with fewer than two wells of a kind, or equal means.
    """
    positive, negative = _finite(positive), _finite(negative)
    value = np.nan
    if min(len(positive), len(negative)) > 1:
        both = np.concatenate([positive, negative])
        value = z_prime_statistic(both, np.arange(len(both)) < len(positive))(np.arange(len(both)))
    return ZPrime(float(value), len(positive), len(negative))


def z_prime_statistic(values: np.ndarray, positive: np.ndarray) -> Statistic:
    """``z_prime`` of some wells, two of a kind at least, all finite; ``positive`` tells the kind."""

    def statistic(at: np.ndarray) -> np.ndarray:
        of, kinds = values[at], (positive[at], ~positive[at])
        means = [of.mean(-1, where=kind) for kind in kinds]
        spread = sum(of.std(-1, ddof=1, where=kind) for kind in kinds)
        apart = abs(means[0] - means[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(apart > 0, 1 - 3 * spread / apart, np.nan)

    return statistic


def spearman(dose: Sequence[float], response: Sequence[float]) -> float:
    """Rank correlation over the wells that have both; NaN where either is constant."""
    return float(spearman_statistic(dose, response)(np.arange(len(dose))))


def spearman_statistic(dose: Sequence[float], response: Sequence[float]) -> Statistic:
    """``spearman`` of some of the wells.

    By how often each is among them, so that a thousand draws need no sorting of their own;
    scipy.stats, which would do it one by one, is a third of a report's start.
    """
    both = np.asarray([dose, response], float)
    known = np.isfinite(both).all(0)
    places = [np.unique(values[known], return_inverse=True)[1] for values in both]
    number = np.cumsum(known) - 1  # among the known

    def ranks(times: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Of each well, equal values sharing the mean; less the mean of all."""
        of_value = np.zeros((*times.shape[:-1], place.max(initial=-1) + 1))
        np.add.at(of_value, (..., place), times)
        until = of_value.cumsum(-1)
        rank = (until - (of_value - 1) / 2)[..., place]
        return rank - (times * rank).sum(-1, keepdims=True) / times.sum(-1, keepdims=True)

    def statistic(at: np.ndarray) -> np.ndarray:
        rows = at.reshape(math.prod(at.shape[:-1]), at.shape[-1])
        times = np.zeros((len(rows), known.sum()))
        draw, well = np.nonzero(known[rows])
        np.add.at(times, (draw, number[rows[draw, well]]), 1)
        with np.errstate(invalid="ignore"):
            one, other = (ranks(times, place) for place in places)
            shared = (times * one * other).sum(-1)
            alone = [(times * of**2).sum(-1) for of in (one, other)]
            return (shared / np.sqrt(alone[0] * alone[1])).reshape(at.shape[:-1])

    return statistic


def bootstrap(
    statistic: Statistic, strata: Sequence[object], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """A statistic of wells with its bootstrap interval.

    Parameters
    ----------
    statistic
        Takes positions of wells (integers, with repeats when drawn; shape (..., wells)), gives a
        number for each set (shape ...); draws where it is NaN do not count. For a paired
        difference, the difference of two figures of the same wells (and so of the same cells and
        networks).
    strata
        Class of each well; each draw has as many wells of a class as there are.
    """
    codes = pd.factorize(np.asarray(strata, dtype=object))[0]
    groups = [np.flatnonzero(codes == code) for code in range(codes.max(initial=-1) + 1)]
    wells = len(codes)
    value = float(statistic(np.arange(wells))) if wells else float("nan")
    if not groups or min(map(len, groups)) < FEWEST or not np.isfinite(value):
        return Interval(value, None, None, wells)
    rng = np.random.default_rng(seed)
    by_class, sizes = np.concatenate(groups), [len(group) for group in groups]
    first, size = (np.repeat(of, sizes) for of in (np.cumsum(sizes) - sizes, sizes))
    found = []
    while (left := draws - sum(map(len, found))) > 0:
        shape = (min(left, max(1, AT_ONCE // len(by_class))), len(by_class))
        found.append(statistic(by_class[first + rng.integers(size, size=shape)]))
    low, high = np.nanpercentile(np.concatenate(found), [2.5, 97.5])
    return Interval(value, float(low), float(high), wells)


def hits(cells: pd.DataFrame, label: str, predicted: str = "Metadata_Class") -> pd.DataFrame:
    """Per labelled well: its label, ``cells`` with a prediction, and ``hits`` among them."""
    known = cells[cells[label].notna() & cells[predicted].notna()]
    by = known.assign(hits=known[predicted] == known[label]).groupby([*WELL, label], sort=True)
    return by["hits"].agg(cells="size", hits="sum").reset_index().rename(columns={label: "label"})


def balanced_accuracy(wells: pd.DataFrame, seed: int = 0) -> Interval:
    """Mean over classes of the share of cells called right; ``wells`` as ``hits`` gives them."""
    return bootstrap(balanced_statistic(wells), wells["label"], seed=seed)


def balanced_statistic(wells: pd.DataFrame) -> Statistic:
    """The balanced accuracy of some of the wells; differences of two are paired by the wells."""
    codes, classes = pd.factorize(wells["label"])
    own = codes[:, None] == np.arange(len(classes))
    right, cells = (own * wells[name].to_numpy(float)[:, None] for name in ("hits", "cells"))

    def statistic(at: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (right[at].sum(-2) / cells[at].sum(-2)).mean(-1)

    return statistic


def mean_of_cells(cells: pd.DataFrame, column: str, label: str, seed: int = 0) -> Interval:
    """Mean over cells of a column (nulls left out), with its interval over wells."""
    known = cells[cells[column].notna() & cells[label].notna()]
    by = known.groupby([*WELL, label], sort=True)[column].agg(["sum", "size"]).reset_index()
    total, size = by["sum"].to_numpy(float), by["size"].to_numpy(float)
    return bootstrap(lambda at: total[at].sum(-1) / size[at].sum(-1), by[label], seed=seed)


def nucleus_to_cytoplasm(
    cells: pd.DataFrame, channel: str, background: pd.DataFrame | None = None
) -> pd.Series:
    """Ratio of a channel's mean in the nucleus to that in the cytoplasm, for each cell.

    Parameters
    ----------
    cells
        Rows of ``cells`` with the classical features.
    background
        Rows of ``sites``: ``Background_<channel>`` is taken off both means. NaN where the
        cytoplasm is no brighter than that.
    """
    nucleus = cells[f"Nuclei_Intensity_MeanIntensity_{channel}"].astype(float)
    cytoplasm = cells[f"Cytoplasm_Intensity_MeanIntensity_{channel}"].astype(float)
    if background is not None:
        site = [*WELL, "Metadata_Site"]
        level = cells[site].merge(background[[*site, f"Background_{channel}"]], "left", site)
        level = level[f"Background_{channel}"].to_numpy(float)
        nucleus, cytoplasm = nucleus - level, cytoplasm - level
    return (nucleus / cytoplasm).where(cytoplasm > 0)


def _finite(values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, float)
    return values[np.isfinite(values)]
