"""Vega-Lite charts of the model: channel weights, ablations, training history."""

from typing import Any

import altair as alt

from plateglass.report.charts import finish, tooltip

ACCENT, SHUFFLED, ALONE = "#0072b2", "#d55e00", "#009e73"


def _channels(order: list[str]) -> alt.Y:
    return alt.Y(
        "channel:N", sort=order, title=None,
        axis=alt.Axis(grid=True, ticks=False, domain=False, labelFontWeight=600, labelLimit=140),
    )  # fmt: skip


def weights(order: list[str], even: float) -> dict[str, Any]:
    """α of each channel: a small circle a seed, a tick for the mean of log α.

    Tables ``alpha`` (channel, seed, alpha) and ``channels`` (channel, alpha). ``even`` is the weight
    that all channels would have if they counted alike.
    """
    y = _channels(order)
    x = alt.X("alpha:Q", title="weight α in the blend", scale=alt.Scale(domain=[0, 1]))
    ground = (
        alt.Chart(alt.InlineData([{"even": even}]))
        .mark_rule(strokeDash=[3, 3], color="ink:--faint")
        .encode(x="even:Q", tooltip=tooltip(("even:Q", "all channels alike", ".2f")))
    )
    seeds = (
        alt.Chart(alt.NamedData("alpha"))
        .mark_circle(size=80, opacity=0.5, color=ACCENT)
        .encode(
            x=x,
            y=y,
            tooltip=tooltip(("channel:N", "channel"), ("seed:N", "seed"), ("alpha:Q", "α", ".3f")),
        )
    )
    mean = (
        alt.Chart(alt.NamedData("channels"))
        .mark_tick(thickness=3, size=24, color=ACCENT)
        .encode(
            x=x,
            y=y,
            tooltip=tooltip(("channel:N", "channel"), ("alpha:Q", "mean (of log α)", ".3f")),
        )
    )
    layers = alt.layer(ground, seeds, mean).properties(height=64 * len(order) + 20)
    return finish(layers, ("alpha", "channels"), file="channel_weights")


def ablations(order: list[str], full: float, chance: float, floor: float) -> dict[str, Any]:
    """Accuracy with a channel shuffled between cells, and of that channel alone, by channel.

    Table ``ablation``: channel, kind, accuracy, low, high (null where there is no interval).
    ``full``: accuracy with all channels; ``floor``: where the axis begins.
    """
    kinds = ["shuffled between cells", "this channel alone"]
    y = _channels(order)
    offset = alt.YOffset("kind:N", sort=kinds)
    colour = _named(kinds, [SHUFFLED, ALONE])
    scale = alt.Scale(domain=[floor, 1])
    x = alt.X("accuracy:Q", title="balanced accuracy", scale=scale, axis=alt.Axis(tickCount=6))
    table = alt.Chart(alt.NamedData("ablation"))
    tips = tooltip(
        ("channel:N", "channel"),
        ("kind:N", "tested"),
        ("accuracy:Q", "accuracy", ".3f"),
        ("low:Q", "from", ".3f"),
        ("high:Q", "to", ".3f"),
    )
    span = (
        table.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=6, opacity=0.28, strokeCap="round")
        .encode(x=alt.X("low:Q", scale=scale), x2="high:Q", y=y, yOffset=offset, color=colour)
    )
    points = table.mark_circle(size=95, opacity=0.95).encode(
        x=x, y=y, yOffset=offset, color=colour, tooltip=tips
    )
    marks = [{"at": chance, "what": "chance"}, {"at": full, "what": "all channels"}]
    close = abs(full - chance) < 0.3 * (1 - floor)  # then the second word stands above the first
    rules = alt.Chart(alt.InlineData(marks))
    ground = rules.mark_rule(strokeDash=[3, 3], color="ink:--faint").encode(
        x=alt.X("at:Q", scale=scale),
        tooltip=tooltip(("what:N", "line"), ("at:Q", "accuracy", ".3f")),
    )
    words = [
        alt.Chart(alt.InlineData([mark]))
        .mark_text(align="center", baseline="bottom", dy=dy, fontSize=11, color="ink:--soft")
        .encode(x=alt.X("at:Q", scale=scale), y=alt.value(0), text="what:N")
        for mark, dy in zip(marks, (-4, -17 if close else -4))
    ]
    layers = alt.layer(ground, *words, span, points).properties(height=64 * len(order) + 20)
    return finish(layers, ("ablation",), file="channel_ablations")


def history(measure: str, title: str, kinds: list[str]) -> dict[str, Any]:
    """One thin line a network over the epochs. Table ``history``: epoch, network, kind, measures."""
    chart = (
        alt.Chart(alt.NamedData("history"))
        .transform_filter(alt.expr.isValid(alt.datum[measure]))
        .mark_line(strokeWidth=1.6, opacity=0.65, point=alt.OverlayMarkDef(size=26, opacity=0.65))
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
            y=alt.Y(f"{measure}:Q", title=title, scale=alt.Scale(zero=False)),
            detail="network:N",
            color=_named(kinds, [ACCENT, "#e69f00", "#cc79a7", "#8b979c"]),
            tooltip=tooltip(
                ("network:N", "network"), ("epoch:Q", "epoch"), (f"{measure}:Q", title, ".3f")
            ),
        )
        .properties(height=220)
    )
    return finish(chart, ("history",), file=f"history_{measure}")


def _named(kinds: list[str], colours: list[str]) -> alt.Color:
    legend = alt.Legend(
        orient="bottom", direction="horizontal", columns=2, offset=4, symbolSize=80, symbolOpacity=1
    )
    return alt.Color(
        "kind:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=colours[: len(kinds)]),
        legend=legend if len(kinds) > 1 else None,
    )
