"""Elimination: what is shown worse goes, then rank; the best is rarely dropped as worse."""

from __future__ import annotations

import numpy as np

from kmmlu_fast.improvement.elimination import choose_dropped, shown_worse


def right(share: float, questions: int = 400) -> np.ndarray:
    return np.arange(questions) < share * questions


def test_a_recipe_that_is_clearly_worse_is_dropped_for_that() -> None:
    dropped = choose_dropped({"good": right(0.6), "bad": right(0.4)}, 0, 2, keep=1.0)
    assert dropped["bad"].kind == "worse" and "worse than good" in dropped["bad"].reason
    assert "good" not in dropped


def test_small_differences_are_dropped_by_rank_alone() -> None:
    answers = {name: right(0.5 + place / 400) for place, name in enumerate("abcd")}
    assert choose_dropped(answers, 0, 4, keep=1.0) == {}
    dropped = choose_dropped(answers, 0, 4, keep=0.5)
    assert {name: why.kind for name, why in dropped.items()} == {"a": "rank", "b": "rank"}
    assert dropped["b"].reason == "place 3 of 4; the best 2 went on"


def test_a_tie_is_told_as_one() -> None:
    """The file's order decides then, which is not a lower place."""
    answers = {name: right(0.5) for name in "abcd"}
    dropped = choose_dropped(answers, 0, 4, keep=0.5)
    assert [*dropped] == ["c", "d"]
    assert dropped["c"].reason == "place 3 of 4, tied with b, which stands before it; the best 2 went on"


def test_what_answers_with_one_letter_goes_first_unless_all_do() -> None:
    answers = {"high": right(0.505), "low": right(0.5025), "lower": right(0.5)}
    said = {"high": "answers D to 100% of the questions"}
    dropped = choose_dropped(answers, 0, 3, keep=0.4, collapsed=said)
    assert {name: why.kind for name, why in dropped.items()} == {"high": "collapsed"}
    everyone = dict.fromkeys(answers, "answers D to 100% of the questions")
    assert [*choose_dropped(answers, 0, 3, keep=0.5, collapsed=everyone)] == ["lower"]


def test_hardly_any_search_calls_any_recipe_worse_where_all_are_equal() -> None:
    """The sentence is about a pair, so the error is shared by all of them."""
    draw = np.random.default_rng(1)
    false = 0
    for _ in range(150):
        base = draw.random(300) < 0.4
        answers = {
            str(name): np.where(draw.random(300) < 0.2, draw.random(300) < 0.4, base) for name in range(12)
        }
        false += bool(shown_worse(answers, 0, 12))
    assert false <= 10  # 5 % and two standard errors


def test_at_least_one_goes_on() -> None:
    assert len(choose_dropped({"a": right(0.5), "b": right(0.5)}, 0, 2, keep=0.01)) == 1


def test_equal_recipes_are_rarely_called_worse_over_all_rungs() -> None:
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        base = draw.random(300) < 0.4
        for rung in range(3):
            answers = {}
            for name in range(8):
                redrawn = draw.random(300) < 0.2
                answers[str(name)] = np.where(redrawn, draw.random(300) < 0.4, base)
            if "0" in shown_worse(answers, rung, 8):
                wrong += 1
                break
    assert wrong <= 10
