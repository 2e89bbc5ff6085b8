"""What the model says of itself: channel weights and ablations, controls, training history."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plateglass.config import PlatemapSettings
from plateglass.measure import assay
from plateglass.report import charts_model
from plateglass.report.charts import Plot
from plateglass.report.page import Page, number
from plateglass.report.words import CONTROLS, Control
from plateglass.report.wells import read

RAIL = (3.0, 147.0)  # ends of the little scale in the controls' table, in its own units


def channels(page: Page, model_dir: Path, classes: int) -> dict[str, Any]:
    """Charts of channels.parquet: weights by seed, accuracy shuffled and alone."""
    table = read(model_dir / "channels.parquet")
    if table is None or table.empty:
        return {
            "plots": [],
            "absent": ["The model has no channels.parquet: no channel weights are known."],
        }
    order = list(table.sort_values("log_alpha", ascending=False)["channel"])
    absent, plots = [], []
    if table["log_alpha"].notna().any():
        seeds = [c for c in table if c.startswith("alpha_seed")]
        long = table.melt("channel", seeds, "seed", "alpha").dropna(subset=["alpha"])
        long["seed"] = long["seed"].str.removeprefix("alpha_seed")
        page.table("alpha", long)
        page.table("channels", table[["channel"]].assign(alpha=np.exp(table["log_alpha"])))
        page.charts["weights"] = charts_model.weights(order, 1 / len(order))
        plots.append(Plot(
            "weights", "Weight of each channel",
            f"A circle is one of {len(seeds)} training run{'s' if len(seeds) != 1 else ''} (seeds), the "
            "tick their mean (of log α); "
            f"{'three seeds are three values, not an interval' if len(seeds) == 3 else 'seeds are single values, not an interval'}. "
            "The dashed line is where all channels would lie if they counted alike. Channels that carry "
            "the same information share their weight by chance: read this beside the next figure.",
            280,
        ))  # fmt: skip
    else:
        absent.append(
            "Accuracy is at chance, where channel weights mean nothing: they are left out."
        )
    long = _ablation(table)
    if len(long):
        full = float(table["accuracy"].iloc[0]) if "accuracy" in table else None
        page.table("ablation", long)
        least = min(long["accuracy"].min(), long["low"].astype(float).min(), 1 / classes)
        floor = max(0.0, float(np.floor(10 * least) / 10) - 0.1)
        page.charts["ablation"] = charts_model.ablations(order, full, 1 / classes, floor)
        plots.append(Plot(
            "ablation", "What happens without it, and with it alone",
            "Orange: balanced accuracy when the channel is exchanged with that of another cell; far left "
            "means that the call needs it. Green: accuracy of a network that sees this channel only. "
            "Bands are 95 % bootstrap intervals over wells where there are at least four a class.",
            280,
        ))  # fmt: skip
    return {"plots": plots, "absent": absent}


def _ablation(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for column, kind in (("ablation", "shuffled between cells"), ("single", "this channel alone")):
        if column in table:
            part = table[["channel"]].assign(kind=kind, accuracy=table[column])
            part["low"] = table.get(f"{column}_low", np.nan)
            part["high"] = table.get(f"{column}_high", np.nan)
            rows.append(part.dropna(subset=["accuracy"]))
    return pd.concat(rows) if rows else pd.DataFrame()


def history(page: Page, model_dir: Path) -> dict[str, Any]:
    """Charts of history.parquet: loss and accuracy of each network over the epochs."""
    table = read(model_dir / "history.parquet")
    if table is None or table.empty:
        return {
            "plots": [],
            "absent": ["The model has no history.parquet: it was trained elsewhere."],
        }
    table = table.assign(kind=[_kind(n) for n in table["network"]])
    kinds = [
        k
        for k in ("fold networks", "final networks", "control networks")
        if k in set(table["kind"])
    ]
    measures = [(c, t) for c, t in (("loss", "training loss"), ("accuracy", "training accuracy"), ("held_out", "held-out accuracy")) if c in table and table[c].notna().any()]  # fmt: skip
    page.table("history", table[["epoch", "network", "kind", *(m for m, _ in measures)]])
    plots = []
    for measure, title in measures:
        page.charts[f"history_{measure}"] = charts_model.history(measure, title, kinds)
        plots.append(Plot(
            f"history_{measure}", title[0].upper() + title[1:],
            "A line is one network. Curves that are still moving at the last epoch ask for more epochs; "
            "one that leaves the others is a seed to look at.",
            280,
        ))  # fmt: skip
    return {"plots": plots, "absent": []}


def controls(
    groups: list[tuple[str, pd.DataFrame]], platemap: PlatemapSettings, positive: str | None, classes: int
) -> dict[str, Any]:
    """Rows of the controls' table: METHODS section 2 counted over labelled cells.

    groups: title and cells (``Metadata_*`` with ``label``) of each column of the table: a plate, or
    the wells trained on and those that were not. Training wells are judged out of fold.
    """
    shown = []
    for title, cells in groups:
        if "Metadata_Class" not in cells:
            continue
        known = cells[cells["label"].isin(_classes(cells))]
        if len(known):
            shown.append((title, known))
    if not shown:
        return {"rows": [], "absent": ["No labelled cells were called, so there is nothing to control."]}
    columns = {c: _named(c) for _, known in shown for c in known if c.startswith("Metadata_Class")}
    rows = []
    for column, (control, channel) in sorted(columns.items(), key=lambda item: _order(item[1])):
        figures = [
            assay.balanced_accuracy(assay.hits(known, "label", column)) if column in known else None
            for _, known in shown
        ]
        rows.append(_row(CONTROLS[control], channel, figures, 1 / classes))
    differences = [_column(known, platemap.negative, positive) for _, known in shown]
    if any(d is not None for d in differences):
        rows.append(_row(CONTROLS["column"], "", differences, 0.0))
    absent = []
    if len(columns) == 1:
        absent.append(
            "No control networks were trained (train.controls: false, or the model came without them): "
            "what the surroundings alone can tell is not known."
        )
    counts = [f"{title}: {known.groupby(assay.WELL).ngroups} labelled wells, {len(known):,} cells" for title, known in shown]  # fmt: skip
    return {
        "rows": rows,
        "absent": absent,
        "groups": [title for title, _ in shown],
        "note": f"Balanced accuracy over labelled wells ({'; '.join(counts)}). The dashed tick is chance "
        f"({number(1 / classes)}); a band is the 95 % bootstrap interval over wells, stratified by "
        "class, left out where a class has fewer than four wells.",
    }


def _classes(cells: pd.DataFrame) -> set[str]:
    """The labels that cells can be called."""
    return set(cells["Metadata_Class"].dropna().unique())


def _named(column: str) -> tuple[str, str]:
    """Control and channel of a column ``Metadata_Class[_<Control>[_<channel>]]``."""
    rest = column.removeprefix("Metadata_Class").strip("_")
    for control in CONTROLS:
        if rest.lower().startswith(control):
            return control, rest[len(control) :].strip("_")
    return ("full", "") if not rest else ("other", rest)


def _order(named: tuple[str, str]) -> tuple[int, str]:
    return list(CONTROLS).index(named[0]), named[1]


def _column(known: pd.DataFrame, negative: str, positive: str | None) -> assay.Interval | None:
    """Share of negative wells' cells called positive in the last column less that in the first."""
    wells = known[known["label"] == negative]
    column = wells["Metadata_Well"].str.extract(r"(\d+)$")[0].astype(int)
    if column.nunique() < 2:
        return None
    called = (wells["Metadata_Class"] == positive).groupby(column).mean()
    return assay.Interval(float(called.iloc[-1] - called.iloc[0]), None, None, wells.groupby(assay.WELL).ngroups)  # fmt: skip


def _row(
    control: Control, channel: str, figures: list[assay.Interval | None], chance: float
) -> dict[str, Any]:
    cells = []
    for figure in figures:
        if figure is None or not np.isfinite(figure.value):
            cells.append(None)
            continue
        value, low, high = figure[:3]
        off = value < control.alarm if control.want == "high" else value - chance > control.alarm
        alarm = bool(control.want) and bool(off)
        words = {"high": ("good", "low"), "chance": ("near chance", "above chance"), "zero": ("none", "position leaks")}  # fmt: skip
        cells.append({
            "value": number(value),
            "interval": None if low is None else f"{number(low)} to {number(high)}",
            "at": _at(value), "span": None if low is None else (_at(low), _at(high)),
            "chance": _at(chance), "alarm": alarm,
            "verdict": words[control.want][alarm] if control.want else "",
        })  # fmt: skip
    return {"name": control.name.format(channel=channel), "gloss": control.gloss, "cells": cells}


def _at(value: float) -> float:
    return round(RAIL[0] + (RAIL[1] - RAIL[0]) * min(max(value, 0.0), 1.0), 1)


def _kind(network: str) -> str:
    if "fold" in network:
        return "fold networks"
    return "final networks" if network.endswith("final") else "control networks"
