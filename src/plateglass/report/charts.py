"""Vega-Lite charts of wells: plate grids, responses, projections. Tables in, specifications out.

Rows of the tables travel once per page (page.Page.table); charts name the table they draw.
"""

from dataclasses import dataclass
from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

# Altair would hold each part of a chart to Vega-Lite's schema when it is made, and the whole again: a
# seventh of a report's time. Tests hold the charts of four pages to it.
unchecked = debug_mode(False)

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ROW_LETTERS = f"(datum.value < 26 ? '' : 'A') + '{ALPHABET}'[datum.value % 26]"


@dataclass(frozen=True)
class Plot:
    """A chart's name in the page, its words, and the width under which it scrolls."""

    name: str
    title: str
    caption: str
    least: int = 0


@dataclass(frozen=True)
class Colours:
    """Labels in reading order and their colours: the same in every chart of a page."""

    labels: tuple[str, ...]
    colours: tuple[str, ...]

    def channel(self, column: str = "label", **options: Any) -> alt.Color:
        """Colour by label; no legend, for the page has one key for all its charts."""
        scale = alt.Scale(domain=list(self.labels), range=list(self.colours))
        return alt.Color(f"{column}:N", scale=scale, legend=None, **options)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.labels, self.colours))


def tooltip(*fields: tuple[str, str] | tuple[str, str, str]) -> list[alt.Tooltip]:
    """``(column:type, title[, format])`` as tooltips."""
    return [
        alt.Tooltip(f[0], title=f[1], **({"format": f[2]} if len(f) > 2 else {})) for f in fields
    ]


def finish(
    chart: alt.Chart | alt.LayerChart, tables: tuple[str, ...], **hints: Any
) -> dict[str, Any]:
    """The specification as the page keeps it; ``hints`` are for page.js (aspect, renderer, file)."""
    whole = chart.properties(width="container", usermeta={"tables": list(tables), **hints})
    spec = whole.to_dict(validate=False)
    spec.pop("config", None)
    return spec


def plate_grid(
    metric: str,
    title: str,
    geometry: tuple[int, int],
    tips: list[alt.Tooltip],
    form: str = ".3~r",
    scheme: str | None = None,
    colours: Colours | None = None,
    table: str = "wells",
    domain: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """A plate by row and column, coloured by one column of a table of wells.

    Needs columns ``row`` and ``column`` (numbers from 0). ``scheme`` and ``domain`` replace viridis
    and the values' own range; ``colours`` gives each label its colour. Wells without a value stay empty.
    """
    rows, columns = geometry
    x = alt.X(
        "column:O",
        scale=alt.Scale(domain=list(range(columns)), paddingInner=0.1, paddingOuter=0.04),
        axis=alt.Axis(
            orient="top", title=None, labelExpr="datum.value + 1", labelAngle=0, ticks=False,
            domain=False, labelOverlap=True, labelPadding=4,
        ),
    )  # fmt: skip
    y = alt.Y(
        "row:O",
        scale=alt.Scale(domain=list(range(rows)), paddingInner=0.1, paddingOuter=0.04),
        axis=alt.Axis(
            title=None, labelExpr=ROW_LETTERS, ticks=False, domain=False, labelOverlap=True,
            labelPadding=6,
        ),
    )  # fmt: skip
    radius = 4 if columns <= 12 else 2 if columns <= 24 else 1
    empty = (
        alt.Chart(
            alt.SequenceGenerator(alt.SequenceParams(start=0, stop=rows * columns, **{"as": "i"}))
        )
        .transform_calculate(row=f"floor(datum.i / {columns})", column=f"datum.i % {columns}")
        .mark_rect(fill="ink:--hair", cornerRadius=radius, tooltip=None)
        .encode(x=x, y=y)
    )
    if colours is not None:
        colour = colours.channel(metric)
    else:
        scale = alt.Scale(scheme="viridis" if scheme is None else scheme)
        if domain is not None:
            scale.domain = list(domain)
        colour = alt.Color(
            f"{metric}:Q",
            title=title,
            scale=scale,
            legend=alt.Legend(
                orient="bottom", direction="horizontal", gradientLength=180, gradientThickness=8,
                title=None, format=form, tickCount=4, offset=8,
                labelExpr=f"datum.value === 0 ? '0' : format(datum.value, '{form}')",  # not +0
            ),
        )  # fmt: skip
    wells = (
        alt.Chart(alt.NamedData(table))
        .transform_filter(alt.expr.isValid(alt.datum[metric]))
        .mark_rect(cornerRadius=radius)
        .encode(x=x, y=y, color=colour, tooltip=tips, description=alt.Description("well:N"))
    )
    layers = alt.layer(empty, wells).resolve_scale(color="independent")
    return finish(layers, (table,), aspect=rows / columns, margin=34, file=metric)


def response_by_dose(
    value: str,
    title: str,
    doses: list[str],
    unit: str,
    colours: Colours,
    tips: list[alt.Tooltip],
    compounds: tuple[str, ...] = (),
    intervals: bool = True,
) -> dict[str, Any]:
    """Wells by dose (evenly spaced, in order), their mean, and its interval where there is one.

    Tables: ``dosed`` (one row a well: dose, label, series, jitter, the value) and ``means``
    (series, label, compound, dose, mean, low, high, steps). Up to four ``compounds`` differ by their lines.
    """
    x = alt.X(
        "dose:O", sort=doses, title=f"dose ({unit})" if unit else "dose",
        scale=alt.Scale(domain=doses), axis=alt.Axis(labelAngle=0, grid=False, labelOverlap=True),
    )  # fmt: skip
    free = alt.Scale(zero=False)
    lane = max(2, 24 / len(doses))  # few doses have wide bands: the wells stay near their own
    means = alt.Chart(alt.NamedData("means"))
    wells = alt.Chart(alt.NamedData("dosed"))
    apart: dict[str, Any] = {}
    if 1 < len(compounds) <= 4:
        dashes = alt.Scale(domain=list(compounds), range=[[1, 0], [7, 3], [2, 2], [9, 3, 2, 3]])
        legend = alt.Legend(orient="bottom", title=None, symbolType="stroke", symbolSize=400)
        apart = {"strokeDash": alt.StrokeDash("compound:N", scale=dashes, legend=legend)}
    line = (
        means.transform_filter("datum.steps > 1")
        .mark_line(strokeWidth=2, interpolate="monotone", opacity=0.85)
        .encode(
            x=x, y=alt.Y("mean:Q", scale=free), detail="series:N", color=colours.channel(), **apart
        )
    )
    interval = (
        means.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=7, opacity=0.22, strokeCap="round")
        .encode(x=x, y=alt.Y("low:Q", scale=free), y2="high:Q", color=colours.channel())
    )
    points = wells.mark_circle(size=52, opacity=0.8, stroke="ink:--sheet", strokeWidth=0.8).encode(
        x=x,
        y=alt.Y(f"{value}:Q", title=title, scale=free),
        xOffset=alt.XOffset("jitter:Q", scale=alt.Scale(domain=[-lane, lane])),
        color=colours.channel(),
        tooltip=tips,
        description=alt.Description("well:N"),
    )
    layers = alt.layer(*([interval] if intervals else []), line, points).properties(height=300)
    return finish(layers, ("dosed", "means"), file="response_by_dose")


