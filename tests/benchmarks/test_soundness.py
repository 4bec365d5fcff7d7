"""bench.soundness: what happens to a cell that is out of its bounds."""

from __future__ import annotations

from collections.abc import Mapping

from bench.soundness import Cell, judge_worlds, redraw_outside
from bench.tuned_worlds import Claims

CHANCE = Cell(family="foreign", world="half unread", n=0)
FAULT = Cell(family="foreign", world="cooled", n=450)
FINE = Cell(family="tuned", world="null", n=450)


def claims_of(made: int, of: int) -> Claims:
    return {"foreign": {"log score": [True] * made + [False] * (of - made)}}


def test_a_cell_outside_by_chance_comes_back_and_a_fault_stays_outside() -> None:
    cells = {CHANCE: claims_of(3, 13), FAULT: claims_of(20, 100), FINE: claims_of(5, 100)}
    asked: list[dict[Cell, int]] = []

    def draw_afresh(outside: Mapping[Cell, int], draw: int) -> dict[Cell, Claims]:
        asked.append(dict(outside))
        shares = {CHANCE: (0.15, 0.05)[draw - 1], FAULT: 0.2}
        return {cell: claims_of(round(shares[cell] * number), number) for cell, number in outside.items()}

    redrawn = redraw_outside(cells, {CHANCE: 20, FAULT: 100, FINE: 100}, draw_afresh)
    assert asked == [{CHANCE: 60, FAULT: 300}, {CHANCE: 240, FAULT: 1200}]
    worlds = judge_worlds(cells)
    assert worlds["half unread"]["ok"] and worlds["null"]["ok"] and not worlds["cooled"]["ok"]
    shown = redrawn["log score, 35030 questions"]
    assert (shown["pairs"], shown["fresh_share"], shown["fresh_pairs"]) == (13, 0.05, 240)
    assert set(redrawn) == {"log score, 35030 questions", "log score, 450 questions"}


def test_a_claim_that_is_outside_only_in_the_fresh_draw_is_drawn_and_shown_too() -> None:
    cells = {CHANCE: {"foreign": {"log score": [True] * 13, "overlap gap": [False] * 13}}}

    def draw_afresh(outside: Mapping[Cell, int], draw: int) -> dict[Cell, Claims]:
        number = outside[CHANCE]
        return {CHANCE: {"foreign": {"log score": [False] * number, "overlap gap": [draw == 1] * number}}}

    redrawn = redraw_outside(cells, {CHANCE: 20}, draw_afresh)
    assert redrawn["overlap gap, 35030 questions"]["share"] == 1.0
    assert redrawn["overlap gap, 35030 questions"]["fresh_share"] == 0.0
