"""How wells answer: by dose where the platemap tells one, by label always."""

from typing import Any

import numpy as np
import pandas as pd

from plateglass.measure import assay
from plateglass.report import charts
from plateglass.report.charts import Colours, Plot
from plateglass.report.page import Page, number
from plateglass.report.wells import Dose


def jitter(values: pd.Series, groups: pd.Series) -> pd.Series:
    """A sideways place in [−1, 1] for each value, so that neighbours in height do not overlap.

    By rank within the group and alternating sides: no chance, the same in every run.
    """
    rank = values.groupby(groups).rank(method="first").fillna(0)
    return ((rank * 2) % 5 - 2) / 2.2


def summarise(wells: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    """Mean of a group's wells and its 95 % bootstrap interval, None for fewer than four wells."""
    rows = []
    for key, group in wells.dropna(subset=[value]).groupby(by, sort=True):
        values = group[value].to_numpy(float)
        mean = assay.bootstrap(lambda at: values[at].mean(), np.ones(len(values)))  # noqa: B023
        rows.append((*key, *mean))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "wells"])


def build(
    page: Page, wells: pd.DataFrame, dose: Dose | None, colours: Colours, value: str, title: str
) -> tuple[list[Plot], list[str]]:
    """Charts of the response in ``value`` and the reasons for those that are left out."""
    known = wells.dropna(subset=[value]).copy()
    if known.empty:
        return [], [f"No well has a value of “{title}”, so there is no response to show."]
    plots, absent = [], []
    known["jitter"] = jitter(known[value], known["label"])
    tips = _tips(known, value, title)
    if dose is not None:
        known["dose_jitter"] = jitter(known[value], known["dose"])
        plots.append(_by_dose(page, known, dose, colours, value, title))
    else:
        absent.append(
            "The platemap has no column with at least three doses (dose_level, dose, or the one that "
            "report.dose names), so there is no dose response."
        )
    shown = known[known["label"] != "not labelled"]
    if shown["label"].nunique() > 1:
        kept = [c for c in ("plate", "well", "label", "compound", "dose", "count", value, "jitter")
                if c in shown]  # fmt: skip
        page.table("response", shown[kept])
        page.table("groups", summarise(shown, value, ["label"]))
        present = [p for p in colours.pairs if p[0] in set(shown["label"])]
        pair = Colours(tuple(p[0] for p in present), tuple(p[1] for p in present))
        page.charts["by_label"] = charts.response_by_label(value, title, pair, tips)
        plots.append(
            Plot(
                "by_label",
                f"{title[0].upper()}{title[1:]} by label",
                "A circle is a well; the tick is the mean of a label's wells and the band its 95 % "
                "bootstrap interval over wells (left out below four wells). The farther two labels lie "
                "apart for the width of their clouds, the better one well tells them.",
                320,
            )
        )
    return plots, absent


def _by_dose(
    page: Page, known: pd.DataFrame, dose: Dose, colours: Colours, value: str, title: str
) -> Plot:
    dosed = known.dropna(subset=["dose"]).copy()
    dosed["series"] = dosed["label"]
    if "compound" in dosed:
        dosed["series"] += np.where(dosed["compound"] != "", " · " + dosed["compound"], "")
    means = summarise(dosed, value, ["series", "label", "dose"])
    means["steps"] = means.groupby("series")["dose"].transform("count")
    means["compound"] = means["series"].str.split(" · ", n=1).str[1]
    joined = means[means["steps"] > 1]
    compounds = tuple(sorted(joined["compound"].dropna().unique()))
    kept = [c for c in ("plate", "well", "label", "compound", "dose", "count", value) if c in dosed]
    page.table("dosed", dosed[kept].assign(jitter=dosed["dose_jitter"]))
    page.table("means", means)
    page.charts["by_dose"] = charts.response_by_dose(
        value, title, list(dose.steps), dose.unit, colours, _tips(dosed, value, title), compounds
    )
    return Plot(
        "by_dose",
        f"{title[0].upper()}{title[1:]} by dose",
        "A circle is a well; the line joins the means of a label's (and compound's) wells at each "
        "dose, a band is the 95 % bootstrap interval of that mean over wells (left out below four "
        "wells). Doses are evenly spaced in their order, whatever their size.",
        max(300, 30 * len(dose.steps)),
    )


def quality(
    wells: pd.DataFrame, dose: Dose | None, negative: str, positive: str | None, value: str
) -> dict[str, assay.Interval]:
    """Z′ of the controls and dose correlation of the treatments, as far as there are wells for it."""
    known = wells.dropna(subset=[value])
    found = {}
    controls = known[known["label"].isin([negative, positive])]
    values, high = controls[value].to_numpy(float), (controls["label"] == positive).to_numpy()

    def z_prime(at: np.ndarray) -> float:
        return assay.z_prime(values[at][high[at]], values[at][~high[at]]).value

    if min(high.sum(), (~high).sum()) > 1:
        found["Z′"] = assay.bootstrap(z_prime, high)
    if dose is not None:
        treated = known[~known["label"].isin([negative, positive])].dropna(subset=["dose_rank"])
        rank, answer = treated["dose_rank"].to_numpy(float), treated[value].to_numpy(float)
        if len(np.unique(rank)) > 2:
            found["dose ρ"] = assay.bootstrap(
                lambda at: assay.spearman(rank[at], answer[at]), np.ones(len(rank))
            )
    return found


GLOSS = {
    "Z′": "How far the controls' wells lie apart for their spread (Zhang 1999): above 0.5 a single "
    "well tells them; 1 is the most.",
    "dose ρ": "Spearman correlation of treated wells' margin with their dose: 1 rises at every step.",
}


def quality_table(found: dict[str, assay.Interval], wells: dict[str, str]) -> dict[str, Any] | None:
    """The figures of ``quality`` for the template; ``wells``: on how many each one stands."""
    if not found:
        return None
    names = ("", "Value", "95 % interval", "Wells")
    return {
        "title": "Assay quality",
        "columns": [{"name": name, "number": i in (1, 2)} for i, name in enumerate(names)],
        "rows": [
            [{"text": name, "gloss": GLOSS[name]}, number(figure.value), span(figure), wells[name]]
            for name, figure in found.items()
        ],
    }


def wells_of(
    wells: pd.DataFrame, found: dict[str, assay.Interval], negative: str, positive: str | None, value: str
) -> dict[str, str]:
    """On which wells each figure stands, in words."""
    known = wells.dropna(subset=[value])["label"]
    counts = f"{(known == negative).sum()} negative, {(known == positive).sum()} positive"
    return {name: counts if name == "Z′" else f"{f.wells} treated" for name, f in found.items()}


def span(figure: assay.Interval) -> str:
    """An interval in words, also where there is none."""
    if figure.low is None or figure.high is None:
        return "too few wells"
    return f"{number(figure.low)} to {number(figure.high)}"


def _tips(table: pd.DataFrame, value: str, title: str) -> list:
    tips = [("well:N", "well"), ("label:N", "label")]
    if table["plate"].nunique() > 1:
        tips.insert(0, ("plate:N", "plate"))
    for column, name, *form in (
        ("compound:N", "compound"),
        ("dose:N", "dose"),
        ("count:Q", "cells", ","),
    ):
        if column.split(":")[0] in table:
            tips.append((column, name, *form))
    return charts.tooltip(*tips, (f"{value}:Q", title, ".3~f"))
