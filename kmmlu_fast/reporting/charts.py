"""The report's charts: plain frames in, Altair charts out, and from those SVG for the page and PNG/SVG files
for papers.

In the page, colours are CSS variables, so that one SVG is right in light, in dark and in print; in figure
files they are fixed. No JavaScript is needed to show them. Each mark's description becomes its tooltip (and
what a screen reader says). Knows nothing of runs or statistics: it draws what it is given. Accuracies are
0-1.
"""

from __future__ import annotations

import math
import re
from typing import Any

import polars as pl

from kmmlu_fast.reporting.language import Texts, percent, points

PAGE = {
    "ink": "var(--ink)",
    "muted": "var(--muted)",
    "grid": "var(--line)",
    "paper": "transparent",
    "first": "var(--c-first)",
    "second": "var(--c-second)",
    "up": "var(--up)",
    "down": "var(--down)",
    "none": "var(--c-none)",
    "key": "var(--c-key)",
    "more": "var(--c-3) var(--c-4) var(--c-5) var(--c-6)",
}
FIGURE = {
    "ink": "#1b2430",
    "muted": "#5b6675",
    "grid": "#e3e7ed",
    "paper": "#ffffff",
    "first": "#8a94a3",
    "second": "#2563c9",
    "up": "#0b8457",
    "down": "#cf4520",
    "none": "#a9b2be",
    "key": "#1b2430",
    "more": "#8b5cc4 #b7791f #0e8a8a #c2417c",
}
FONT = "Pretendard, 'Noto Sans KR', 'Noto Sans CJK KR', 'Apple SD Gothic Neo', 'Malgun Gothic', sans-serif"

Palette = dict[str, str]


def run_colours(count: int, palette: Palette) -> list[str]:
    """Colours of the base and of up to five others."""
    return [palette["first"], palette["second"], *palette["more"].split()][:count]


def changes(
    subjects: pl.DataFrame, labels: list[str], runs: tuple[str, str], palette: Palette, t: Texts
) -> Any:
    """Accuracy of both runs, and the change with its interval, sorted by change. ``subjects``
    as ``paired.by_subject``.
    """
    import altair as alt

    frame = subjects.with_columns(
        pl.Series("label", labels),
        (
            pl.when(pl.col("p_holm") >= 0.05)
            .then(pl.lit("none"))
            .when(pl.col("difference") > 0)
            .then(pl.lit("up"))
            .otherwise(pl.lit("down"))
        ).alias("kind"),
    ).sort("difference", "label", descending=[True, False])
    tips = [
        f"{row['label']}: {percent(row['first'], 1)} → {percent(row['second'], 1)},"
        f" {points(row['difference'], 1)} [{points(row['low'], 1, False)}, {points(row['high'], 1, False)}],"
        f" n = {row['n']:,}, p(Holm) = {row['p_holm']:.3f}"
        for row in frame.iter_rows(named=True)
    ]
    frame = frame.with_columns(pl.Series("tip", tips)).select(
        "label", "first", "second", "difference", "low", "high", "kind", "tip"
    )
    height = {"step": 17}
    y = alt.Y(
        "label:N",
        sort=frame["label"].to_list(),
        title=None,
        axis=alt.Axis(labelLimit=270, ticks=False, domain=False, grid=True),
    )
    both = frame.unpivot(
        ["first", "second"], index=["label", "tip"], variable_name="run", value_name="accuracy"
    )
    colour = alt.Color(
        "run:N",
        scale=alt.Scale(domain=["first", "second"], range=[palette["first"], palette["second"]]),
        legend=None,
    )
    left = alt.layer(
        alt.Chart(frame)
        .mark_rule(strokeWidth=2, opacity=0.5, color=palette["none"])
        .encode(
            y=y,
            x=alt.X(
                "first:Q",
                title=t("accuracy_axis"),
                scale=alt.Scale(zero=False, padding=8),
                axis=alt.Axis(format=".0%"),
            ),
            x2="second:Q",
        ),
        alt.Chart(both)
        .mark_circle(size=52, opacity=1)
        .encode(y=y, x="accuracy:Q", color=colour, description="tip:N"),
    ).properties(width=390, height=height)
    kind = alt.Color(
        "kind:N",
        scale=alt.Scale(
            domain=["up", "down", "none"], range=[palette["up"], palette["down"], palette["none"]]
        ),
        legend=None,
    )
    bare = alt.Y(
        "label:N",
        sort=frame["label"].to_list(),
        title=None,
        axis=alt.Axis(labels=False, ticks=False, domain=False, grid=True),
    )
    points_axis = alt.Axis(labelExpr="replace(format(100 * datum.value, '+.0f'), '-', '−')")
    x = alt.X("low:Q", title=t("change_axis"), axis=points_axis)
    right = alt.layer(
        alt.Chart(pl.DataFrame({"zero": [0.0]}))
        .mark_rule(color=palette["muted"], strokeDash=[3, 3])
        .encode(x=alt.X("zero:Q", title=t("change_axis"), axis=points_axis)),
        alt.Chart(frame)
        .mark_rule(strokeWidth=2)
        .encode(y=bare, x=x, x2="high:Q", color=kind, description="tip:N"),
        alt.Chart(frame)
        .mark_point(filled=True, size=46, opacity=1, shape="diamond")
        .encode(y=bare, x="difference:Q", color=kind, description="tip:N"),
    ).properties(width=330, height=height)
    return alt.hconcat(left, right, spacing=18).resolve_scale(color="independent")


