"""How wells answer: by dose where the platemap tells one, by label always."""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from plateglass.measure import assay
from plateglass.report import charts
from plateglass.report.charts import Colours, Plot
from plateglass.report.page import Page, number
from plateglass.report.subject import Subject
from plateglass.report.wells import UNLABELLED, Dose

MOST = 6000  # wells that a chart of single wells shows
WHO = ("plate", "well", "label", "compound", "dose", "count")


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
        mean = assay.bootstrap(lambda at: values[at].mean(-1), np.ones(len(values)))  # noqa: B023
        rows.append((*key, *mean))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "wells"])


def build(page: Page, subject: Subject) -> dict[str, Any]:
    """Charts by dose and by label, and the figures of the assay, for the template."""
    value, title = subject.value, subject.value_title
    absent = []
    if subject.why is not None:
        absent.append(f"{subject.why} The response is shown in cell counts instead.")
    if value not in subject.wells or subject.wells[value].notna().sum() == 0:
        absent.append("No well has a value to show: there are neither margins nor cell counts.")
        return {"plots": [], "absent": absent, "found": {}, "table": None}
    known = some(subject.wells.dropna(subset=[value])).copy()
    plots = []
    if subject.dose is not None and known["dose"].notna().any():
        plots.append(_by_dose(page, known, subject, value, title))
    else:
        absent.append(
            "The platemap has no column with at least three doses (dose_level, dose, or the one that "
            "report.dose names), so there is no dose response."
        )
    shown = known[known["label"] != UNLABELLED]
    if shown["label"].nunique() > 1:
        plots.append(_by_label(page, shown, subject.colours, value, title))
    found = quality(subject.wells, subject.dose, subject.negative, subject.positive)
    return {"plots": plots, "absent": absent, "found": found, "table": _table(subject, found)}


def _by_dose(page: Page, known: pd.DataFrame, subject: Subject, value: str, title: str) -> Plot:
    dosed = known.dropna(subset=["dose"])
    dosed = dosed.assign(jitter=jitter(dosed[value], dosed["dose"]), series=dosed["label"])
    if "compound" in dosed:
        dosed["series"] += np.where(dosed["compound"] != "", " · " + dosed["compound"], "")
    means = summarise(dosed, value, ["series", "label", "dose"])
    means["steps"] = means.groupby("series")["dose"].transform("count")
    means["compound"] = means["series"].str.split(" · ", n=1).str[1]
    compounds = sorted(means.loc[means["steps"] > 1, "compound"].dropna().unique())
    page.table("dosed", dosed[[c for c in dict.fromkeys((*WHO, value, "jitter")) if c in dosed]])
    page.table("means", means)
    page.charts["by_dose"] = charts.response_by_dose(
        value,
        title,
        list(subject.dose.steps),
        subject.dose.unit,
        subject.colours,
        _tips(dosed, value, title),
        tuple(compounds),
        means["low"].notna().any(),
    )
    caption = (
        "A circle is a well; the line joins the means of a label's (and compound's) wells at each "
        "dose, a band is the 95 % bootstrap interval of that mean over wells (left out below four "
        "wells). Doses are evenly spaced in their order, whatever their size."
    )
    return Plot(
        "by_dose", f"{_upper(title)} by dose", caption, max(300, 30 * len(subject.dose.steps))
    )


def _by_label(page: Page, shown: pd.DataFrame, colours: Colours, value: str, title: str) -> Plot:
    shown = shown.assign(jitter=jitter(shown[value], shown["label"]))
    page.table("response", shown[[c for c in dict.fromkeys((*WHO, value, "jitter")) if c in shown]])
    groups = summarise(shown, value, ["label"])
    page.table("groups", groups)
    present = [pair for pair in colours.pairs if pair[0] in set(shown["label"])]
    names, own = zip(*present)
    page.charts["by_label"] = charts.response_by_label(
        value, title, Colours(names, own), _tips(shown, value, title), groups["low"].notna().any()
    )
    caption = (
        "A circle is a well; the tick is the mean of a label's wells and the band its 95 % bootstrap "
        "interval over wells (left out below four wells). The farther two labels lie apart for the "
        "width of their clouds, the better one well tells them."
    )
    return Plot("by_label", f"{_upper(title)} by label", caption, 320)


