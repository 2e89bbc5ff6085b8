"""Figures of an assay: separation of controls, dose response, accuracy, with intervals over wells.

Cells of a well share everything that happened to the well, so wells are what is drawn, never cells:
intervals are 95 % bootstrap intervals over wells, stratified by class. With fewer than four wells
of a class there is none, and the wells themselves are to be shown. Frames and arrays in, numbers
out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

DRAWS = 1000
FEWEST = 4  # wells of a class below which an interval would say more than the wells do
WELL = ["Metadata_Plate", "Metadata_Well"]

Statistic = Callable[[np.ndarray], float]  # of the wells at these positions, repeats included


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
        apart = abs(positive.mean() - negative.mean())
        spread = positive.std(ddof=1) + negative.std(ddof=1)
        value = 1 - 3 * spread / apart if apart > 0 else np.nan
    return ZPrime(float(value), len(positive), len(negative))


def spearman(dose: Sequence[float], response: Sequence[float]) -> float:
    """Rank correlation over the wells that have both; NaN where either is constant."""
    dose, response = np.asarray(dose, float), np.asarray(response, float)
    both = np.isfinite(dose) & np.isfinite(response)
    if len(np.unique(dose[both])) < 2 or len(np.unique(response[both])) < 2:
        return float("nan")
    ranks = [pd.Series(values[both]).rank() for values in (dose, response)]
    return float(np.corrcoef(*ranks)[0, 1])  # scipy.stats would be a third of a report's start


def bootstrap(
    statistic: Statistic, strata: Sequence[object], draws: int = DRAWS, seed: int = 0
) -> Interval:
    """A statistic of wells with its bootstrap interval.

    Parameters
    ----------
    statistic
        Takes positions of wells (an integer array, with repeats when drawn), gives a number; draws
        where it is NaN do not count. For a paired difference, the difference of two figures of
        the same wells (and so of the same cells and networks).
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
    drawn = [
        statistic(np.concatenate([rng.choice(group, len(group)) for group in groups]))
        for _ in range(draws)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
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
    cells, right = wells["cells"].to_numpy(float), wells["hits"].to_numpy(float)

    def statistic(at: np.ndarray) -> float:
        with np.errstate(invalid="ignore"):
            of = [np.bincount(codes[at], x[at], minlength=len(classes)) for x in (right, cells)]
            return float(np.mean(of[0] / of[1]))

    return statistic


def mean_of_cells(cells: pd.DataFrame, column: str, label: str, seed: int = 0) -> Interval:
    """Mean over cells of a column (nulls left out), with its interval over wells."""
    known = cells[cells[column].notna() & cells[label].notna()]
    by = known.groupby([*WELL, label], sort=True)[column].agg(["sum", "size"]).reset_index()
    total, size = by["sum"].to_numpy(float), by["size"].to_numpy(float)
    return bootstrap(lambda at: total[at].sum() / size[at].sum(), by[label], seed=seed)


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