def groups(frame: pl.DataFrame, runs: list[str], palette: Palette, t: Texts) -> Any:
    """Supercategory accuracies with intervals. ``frame``: label, run, accuracy, low, high, tip."""
    import altair as alt

    colour = alt.Color(
        "run:N", scale=alt.Scale(domain=runs, range=run_colours(len(runs), palette)), legend=None
    )
    y, offset = (
        alt.Y("label:N", title=None, axis=alt.Axis(ticks=False, domain=False)),
        alt.YOffset("run:N", sort=runs),
    )
    x = alt.X("accuracy:Q", title=t("accuracy_axis"), axis=alt.Axis(format=".0%"))
    base = alt.Chart(frame)
    return alt.layer(
        base.mark_bar(cornerRadiusEnd=2, height={"band": 0.82}).encode(
            y=y, yOffset=offset, x=x, color=colour, description="tip:N"
        ),
        base.mark_rule(color=palette["ink"], opacity=0.75, strokeWidth=1.2).encode(
            y=y, yOffset=offset, x=alt.X("low:Q", title=t("accuracy_axis")), x2="high:Q", description="tip:N"
        ),
    ).properties(width=420, height={"step": 15 if len(runs) > 2 else 18, "for": "offset"})


def weak(frame: pl.DataFrame, palette: Palette, t: Texts) -> Any:
    """The weakest subjects of one run. ``frame``: label, accuracy, low, high, constant, human
    (may be null), tip; weakest first.
    """
    import altair as alt

    y = alt.Y(
        "label:N",
        sort=frame["label"].to_list(),
        title=None,
        axis=alt.Axis(labelLimit=270, ticks=False, domain=False),
    )
    base = alt.Chart(frame)
    layers = [
        base.mark_bar(color=palette["second"], opacity=0.85, cornerRadiusEnd=2, height={"band": 0.66}).encode(
            y=y,
            x=alt.X("accuracy:Q", title=t("accuracy_axis"), axis=alt.Axis(format=".0%")),
            description="tip:N",
        ),
        base.mark_rule(color=palette["ink"], strokeWidth=1.2, opacity=0.75).encode(
            y=y, x=alt.X("low:Q", title=t("accuracy_axis")), x2="high:Q", description="tip:N"
        ),
        base.mark_tick(color=palette["down"], thickness=2.5, height={"band": 0.9}).encode(
            y=y, x="constant:Q", description="tip:N"
        ),
    ]
    if frame["human"].null_count() < len(frame):
        layers.append(
            base.mark_point(color=palette["ink"], shape="diamond", size=34).encode(
                y=y, x="human:Q", description="tip:N"
            )
        )
    return alt.layer(*layers).properties(width=380, height={"step": 19})


