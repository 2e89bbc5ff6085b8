"""The screen's selected profiles on their two widest axes."""

from typing import Any

import numpy as np

from plateglass.measure.names import features_of
from plateglass.report import charts
from plateglass.report.charts import Plot
from plateglass.report.page import Page
from plateglass.report.response import WHO, some
from plateglass.report.subject import Subject
from plateglass.report.wells import read

SHAPES = 6  # plates that differ by their symbol; more differ by tooltip alone
CLIP = 5.0  # standard deviations


def build(page: Page, subject: Subject) -> dict[str, Any]:
    """A chart of wells_selected for the template, or why there is none."""
    table = read(subject.job.plate_dir / "wells_selected.parquet")
    features = [] if table is None else features_of(list(table.columns))
    if table is None or len(features) < 2:
        why = "Fewer than two features were left by the selection, so there is no plane to draw."
        return {"plots": [], "absent": [why]}
    values = table[features].astype(float)
    some_values = values.columns[values.notna().any()]
    whole = values[some_values].notna().all(axis=1)
    if whole.sum() < 4:
        return {"plots": [], "absent": ["Fewer than four wells have a whole profile."]}
    scores, shares = principal(values.loc[whole, some_values].to_numpy())
    places = table.loc[whole, ["Metadata_Plate", "Metadata_Well"]].astype(str)
    places.columns = ["plate", "well"]
    points = places.assign(x=scores[:, 0], y=scores[:, 1])
    points = some(points.merge(subject.wells, "left", ["plate", "well"]))
    kept = [name for name in WHO if name in points]
    page.table("profiles", points[[*kept, "x", "y"]])
    tips = charts.tooltip(*((f"{n}:{'Q' if n == 'count' else 'N'}", n) for n in kept))
    by_shape = 1 < points["plate"].nunique() <= SHAPES
    page.charts["profiles"] = charts.scatter(
        "profiles",
        ("x", f"component 1 ({shares[0]:.0%} of the variance)"),
        ("y", f"component 2 ({shares[1]:.0%})"),
        subject.colours,
        tips,
        len(points),
        shape="plate" if by_shape else None,
    )
    caption = (
        f"A symbol is a well{', its shape the plate' if by_shape else ''}: principal components of "
        f"{len(some_values):,} features, each normalised per plate to the negative controls. Wells "
        "that lie together look alike. If symbols gather by plate rather than by colour, plates "
        "still differ after normalisation."
    )
    lede = f"{whole.sum():,} wells, {len(some_values):,} features kept by the selection."
    plot = Plot("profiles", "Wells by their profiles", caption, 320)
    return {"plots": [plot], "absent": [], "lede": lede}


def principal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First two principal components of wells × features, and their shares of the variance.

    Each feature is centred, scaled to unit variance and cut at ±5, so that no single one with a
    long tail draws the plane. Signs are fixed (the largest loading is positive).
    """
    centred = values - values.mean(0)
    spread = centred.std(0)
    scaled = np.clip(centred / np.where(spread > 0, spread, 1), -CLIP, CLIP)
    scaled -= scaled.mean(0)
    left, singular, loadings = np.linalg.svd(scaled, full_matrices=False)
    signs = np.sign(loadings[np.arange(2), np.abs(loadings[:2]).argmax(1)])
    power = singular**2 / max((singular**2).sum(), 1e-12)
    return left[:, :2] * singular[:2] * signs, power[:2]
