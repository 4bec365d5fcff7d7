"""The report's charts of answers: plain frames in, Altair charts out.

In: frames, a translator, a palette. Out: charts, rendered by ``drawing``. Each mark's description becomes its
tooltip and its text for screen readers. Accuracies are 0-1. Knows nothing of runs or statistics.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from kmmlu_fast.reporting.charts.drawing import Palette, label_limit, run_colours
from kmmlu_fast.reporting.wording.language import Translator, format_percent, format_points


def changes_chart(
    subjects: pl.DataFrame, labels: list[str], runs: tuple[str, str], palette: Palette, t: Translator
) -> Any:
    """Accuracy of both runs, and the change with its interval, sorted by change. ``subjects``: a pair's
    subjects.
    """
    import altair as alt

    significant, direction = pl.col("p_holm") < 0.05, pl.col("difference").gt(0)
    kind = (
        pl.when(~significant)
        .then(pl.lit("none"))
        .when(direction)
        .then(pl.lit("up"))
        .otherwise(pl.lit("down"))
    )
    frame = subjects.with_columns(pl.Series("label", labels), kind.alias("kind"))
    frame = frame.sort("difference", "label", descending=[True, False])
    tips = []
    for row in frame.iter_rows(named=True):
        first, second = format_percent(row["first"], 1), format_percent(row["second"], 1)
        low, high = format_points(row["low"], 1, False), format_points(row["high"], 1, False)
        change = f"{t.units(format_points(row['difference'], 1))} [{low}, {high}]"
        counts = f"n = {row['n']:,}, p(Holm) = {row['p_holm']:.3f}"
        tips.append(f"{row['label']}: {first} → {second}, {change}, {counts}")
    frame = frame.with_columns(pl.Series("tip", tips)).select(
        "label", "first", "second", "difference", "low", "high", "kind", "tip"
    )
    order = frame["label"].to_list()
    left, right = _accuracy_pair_chart(frame, order, palette, t), _difference_chart(frame, order, palette, t)
    return alt.hconcat(left, right, spacing=18).resolve_scale(color="independent")


def _accuracy_pair_chart(frame: pl.DataFrame, order: list[str], palette: Palette, t: Translator) -> Any:
    """Accuracy of both runs, joined by a line; one row per subject."""
    import altair as alt

    y = alt.Y(
        "label:N",
        sort=order,
        title=None,
        axis=alt.Axis(labelLimit=label_limit(order), ticks=False, domain=False, grid=True),
    )
    both = frame.unpivot(
        ["first", "second"], index=["label", "tip"], variable_name="run", value_name="accuracy"
    )
    colour = alt.Color(
        "run:N",
        scale=alt.Scale(domain=["first", "second"], range=[palette["first"], palette["second"]]),
        legend=None,
    )
    return alt.layer(
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
    ).properties(width=390, height={"step": 17})


def _difference_chart(frame: pl.DataFrame, order: list[str], palette: Palette, t: Translator) -> Any:
    """The change with its interval, coloured if significant; one row per subject."""
    import altair as alt

    kind = alt.Color(
        "kind:N",
        scale=alt.Scale(
            domain=["up", "down", "none"], range=[palette["up"], palette["down"], palette["none"]]
        ),
        legend=None,
    )
    bare = alt.Y(
        "label:N",
        sort=order,
        title=None,
        axis=alt.Axis(labels=False, ticks=False, domain=False, grid=True),
    )
    points_axis = alt.Axis(labelExpr="replace(format(100 * datum.value, '+.0f'), '-', '−')")
    x = alt.X("low:Q", title=t("change_axis"), axis=points_axis)
    return alt.layer(
        alt.Chart(pl.DataFrame({"zero": [0.0]}))
        .mark_rule(color=palette["muted"], strokeDash=[3, 3])
        .encode(x=alt.X("zero:Q", title=t("change_axis"), axis=points_axis)),
        alt.Chart(frame)
        .mark_rule(strokeWidth=2)
        .encode(y=bare, x=x, x2="high:Q", color=kind, description="tip:N"),
        alt.Chart(frame)
        .mark_point(filled=True, size=46, opacity=1, shape="diamond")
        .encode(y=bare, x="difference:Q", color=kind, description="tip:N"),
    ).properties(width=330, height={"step": 17})


def supercategory_chart(frame: pl.DataFrame, runs: list[str], palette: Palette, t: Translator) -> Any:
    """Supercategory accuracies with intervals. ``frame``: label, run, accuracy, low, high, tip."""
    import altair as alt

    colour = alt.Color(
        "run:N", scale=alt.Scale(domain=runs, range=run_colours(len(runs), palette)), legend=None
    )
    y = alt.Y("label:N", title=None, axis=alt.Axis(ticks=False, domain=False, grid=True))
    offset = alt.YOffset("run:N", sort=runs)
    # dots need no zero: a bar that begins elsewhere would mislead
    x = alt.X(
        "low:Q",
        title=t("accuracy_axis"),
        scale=alt.Scale(zero=False, padding=8),
        axis=alt.Axis(format=".0%"),
    )
    base = alt.Chart(frame).encode(y=y, yOffset=offset, color=colour, description="tip:N")
    return alt.layer(
        base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, size=52, opacity=1).encode(x="accuracy:Q"),
    ).properties(width=420, height={"step": 13 if len(runs) > 2 else 16, "for": "offset"})


def weak_subjects_chart(frame: pl.DataFrame, palette: Palette, t: Translator) -> Any:
    """The weakest subjects of one run. ``frame``: label, accuracy, low, high, constant, human (may be null),
    tip; weakest first.
    """
    import altair as alt

    order = frame["label"].to_list()
    y = alt.Y(
        "label:N",
        sort=order,
        title=None,
        axis=alt.Axis(labelLimit=label_limit(order), ticks=False, domain=False),
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


def letter_share_chart(frame: pl.DataFrame, series: list[str], palette: Palette, t: Translator) -> Any:
    """Letter shares of the key and each run. ``frame``: letter, run, share, tip; ``series[0]`` is the key."""
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


def calibration_chart(frame: pl.DataFrame, runs: list[str], palette: Palette, t: Translator) -> Any:
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


def heat_map_chart(frame: pl.DataFrame, labels: list[str], runs: list[str], palette: Palette) -> Any:
    """Subjects x runs, the accuracy in per cent in each cell. ``frame``: label, run, accuracy."""
    import altair as alt

    x = alt.X(
        "run:N",
        sort=runs,
        title=None,
        axis=alt.Axis(orient="top", labelAngle=-40, labelLimit=220, ticks=False, domain=False),
    )
    y = alt.Y(
        "label:N",
        sort=labels,
        title=None,
        axis=alt.Axis(labelLimit=label_limit(labels), ticks=False, domain=False),
    )
    low, high = frame["accuracy"].min(), frame["accuracy"].max()
    colour = alt.Color(
        "accuracy:Q",
        scale=alt.Scale(domain=[low, high], range=["#f4f7fc", palette["second"]], interpolate="rgb"),
        legend=None,
    )
    middle = f"datum.accuracy > {(float(str(low)) + 1.5 * float(str(high))) / 2.5}"
    text = alt.condition(middle, alt.value(palette["paper"]), alt.value(palette["ink"]))
    base = alt.Chart(frame)
    return alt.layer(
        base.mark_rect().encode(x=x, y=y, color=colour),
        base.transform_calculate(shown="format(100 * datum.accuracy, '.0f')")
        .mark_text(fontSize=9)
        .encode(x=x, y=y, text="shown:N", color=text),
    ).properties(width=max(120, 34 * len(runs)), height={"step": 15})