def letters(frame: pl.DataFrame, series: list[str], palette: Palette, t: Texts) -> Any:
    """Letter shares: the key's and each run's. ``frame``: letter, run, share, tip;
    ``series[0]`` is the key.
    """
    import altair as alt

    colour = alt.Color(
        "run:N",
        scale=alt.Scale(domain=series, range=[palette["key"], *run_colours(len(series) - 1, palette)]),
        legend=None,
    )
    return (
        alt.Chart(frame)
        .mark_bar(cornerRadiusEnd=2, width={"band": 0.86})
        .encode(
            x=alt.X(
                "letter:N", title=None, sort=None, axis=alt.Axis(labelAngle=0, ticks=False, labelFontSize=13)
            ),
            xOffset=alt.XOffset("run:N", sort=series),
            y=alt.Y("share:Q", title=t("share_axis"), axis=alt.Axis(format=".0%")),
            color=colour,
            description="tip:N",
        )
        .properties(width=400, height=220)
    )


def calibration(frame: pl.DataFrame, runs: list[str], palette: Palette, t: Texts) -> Any:
    """Accuracy against confidence. ``frame``: run, confidence, accuracy, low, high, n, tip."""
    import altair as alt

    colour = alt.Color(
        "run:N", scale=alt.Scale(domain=runs, range=run_colours(len(runs), palette)), legend=None
    )
    scale = alt.Scale(domain=[0, 1])
    x = alt.X(
        "confidence:Q",
        title=t("confidence_axis"),
        scale=alt.Scale(domain=[0.2, 1]),
        axis=alt.Axis(format=".0%"),
    )
    y = alt.Y("accuracy:Q", title=t("accuracy_axis"), scale=scale, axis=alt.Axis(format=".0%"))
    diagonal = pl.DataFrame({"confidence": [0.2, 1.0], "accuracy": [0.2, 1.0]})
    return alt.layer(
        alt.Chart(diagonal)
        .mark_line(color=palette["muted"], strokeDash=[4, 4], strokeWidth=1)
        .encode(x=x, y=y),
        alt.Chart(frame)
        .mark_rule(strokeWidth=1.5, opacity=0.5)
        .encode(x=x, y=alt.Y("low:Q", title=t("accuracy_axis")), y2="high:Q", color=colour),
        alt.Chart(frame).mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        alt.Chart(frame)
        .mark_circle(opacity=1)
        .encode(
            x=x,
            y=y,
            color=colour,
            size=alt.Size("n:Q", scale=alt.Scale(range=[25, 220]), legend=None),
            description="tip:N",
        ),
    ).properties(width=400, height=240)


def cost(frame: pl.DataFrame, palette: Palette, t: Texts, axis: str) -> Any:
    """Accuracy against what it costs. ``frame``: run, cost, accuracy, low, high, tip; ``axis``:
    the cost's title.
    """
    import altair as alt

    span = float(frame["cost"].max() or 1) / max(float(frame["cost"].min() or 1), 1e-9)  # type: ignore[arg-type]
    x = alt.X(
        "cost:Q", title=axis, scale=alt.Scale(type="log" if span > 20 else "linear", zero=False, padding=30)
    )
    y = alt.Y(
        "accuracy:Q",
        title=t("accuracy_axis"),
        scale=alt.Scale(zero=False, padding=12),
        axis=alt.Axis(format=".0%"),
    )
    base = alt.Chart(frame)
    return alt.layer(
        base.mark_rule(color=palette["second"], strokeWidth=1.5, opacity=0.5).encode(
            x=x, y=alt.Y("low:Q", title=t("accuracy_axis")), y2="high:Q"
        ),
        base.mark_circle(color=palette["second"], size=70, opacity=1).encode(x=x, y=y, description="tip:N"),
        *[
            alt.Chart(frame.filter(pl.Series(at == dy for at in _label_places(frame, span > 20))))
            .mark_text(color=palette["ink"], dy=dy, fontSize=11)
            .encode(x=x, y=y, text="run:N")
            for dy in _LABEL_DY
        ],
    ).properties(width=400, height=240)


_LABEL_DY = (-12, 16, -26, 30)  # px above or below the dot, the first that is free


