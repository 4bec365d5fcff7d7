"""The halving as a picture: a row a recipe, a dot a rung, and the interval of the last one.

In: a ``SearchResult``. Out: SVG whose colours are the page's CSS variables. Knows nothing of the page.
"""

from __future__ import annotations

from typing import Any

from kmmlu_fast.improvement.search import SearchResult
from kmmlu_fast.improvement.summary import recipe_rows
from kmmlu_fast.reporting.charts.drawing import PAGE, label_limit, spec_to_svg, vega_lite_spec

_WIDTH_PX, _ROW_PX = 460, 26


def halving_points(result: SearchResult) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A point for each rung at which a recipe was scored, and its interval at the last one, in pp; recipes
    best first, those that were never scored left out.
    """
    points, intervals = [], []
    for row in recipe_rows(result):
        if row.gain is None:
            continue
        recipe = next(each for each in result.recipes if each.name == row.name)
        for scores in result.rungs:
            if row.name in scores.recipes:
                said = f"{row.name}, rung {scores.rung + 1}: {100 * scores.gain(recipe):+.1f} pp"
                values = {"recipe": row.name, "rung": f"rung {scores.rung + 1}", "tip": said}
                points.append({**values, "gain": 100 * scores.gain(recipe)})
        ends = {"low": 100 * row.gain.low, "high": 100 * row.gain.high}
        intervals.append({"recipe": row.name, "won": row.name == result.winner.name, **ends})
    return points, intervals


def draw_halving(result: SearchResult) -> str:
    """The SVG; "" if nothing was scored."""
    import altair as alt

    points, intervals = halving_points(result)
    if not points:
        return ""
    names = [row["recipe"] for row in intervals]
    rungs = [f"rung {scores.rung + 1}" for scores in result.rungs]
    ramp = [PAGE["first"], *PAGE["more"].split(), *[PAGE["more"].split()[-1]] * len(rungs)]
    colours = [*ramp[: len(rungs) - 1], PAGE["second"]]
    axis = alt.Axis(labelLimit=label_limit(names), ticks=False, domain=False)
    y = alt.Y("recipe:N", sort=names, title=None, axis=axis)
    title = "gain on the selection questions, pp"
    ranges = (
        alt.Chart(alt.Data(values=intervals))
        .mark_rule()
        .encode(
            y=y,
            x=alt.X("low:Q", title=title),
            x2="high:Q",
            strokeWidth=alt.condition("datum.won", alt.value(3), alt.value(1)),
            color=alt.condition("datum.won", alt.value(PAGE["second"]), alt.value(PAGE["none"])),
        )
    )
    base = alt.Chart(alt.Data(values=points))
    path = base.mark_line(color=PAGE["none"], strokeWidth=1).encode(
        y=y, x=alt.X("gain:Q", title=title), detail="recipe:N", order="rung:N"
    )
    dots = base.mark_circle(size=70, opacity=1).encode(
        y=y,
        x=alt.X("gain:Q", title=title),
        color=alt.Color(
            "rung:N",
            scale=alt.Scale(domain=rungs, range=colours),
            legend=alt.Legend(orient="top", title=None),
        ),
        tooltip="tip:N",
    )
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=PAGE["muted"]).encode(x="zero:Q")
    chart = alt.layer(zero, ranges, path, dots).properties(width=_WIDTH_PX, height=_ROW_PX * len(names))
    document = vega_lite_spec(chart, PAGE)
    document["config"]["legend"] = {"labelColor": PAGE["muted"]}
    return spec_to_svg(document)
