"""What the model says of itself: channel weights and ablations, controls, training history."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plateglass.measure import assay
from plateglass.report import charts_model
from plateglass.report.charts import Plot
from plateglass.report.page import Page, number
from plateglass.report.subject import Subject
from plateglass.report.wells import read
from plateglass.report.words import CONTROLS

RAIL = (3.0, 147.0)  # ends of the little scale in the controls' table, in its own units
EXACT = 1e-9  # what arithmetic may add to a value that lies on its limit
KINDS = ("folds", "final", "controls", "single channel")
MEASURES = {
    "loss": "training loss",
    "accuracy": "training accuracy",
    "held_out": "held-out accuracy",
}
WORDS = {
    "high": ("good", "low"),
    "chance": ("near chance", "above chance"),
    "zero": ("none", "position leaks"),
}

LIMITS = {
    "high": "Warns below {:.2f}.",
    "chance": "Warns more than {:.2f} away from chance.",
    "zero": "Warns beyond ±{:.2f}; the scale is from −1 to 1.",
}

Column = tuple[str, pd.DataFrame | None]
"""A column of the controls' table: its title and cells, or None for what training itself found."""

Counted = dict[tuple[str, str], tuple[assay.Interval, str]]
"""(control, channel) → its figure and what the cells were called."""


def channels(page: Page, model_dir: Path, classes: int) -> dict[str, Any]:
    """Charts of channels.parquet: weights by seed, accuracy shuffled and alone."""
    table = read(model_dir / "channels.parquet")
    if table is None or table.empty:
        return {
            "plots": [],
            "absent": ["The model came without channels.parquet: weights are unknown."],
        }
    order = list(table.sort_values("log_alpha", ascending=False)["channel"])
    absent, plots = [], []
    if table["log_alpha"].notna().any():
        plots.append(_weights(page, table, order))
    else:
        absent.append(
            "Accuracy is at chance, where channel weights mean nothing: they are left out."
        )
    if "copy_of" in table and table["copy_of"].notna().any():
        twins = table.dropna(subset=["copy_of"])
        said = "; ".join(f"{c} is like {o}" for c, o in zip(twins["channel"], twins["copy_of"]))
        absent.append(f"Channels that correlate above 0.9 share their weight by chance: {said}.")
    long = _ablation(table)
    if len(long):
        least = min(long["accuracy"].min(), long["low"].astype(float).min(), 1 / classes)
        floor = max(0.0, float(np.floor(10 * least) / 10) - 0.1)
        page.table("ablation", long)
        page.charts["ablation"] = charts_model.ablations(
            order, float(table["accuracy"].iloc[0]), 1 / classes, floor
        )
        caption = (
            "Orange: balanced accuracy when the channel is exchanged with that of another cell; far "
            "left means that the call needs it. Green: a network that sees this channel only. All on "
            "training wells, out of fold. Bands are 95 % bootstrap intervals over wells where there "
            "are at least four a class."
        )
        plots.append(Plot("ablation", "What happens without it, and with it alone", caption, 280))
    return {"plots": plots, "absent": absent}


def _weights(page: Page, table: pd.DataFrame, order: list[str]) -> Plot:
    seeds = [column for column in table if column.startswith("alpha_seed")]
    long = table.melt("channel", seeds, "seed", "alpha").dropna(subset=["alpha"])
    long["seed"] = long["seed"].str.removeprefix("alpha_seed")
    page.table("alpha", long)
    page.table("channels", table[["channel"]].assign(alpha=np.exp(table["log_alpha"])))
    page.charts["weights"] = charts_model.weights(order, 1 / len(order))
    runs = (
        f"{len(seeds)} training runs (seeds)" if len(seeds) > 1 else "the one training run (seed)"
    )
    caption = (
        f"A circle is one of {runs}, the tick their mean (of log α): single values, not an interval. "
        "The dashed line is where all channels would lie if they counted alike. Channels that carry "
        "the same information share their weight by chance: read this beside the next figure."
    )
    return Plot("weights", "Weight of each channel", caption, 280)


