"""All comparisons with one base share 5 %, whenever and however they are made."""

from pathlib import Path

import numpy as np
import pytest

from kmmlu_fast.analysis.error_spending import (
    corrected_p_values,
    make_ledgers,
    next_level,
    reserve_early_levels,
    spending_share,
)
from kmmlu_fast.analysis.paired import ALPHA
from kmmlu_fast.runs.comparison_log import LoggedComparison, log_comparisons, read_comparison_log


def entry(name: str, p_value: float | None, kind: str = "full", questions: int = 100) -> LoggedComparison:
    return LoggedComparison(
        adapter=name,
        name=name,
        time_utc="",
        questions=questions,
        p_value=p_value,
        kind=kind,  # type: ignore[arg-type]
    )


def test_the_levels_of_all_comparisons_sum_to_five_percent() -> None:
    assert sum(spending_share(k) for k in range(1, 200_000)) == pytest.approx(1.0, abs=1e-4)


def test_one_after_the_other_is_held_to_five_percent(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    false = 0
    for turn in range(400):
        folder = tmp_path / str(turn)
        folder.mkdir()
        for place in range(6):
            kind = "early" if place % 2 else "full"
            now = entry(str(place), float(random.random()), kind)
            log = log_comparisons(folder, [now], next_level)
            if make_ledgers(log, {"now": now})["now"].corrected_p_value < ALPHA:
                false += 1
                break
    assert false <= 0.05 * 400 + 2 * (400 * 0.05 * 0.95) ** 0.5


def test_a_batch_shares_its_levels_by_holm(tmp_path: Path) -> None:
    both = [entry("a", 0.001), entry("b", 0.5)]
    log = log_comparisons(tmp_path, both, next_level)
    level = ALPHA * (spending_share(1) + spending_share(2))
    corrected = corrected_p_values(log)
    assert corrected[both[0].key] == pytest.approx(2 * 0.001 * ALPHA / level)
    assert make_ledgers(log, {"a": both[0]})["a"].other_differences == {"b": 0.0}


def test_a_rejected_batch_passes_its_level_on(tmp_path: Path) -> None:
    log_comparisons(tmp_path, [entry("good", 1e-9)], next_level)
    log = log_comparisons(tmp_path, [entry("next", 0.5)], next_level)
    assert log[1].level == pytest.approx(ALPHA * (spending_share(1) + spending_share(2)))
    log = log_comparisons(tmp_path, [entry("third", 0.5)], next_level)
    assert log[2].level == pytest.approx(ALPHA * spending_share(3))  # "next" was not rejected


def test_the_same_comparison_keeps_its_level_and_another_kind_is_a_new_one(tmp_path: Path) -> None:
    level = reserve_early_levels(tmp_path, [("d", "lora")])["d"]
    assert level == pytest.approx(ALPHA * spending_share(1))
    log_comparisons(tmp_path, [entry("else", 0.5)], next_level)
    assert reserve_early_levels(tmp_path, [("d", "lora")])["d"] == level
    log = log_comparisons(tmp_path, [entry("d", 0.04, "early", 700)], next_level)
    assert len(log) == 2 and (log[0].p_value, log[0].questions) == (0.04, 700)
    assert len(log_comparisons(tmp_path, [entry("d", 0.04)], next_level)) == 3  # the full pass afterwards


def test_a_log_from_before_levels_is_read(tmp_path: Path) -> None:
    old = '[{"adapter": "a", "name": "a", "time_utc": "x", "questions": 9, "p_value": 0.2}]'
    (tmp_path / "peeks.json").write_text(old, encoding="utf-8")
    assert read_comparison_log(tmp_path)[0].kind == "full"
    log = log_comparisons(tmp_path, [entry("b", 0.5)], next_level)
    assert log[1].level == pytest.approx(ALPHA * spending_share(2))
    assert len(corrected_p_values(log)) == 2