def response_by_label(
    value: str, title: str, colours: Colours, tips: list[alt.Tooltip], intervals: bool = True
) -> dict[str, Any]:
    """Wells by label, a bar for the mean and its interval. Tables ``response``, ``groups``."""
    free = alt.Scale(zero=False)
    y = alt.Y(
        "label:N",
        sort=list(colours.labels),
        title=None,
        axis=alt.Axis(grid=False, ticks=False, domain=False, labelLimit=190),
    )
    groups = alt.Chart(alt.NamedData("groups"))
    interval = (
        groups.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=16, opacity=0.2)
        .encode(y=y, x=alt.X("low:Q", scale=free), x2="high:Q", color=colours.channel())
    )
    mean = groups.mark_tick(thickness=2.5, size=26).encode(
        y=y, x=alt.X("mean:Q", scale=free), color=colours.channel(),
        tooltip=tooltip(("label:N", "label"), ("mean:Q", "mean", ".3~f"), ("low:Q", "from", ".3~f"),
                        ("high:Q", "to", ".3~f"), ("wells:Q", "wells")),
    )  # fmt: skip
    points = (
        alt.Chart(alt.NamedData("response"))
        .mark_circle(size=46, opacity=0.7, stroke="ink:--sheet", strokeWidth=0.8)
        .encode(
            y=y,
            x=alt.X(f"{value}:Q", title=title, scale=free, axis=alt.Axis(tickCount=8)),
            yOffset=alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-2, 2])),
            color=colours.channel(),
            tooltip=tips,
            description=alt.Description("well:N"),
        )
    )
    layers = alt.layer(*([interval] if intervals else []), points, mean).properties(
        height=max(90, 46 * len(colours.labels))
    )
    return finish(layers, ("response", "groups"), file="response_by_label")


def scatter(
    table: str, x: tuple[str, str], y: tuple[str, str], colours: Colours,
    tips: list[alt.Tooltip], count: int, shape: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Points of a table, e.g. wells on two principal components."""
    encoding = {"shape": alt.Shape(f"{shape}:N", title=shape, legend=alt.Legend(orient="bottom"))}
    chart = (
        alt.Chart(alt.NamedData(table))
        .mark_point(filled=True, size=60 if count < 800 else 24, opacity=0.78)
        .encode(
            x=alt.X(f"{x[0]}:Q", title=x[1], scale=alt.Scale(zero=False, nice=True)),
            y=alt.Y(f"{y[0]}:Q", title=y[1], scale=alt.Scale(zero=False, nice=True)),
            color=colours.channel(),
            tooltip=tips,
            **(encoding if shape else {}),
        )
        .properties(height=400)
    )
    return finish(chart, (table,), renderer="canvas" if count > 1500 else "svg", file=table)