def quality(
    wells: pd.DataFrame, dose: Dose | None, negative: str, positive: str | None
) -> dict[str, assay.Interval]:
    """Z′ of the controls' margin and its dose correlation, as far as there are wells for it."""
    if "margin" not in wells:
        return {}
    known = wells.dropna(subset=["margin"])
    found = {}
    controls = known[known["label"].isin([negative, positive])]
    margin = controls["margin"].to_numpy(float)
    high = (controls["label"] == positive).to_numpy()

    if min(high.sum(), (~high).sum()) > 1:
        found["Z′"] = assay.bootstrap(assay.z_prime_statistic(margin, high), high)
    if dose is not None:
        treated = known[~known["label"].isin([negative, positive])].dropna(subset=["dose_rank"])
        rank, answer = (treated[c].to_numpy(float) for c in ("dose_rank", "margin"))
        if len(np.unique(rank)) > 2:
            of = assay.spearman_statistic(rank, answer)
            found["dose ρ"] = assay.bootstrap(of, np.ones(len(rank)))
    return found


GLOSS = {
    "Z′": "How far the controls' wells lie apart for their spread (Zhang 1999): above 0.5 a single "
    "well tells them; 1 is the most.",
    "dose ρ": "Spearman correlation of treated wells' margin with their dose: 1 rises at every step.",
}


def no_z_prime(wells: pd.DataFrame, negative: str, positive: str | None) -> str | None:
    """Why ``quality`` has no Z′, in a few words; None where it has one or no well has a margin."""
    if "margin" not in wells:
        return None
    known = wells.dropna(subset=["margin"])
    for label, setting in ((negative, "platemap.negative"), (positive, "train.positive")):
        count = int((known["label"] == label).sum())
        if count == 0:
            return f"no well with a margin is labelled “{label}” ({setting})"
        if count == 1:
            return f"only one well with a margin is labelled “{label}”"
    return None


def _table(subject: Subject, found: dict[str, assay.Interval]) -> dict[str, Any] | None:
    """The figures of ``quality`` for the template."""
    if not found:
        return None
    labels = subject.wells.dropna(subset=["margin"])["label"]
    controls = [(labels == label).sum() for label in (subject.negative, subject.positive)]
    wells = {name: f"{figure.wells} treated" for name, figure in found.items()}
    wells["Z′"] = f"{controls[0]} negative, {controls[1]} positive"
    names = ("", "Value", "95 % interval", "Wells")
    return {
        "title": "Assay quality",
        "columns": [{"name": name, "number": i in (1, 2)} for i, name in enumerate(names)],
        "rows": [
            [{"text": name, "gloss": GLOSS[name]}, number(figure.value), span(figure), wells[name]]
            for name, figure in found.items()
        ],
    }


def span(figure: assay.Interval) -> str:
    """An interval in words, also where there is none."""
    if figure.low is None or figure.high is None:
        return "too few wells"
    return f"{number(figure.low)} to {number(figure.high)}"


def _tips(table: pd.DataFrame, value: str, title: str) -> list[alt.Tooltip]:
    who = [("plate:N", "plate")] if table["plate"].nunique() > 1 else []
    who += [("well:N", "well"), ("label:N", "label")]
    who += [(f"{name}:N", name) for name in ("compound", "dose") if name in table]
    if "count" in table and value != "count":
        who.append(("count:Q", "cells", ","))
    return charts.tooltip(*who, (f"{value}:Q", title, ".3~f"))


def _upper(title: str) -> str:
    return title[0].upper() + title[1:]


def some(wells: pd.DataFrame) -> pd.DataFrame:
    """At most ``MOST`` wells, chosen by a hash of their names."""
    if len(wells) <= MOST:
        return wells
    key = pd.util.hash_pandas_object(wells["plate"] + "/" + wells["well"], index=False)
    return wells.loc[pd.Series(key.to_numpy(), wells.index).nsmallest(MOST).index].sort_index()