def _ablation(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for column, kind in (("ablation", "shuffled between cells"), ("single", "this channel alone")):
        if column in table:
            part = table[["channel"]].assign(kind=kind, accuracy=table[column])
            part["low"], part["high"] = table[f"{column}_low"], table[f"{column}_high"]
            rows.append(part.dropna(subset=["accuracy"]))
    return pd.concat(rows) if rows else pd.DataFrame()


def history(page: Page, model_dir: Path) -> dict[str, Any]:
    """Charts of history.parquet: loss and accuracies of each network over the epochs."""
    table = read(model_dir / "history.parquet")
    if table is None or table.empty:
        return {"plots": [], "absent": ["The model came without history.parquet."]}
    table = table.assign(kind=[_kind(name) for name in table["network"]])
    kinds = [kind for kind in KINDS if kind in set(table["kind"])]
    measures = [name for name in MEASURES if name in table and table[name].notna().any()]
    page.table("history", table[["epoch", "network", "kind", *measures]])
    plots = []
    for name in measures:
        title = MEASURES[name]
        page.charts[f"history_{name}"] = charts_model.history(name, title, kinds)
        caption = {
            "loss": "A line is one network. Curves that still fall at the last epoch ask for more "
            f"epochs.{_shorter(table)}",
            "accuracy": "On the batches as they were trained, surroundings exchanged.",
            "held_out": "On whole cells of wells that the network did not see. Control networks belong "
            "at chance where labels were permuted.",
        }[name]
        plots.append(Plot(f"history_{name}", title[0].upper() + title[1:], caption, 250))
    return {"plots": plots, "absent": []}


def _shorter(table: pd.DataFrame) -> str:
    """Which kinds of networks were trained for fewer epochs than the folds and the final ones."""
    epochs = table.groupby("kind")["epoch"].max()
    most = epochs.reindex(KINDS[:2]).max()
    named = {KINDS[2]: "control", KINDS[3]: "single-channel"}
    kinds: dict[int, list[str]] = {}
    for kind, name in named.items():
        if kind in epochs and epochs[kind] < most:
            kinds.setdefault(int(epochs[kind]), []).append(name)
    return "".join(
        f" The {' and '.join(names)} networks had {count} of the {int(most)} epochs: their lines end there."
        for count, names in kinds.items()
    )


def _kind(network: str) -> str:
    """Kind of a network by its name (models/cohort.py)."""
    if network.startswith("single"):
        return KINDS[3]
    if not network.startswith("seed"):
        return KINDS[2]
    return KINDS[1] if network.endswith("final") else KINDS[0]


def controls(columns: list[Column], subject: Subject) -> dict[str, Any]:
    """Rows of the controls' table (docs/methods.md).

    columns: cells (``Metadata_*`` with ``label``) are counted; where they are None the column shows
    controls.parquet, what train found on its wells out of fold.
    """
    chance = 1 / len(subject.classes)
    table = read(subject.job.model_dir / "controls.parquet")
    shown: list[tuple[str, Counted]] = []
    for title, cells in columns:
        if cells is not None:
            counted = _counted(cells, subject)
        else:
            counted = {} if table is None else _recorded(table)
        if ("full", "") in counted:
            shown.append((title, counted))
    if not shown:
        return {"rows": [], "absent": ["No labelled cell was called: there is nothing to control."]}
    keys = sorted({key for _, counted in shown for key in counted}, key=_order)
    titles = [title for title, _ in shown]
    rows = [_row(key, titles, [found.get(key) for _, found in shown], chance) for key in keys]
    absent = []
    if all(control in ("full", "column") for control, _ in keys):
        absent.append(
            "No control networks were trained (train.controls: false, or the model came without): "
            "what the surroundings alone can tell is not known."
        )
    on = "; ".join(f"{title}: {counted['full', ''][0].wells} wells" for title, counted in shown)
    note = (
        f"Balanced accuracy over labelled wells ({on}). The dashed tick is chance "
        f"({number(chance)}); a band is the 95 % bootstrap interval over wells, stratified by "
        "class, left out where a class has fewer than four wells."
    )
    seeds = [] if table is None else table[table["control"].str.startswith("full")]["accuracy"]
    if len(seeds) > 1:
        several = ", ".join(map(number, seeds))
        note += f" The {len(seeds)} seeds, on the training wells out of fold: {several}."
    return {"rows": rows, "absent": absent, "columns": titles, "note": note}


def _counted(cells: pd.DataFrame, subject: Subject) -> Counted:
    """Each control counted over cells of wells that have one of the model's classes for a label."""
    if "Metadata_Class" not in cells:
        return {}
    known = cells[cells["label"].isin(subject.classes)]
    if known.empty:
        return {}
    found: Counted = {}
    for column in [c for c in known if c.startswith("Metadata_Class") and known[c].notna().any()]:
        figure = assay.balanced_accuracy(assay.hits(known, "label", column))
        shares = known[column].value_counts(normalize=True).sort_index()
        _keep(found, column.removeprefix("Metadata_Class").strip("_"), figure, shares)
    difference = _column(known, subject.negative, subject.positive)
    if difference is not None:
        found["column", ""] = (difference, "")
    return found


def _recorded(table: pd.DataFrame) -> Counted:
    """The rows of controls.parquet; other seeds than the first are told in the note."""
    found: Counted = {}
    for row in table.to_dict("records"):
        if row["control"].startswith("full,"):
            continue
        low, high = (None if pd.isna(row.get(k)) else float(row[k]) for k in ("low", "high"))
        wells = 0 if pd.isna(row.get("wells")) else int(row["wells"])
        figure = assay.Interval(float(row["accuracy"]), low, high, wells)
        names = [k for k in row if k.startswith("share_") and pd.notna(row[k])]
        shares = pd.Series({k.removeprefix("share_"): row[k] for k in names}, dtype=float)
        name = "" if row["control"] == "full" else f"{row['control']}_{row['channel']}".strip("_")
        _keep(found, name, figure, shares)
    return found


def _keep(found: Counted, name: str, figure: assay.Interval, shares: pd.Series) -> None:
    """Note a control under its name; of the two ways to erase a cell the worse counts."""
    key = _named(name)
    said = ", ".join(f"{share:.0%} {label}" for label, share in shares.items())
    if key not in found or figure.value > found[key][0].value:
        found[key] = (figure, f"called {said}" if said and key[0] == "erased" else "")


def _named(name: str) -> tuple[str, str]:
    """Control and channel of ``<Control>[_<channel>]``; nothing is the network as it is."""
    for control in CONTROLS:
        if name.lower().startswith(control):
            return control, "" if control == "erased" else name[len(control) :].strip("_")
    return ("other", name) if name else ("full", "")


def _order(named: tuple[str, str]) -> tuple[int, str]:
    return list(CONTROLS).index(named[0]), named[1]


def _column(known: pd.DataFrame, negative: str, positive: str | None) -> assay.Interval | None:
    """Share of negative wells' cells called positive in the last column less that in the first."""
    cells = known[known["label"] == negative]
    column = cells["Metadata_Well"].str.extract(r"(\d+)$")[0].astype(int)
    if column.nunique() < 2:
        return None
    called = (cells["Metadata_Class"] == positive).groupby(column).mean()
    wells = cells.groupby(assay.WELL).ngroups
    return assay.Interval(float(called.iloc[-1] - called.iloc[0]), None, None, wells)


def _apart(value: float, limits: tuple[float, ...]) -> str:
    """A number with two digits, or as many more as tell it from limits that it would round to."""
    near = (n for n in range(2, 6) if number(value, n) not in [number(x, n) for x in limits])
    return number(value, next(near, 6))


def _row(
    key: tuple[str, str],
    titles: list[str],
    figures: list[tuple[assay.Interval, str] | None],
    chance: float,
) -> dict[str, Any]:
    control = CONTROLS[key[0]]
    wanted = 0.0 if control.want == "zero" else chance
    least = -1.0 if control.want == "zero" else 0.0  # a difference may be negative

    def at(value: float) -> float:
        share = (value - least) / (1.0 - least)
        return round(RAIL[0] + (RAIL[1] - RAIL[0]) * min(max(share, 0.0), 1.0), 1)

    cells: list[dict[str, Any] | None] = []
    for title, found in zip(titles, figures):
        if found is None or not np.isfinite(found[0].value):
            cells.append(None)
            continue
        (value, low, high, _), called = found
        high_wanted = control.want == "high"
        off = control.alarm - value if high_wanted else abs(value - wanted) - control.alarm
        alarm = bool(control.want) and off > EXACT
        limits = (
            (control.alarm,) if high_wanted else (wanted - control.alarm, wanted + control.alarm)
        )
        said = _apart(value, limits) if alarm else number(value)
        span = None if low is None or high is None else (at(low), at(high))
        cells.append(
            {
                "value": said,
                "interval": None if span is None else f"{number(low)} to {number(high)}",
                "at": at(value),
                "span": span,
                "chance": at(wanted),
                "alarm": alarm,
                "called": called,
                "of": title,
                "verdict": WORDS[control.want][alarm] if control.want else "",
                "fails": control.fails.format(
                    value=said, alarm=number(control.alarm), chance=number(chance)
                ),
            }
        )
    limit = LIMITS[control.want].format(control.alarm) if control.want else ""
    return {
        "name": control.name.format(channel=key[1]),
        "gloss": f"{control.gloss} {limit}".rstrip(),
        "cells": cells,
    }
