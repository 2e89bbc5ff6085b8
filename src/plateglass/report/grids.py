"""Plates as they lie: one figure of a plate over its wells, or all plates in one figure."""

from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from plateglass import store
from plateglass.report import charts
from plateglass.report.charts import Plot
from plateglass.report.page import Page
from plateglass.report.subject import Subject

MOST = 24  # plates that the screen's report draws


@dataclass(frozen=True)
class Metric:
    """A figure of a well: column, title, number format, and how to read it."""

    name: str
    title: str
    form: str
    caption: str


METRICS = (
    Metric(
        "count",
        "Cells",
        ",.0f",
        "Cells found. Few may mean a toxic treatment, a bad dispense, or a failed segmentation.",
    ),
    Metric(
        "focus",
        "Focus",
        ".3~r",
        "Sharpness of the nuclear channel, median of the well's sites; higher is sharper. Only "
        "comparable within a plate.",
    ),
    Metric(
        "margin",
        "Margin",
        "+.3~r",
        "How strongly cells are called {positive}, mean over cells; 0 is undecided.",
    ),
    Metric(
        "gradcamo",
        "Grad-CAMO",
        ".3~r",
        "Share of the network's attention that lies on the cell itself, mean over cells.",
    ),
    Metric(
        "reliance",
        "Reliance on background",
        ".3~r",
        "How much of its certainty the network loses on other surroundings; 0 is best.",
    ),
)
ENRICHMENT = Metric(
    "enrichment", "enrichment", ".3~r", ""
)  # in tooltips only: it follows Grad-CAMO


def of_plate(page: Page, subject: Subject) -> dict[str, Any]:
    """The layout and every metric that the plate's wells have."""
    wells = subject.wells
    page.table("wells", wells[[c for c in wells if c not in ("plate", "dose_rank")]])
    geometry = store.geometry(list(wells["well"]))
    known = [m for m in METRICS if m.name in wells]
    tips = [m for m in (*METRICS, ENRICHMENT) if m.name in wells]
    page.charts["plate_label"] = charts.plate_grid(
        "label", "Layout", geometry, _tips(wells, tips), colours=subject.colours
    )
    caption = "Which well got what, as the platemap says."
    plots = [Plot("plate_label", "Layout", caption, _least(geometry))]
    for metric in known:
        name = f"plate_{metric.name}"
        first = [metric, *(m for m in tips if m is not metric)]
        page.charts[name] = charts.plate_grid(
            metric.name,
            metric.title,
            geometry,
            _tips(wells, first),
            metric.form,
            **_scale(metric, wells),
        )
        caption = metric.caption.format(positive=subject.positive)
        plots.append(Plot(name, metric.title, caption, _least(geometry)))
    missing = [m.title for m in METRICS if m not in known]
    said = f"Not shown, because the tables do not have it: {', '.join(missing)}."
    return {"plots": plots, "absent": [said] if missing else [], "across": _across(geometry)}


def of_screen(page: Page, subject: Subject) -> dict[str, Any]:
    """A grid a plate of what wells answer with, all on one scale."""
    wells, value = subject.wells, subject.value
    if value not in wells or wells[value].notna().sum() == 0:
        return {"plots": []}
    metric = next(m for m in METRICS if m.name == value)
    tips = [metric, *(m for m in (*METRICS, ENRICHMENT) if m.name in wells and m is not metric)]
    title = subject.value_title[0].upper() + subject.value_title[1:]
    plots, widest = [], (1, 1)
    for number, plate in enumerate(subject.plates[:MOST]):
        own = wells[wells["plate"] == plate]
        if own.empty:
            continue
        geometry = store.geometry(list(own["well"]))
        widest = max(widest, geometry, key=lambda g: g[1])
        page.table(f"wells_{number}", own[[c for c in own if c != "dose_rank"]])
        page.charts[f"plate_{number}"] = charts.plate_grid(
            value,
            title,
            geometry,
            _tips(own, tips, plate=True),
            metric.form,
            table=f"wells_{number}",
            **_scale(metric, wells, shared=True),
        )
        plots.append(Plot(f"plate_{number}", plate, f"{title} by well.", _least(geometry)))
    lede = (
        "All plates on one scale: one that is paler or darker as a whole differs from the others."
    )
    if len(subject.plates) > MOST:
        lede += f" The first {MOST} of {len(subject.plates)} plates are drawn."
    found = {"plots": plots, "across": _across(widest), "lede": lede}
    return found | {"title": f"{title} on every plate"}


def _scale(metric: Metric, wells: pd.DataFrame, shared: bool = False) -> dict[str, Any]:
    """Margins diverge evenly about 0; other metrics have their own range, or all plates' where shared."""
    low, high = float(wells[metric.name].min()), float(wells[metric.name].max())
    if metric.name == "margin":
        reach = max(abs(low), abs(high)) or 1.0
        return {"scheme": "purpleorange", "domain": (-reach, reach)}
    return {"domain": (low, high)} if shared else {}


def _tips(wells: pd.DataFrame, metrics: list[Metric], plate: bool = False) -> list[alt.Tooltip]:
    who = [("plate:N", "plate")] if plate else []
    who += [("well:N", "well"), ("label:N", "label")]
    who += [(f"{name}:N", name) for name in ("compound", "dose") if name in wells]
    return charts.tooltip(*who, *((f"{m.name}:Q", m.title.lower(), m.form) for m in metrics))


def _least(geometry: tuple[int, int]) -> int:
    """Width in pixels under which a grid scrolls in its own box."""
    return max(250, (20 if geometry[1] <= 24 else 15) * geometry[1])


def _across(geometry: tuple[int, int]) -> int:
    """How many grids stand side by side on a wide screen."""
    return 3 if geometry[1] <= 12 else 2 if geometry[1] <= 24 else 1