def _label_places(frame: pl.DataFrame, log: bool) -> list[int | None]:
    """Where each dot's label stands without touching another label or dot; None where nowhere:
    its name is in the tooltip and the table.
    """
    width, height, letter, line = 400.0, 240.0, 6.2, 13.0
    costs = [math.log(cost) if log else cost for cost in frame["cost"].to_list()]
    accuracies = frame["accuracy"].to_list()

    def scaled(values: list[float], size: float) -> list[float]:
        low, high = min(values), max(values)
        return [size * (0.08 + 0.84 * (value - low) / ((high - low) or 1)) for value in values]

    xs, ys = scaled(costs, width), [height - y for y in scaled(accuracies, height)]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in zip(xs, ys, strict=True)]
    places: list[int | None] = []
    for x, y, name in zip(xs, ys, frame["run"].to_list(), strict=True):
        half = letter * len(name) / 2
        boxes = {dy: (x - half, y + dy - line / 2, x + half, y + dy + line / 2) for dy in _LABEL_DY}
        free = next((dy for dy, box in boxes.items() if not any(_touch(box, other) for other in taken)), None)
        if free is not None:
            taken.append(boxes[free])
        places.append(free)
    return places


def _touch(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def training(frame: pl.DataFrame, palette: Palette, t: Texts) -> Any:
    """Training curve. ``frame``: step, loss, kind ("train" or "validation"), tip."""
    import altair as alt

    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=["train", "validation"], range=[palette["first"], palette["second"]]),
        legend=None,
    )
    x, y = (
        alt.X("step:Q", title=t("step_axis")),
        alt.Y("loss:Q", title=t("loss_axis"), scale=alt.Scale(zero=False)),
    )
    base = alt.Chart(frame)
    return alt.layer(
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        base.mark_circle(size=28, opacity=1).encode(x=x, y=y, color=colour, description="tip:N"),
    ).properties(width=400, height=220)


def plan(frame: pl.DataFrame, palette: Palette, t: Texts) -> Any:
    """Sampling plan. ``frame``: label, part ("weak" or "uniform"), count, tip; only subjects
    that were drawn from.
    """
    import altair as alt

    order = (
        frame.group_by("label")
        .agg(pl.col("count").sum())
        .sort("count", "label", descending=[True, False])["label"]
        .to_list()
    )
    colour = alt.Color(
        "part:N",
        scale=alt.Scale(domain=["weak", "uniform"], range=[palette["second"], palette["none"]]),
        legend=None,
    )
    return (
        alt.Chart(frame)
        .mark_bar(height={"band": 0.7})
        .encode(
            y=alt.Y(
                "label:N", sort=order, title=None, axis=alt.Axis(labelLimit=270, ticks=False, domain=False)
            ),
            x=alt.X("count:Q", title=t("drawn_axis"), axis=alt.Axis(format="d", tickMinStep=1)),
            color=colour,
            order=alt.Order("part:N", sort="descending"),
            description="tip:N",
        )
        .properties(width=380, height={"step": 16})
    )


def to_svg(chart: Any, palette: Palette, prefix: str = "") -> str:
    """A chart as SVG text, for the page (PAGE) or for a file (FIGURE). ``prefix`` keeps the ids
    of several charts in a page apart.
    """
    svg = spec_to_svg(spec(chart, palette))
    return re.sub(r'(\bid="|url\(#)', rf"\g<1>{prefix}-", svg) if prefix else svg


def spec_to_svg(document: dict[str, Any]) -> str:
    """A Vega-Lite specification as SVG; nothing is fetched."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(document, allowed_base_urls=[]))


def spec(chart: Any, palette: Palette) -> dict[str, Any]:
    axis = {
        "labelColor": palette["muted"],
        "titleColor": palette["muted"],
        "gridColor": palette["grid"],
        "domainColor": palette["grid"],
        "tickColor": palette["grid"],
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 6,
    }
    configured = (
        chart.configure(font=FONT, background=palette["paper"])
        .configure_view(stroke=None)
        .configure_axis(**axis)
    )
    return dict(configured.to_dict(validate=False))
