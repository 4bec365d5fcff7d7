"""The halving as a picture: a row a recipe, a dot a rung."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from made_searches import grid, make_result, right

from kmmlu_fast.improvement.elimination import Dropped
from kmmlu_fast.improvement.halving_chart import draw_halving, halving_points
from kmmlu_fast.improvement.rungs import RungScores
from kmmlu_fast.improvement.search import SearchResult


def two_rungs() -> SearchResult:
    """Four recipes, of which two were scored twice."""
    recipes = grid([10, 20], [4, 8])
    result = make_result(recipes, [400, 402, 398, 412])
    last = RungScores(
        rung=1,
        base=result.rungs[0].base,
        recipes={"n10-r8": [right(430), right(440)], "n20-r8": [right(450), right(420)]},
    )
    dropped = {name: Dropped(0, "rank", "place 3 of 4") for name in ("n10-r4", "n20-r4")}
    return replace(result, rungs=[*result.rungs, last], dropped=dropped)


def test_a_recipe_has_a_dot_for_each_rung_and_one_interval() -> None:
    points, intervals = halving_points(two_rungs())
    assert [row["recipe"] for row in intervals] == ["n20-r8", "n10-r8", "n10-r4", "n20-r4"]
    assert [row["won"] for row in intervals] == [True, False, False, False]
    at = {(point["recipe"], point["rung"]): round(point["gain"], 6) for point in points}
    assert at[("n20-r8", "rung 1")] == 1.2 and at[("n20-r8", "rung 2")] == 3.5
    assert ("n20-r4", "rung 2") not in at and len(at) == 6


def test_the_picture_holds_every_recipe_and_rung_in_the_pages_colours() -> None:
    svg = draw_halving(two_rungs())
    texts = [
        "".join(node.itertext()) for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")
    ]
    assert {"n10-r4", "n10-r8", "n20-r4", "n20-r8", "rung 1", "rung 2"} <= set(texts)
    assert "var(--c-second)" in svg and "#4c78a8" not in svg


def test_nothing_scored_draws_nothing() -> None:
    result = make_result(grid([10], [4, 8]), [400, 401])
    assert draw_halving(replace(result, rungs=[replace(result.rungs[0], recipes={})])) == ""
