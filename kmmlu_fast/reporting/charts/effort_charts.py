"""The report's charts of effort: accuracy against cost, the training curve, the questions drawn.

In: plain frames, a translator, a palette. Out: Altair charts, rendered by ``drawing``. Knows nothing of runs.
"""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from kmmlu_fast.reporting.charts.drawing import Palette
from kmmlu_fast.reporting.wording.language import Translator

_LABEL_DY = (-12, 16, -26, 30)  # px above or below the dot, the first that is free


def cost_chart(frame: pl.DataFrame, palette: Palette, t: Translator, axis: str) -> Any:
    """Accuracy against cost. ``frame``: run, cost, accuracy, low, high, tip; ``axis``: the cost's title."""
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
            alt.Chart(frame.filter(pl.Series(at == dy for at in _label_offsets(frame, span > 20))))
            .mark_text(color=palette["ink"], dy=dy, fontSize=11)
            .encode(x=x, y=y, text="run:N")
            for dy in _LABEL_DY
        ],
    ).properties(width=400, height=240)


def budget_chart(frame: pl.DataFrame, palette: Palette, t: Translator, axis: str) -> Any:
    """The points of ``cost_chart``, joined in their order: one set of texts, cut ever later."""
    import altair as alt

    points = cost_chart(frame, palette, t, axis)
    x = points.layer[0].encoding.x
    line = (
        alt.Chart(frame)
        .mark_line(color=palette["second"], strokeWidth=1.5)
        .encode(x=x, y="accuracy:Q", order="cost:Q")
    )
    return alt.layer(line, *points.layer).properties(width=400, height=240)


def _label_offsets(frame: pl.DataFrame, log: bool) -> list[int | None]:
    """Where each dot's label touches no other label or dot; None if nowhere: the name is in the tooltip and
    the table.
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
        free = next(
            (dy for dy, box in boxes.items() if not any(_boxes_overlap(box, other) for other in taken)), None
        )
        if free is not None:
            taken.append(boxes[free])
        places.append(free)
    return places


def _boxes_overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def training_curve_chart(frame: pl.DataFrame, palette: Palette, t: Translator) -> Any:
    """Training curve. ``frame``: step, loss, kind ("train" or "validation"), tip."""
    import altair as alt

    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=["train", "validation"], range=[palette["first"], palette["second"]]),
        legend=None,
    )
    x = alt.X("step:Q", title=t("step_axis"))
    y = alt.Y("loss:Q", title=t("loss_axis"), scale=alt.Scale(zero=False))
    base = alt.Chart(frame)
    return alt.layer(
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        base.mark_circle(size=28, opacity=1).encode(x=x, y=y, color=colour, description="tip:N"),
    ).properties(width=400, height=220)


def sampling_plan_chart(frame: pl.DataFrame, palette: Palette, t: Translator) -> Any:
    """Sampling plan. ``frame``: label, part ("weak" or "uniform"), count, tip; only drawn subjects."""
    import altair as alt

    counts = frame.group_by("label").agg(pl.col("count").sum())
    order = counts.sort("count", "label", descending=[True, False])["label"].to_list()
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
