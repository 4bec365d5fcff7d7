"""Only comparisons on test of a base and an adapter of its model are counted, each once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from made_runs import loaded, predictions

from kmmlu_fast.runs.comparison_log import (
    LoggedComparison,
    is_test_split_comparison,
    log_comparisons,
    new_comparison,
    read_comparison_log,
)
from kmmlu_fast.runs.run import Run


def level_of(entries: Sequence[LoggedComparison], new: int) -> float:
    return 0.05 / (1 + len(entries)) / new


@pytest.fixture()
def pair() -> tuple[Run, Run]:
    base = loaded("base", predictions(1), model="m", adapter_digest=None)
    return base, loaded("lora", predictions(2), model="m", adapter_digest="d1")


def over_split(run: Run, split: str) -> Run:
    assert run.predictions is not None
    return replace(run, predictions=run.predictions.with_columns(pl.lit(split).alias("split")))


def entry(run: Run, p_value: float | None, questions: int = 200) -> LoggedComparison:
    return new_comparison(run, questions=questions, p_value=p_value, difference=0.01)


def test_only_test_counts(pair: tuple[Run, Run]) -> None:
    base, lora = pair
    assert is_test_split_comparison(base, lora)
    for split in ("train", "dev"):
        assert not is_test_split_comparison(over_split(base, split), over_split(lora, split))


def test_only_adapters_of_the_same_base_count(pair: tuple[Run, Run]) -> None:
    base, lora = pair
    assert not is_test_split_comparison(lora, lora)  # the first has an adapter too
    assert not is_test_split_comparison(base, base)
    assert not is_test_split_comparison(base, replace(lora, facts={**lora.facts, "model": "another"}))
    assert not is_test_split_comparison(replace(base, predictions=None), lora)


def test_a_comparison_is_logged_once_with_the_level_it_first_had(
    pair: tuple[Run, Run], tmp_path: Path
) -> None:
    _, lora = pair
    (first,) = log_comparisons(tmp_path, [entry(lora, 0.04)], level_of)
    (again,) = log_comparisons(tmp_path, [entry(lora, 0.01)], level_of)
    assert (first.level, again.level, again.p_value) == (0.05, 0.05, 0.01)
    second = replace(lora, name="second", facts={**lora.facts, "adapter_digest": "d2"})
    log = log_comparisons(tmp_path, [entry(second, 0.5)], level_of)
    assert [(each.name, each.level, each.batch) for each in log] == [("lora", 0.05, 0), ("second", 0.025, 1)]
    assert read_comparison_log(tmp_path) == log


def test_more_questions_are_new_evidence_but_not_for_early_stopping(
    pair: tuple[Run, Run], tmp_path: Path
) -> None:
    _, lora = pair
    for questions in (100, 200):
        log_comparisons(tmp_path, [entry(lora, 0.5, questions)], level_of)
        log_comparisons(tmp_path, [replace(entry(lora, None, questions), kind="early")], level_of)
    kinds = sorted((each.kind, each.questions) for each in read_comparison_log(tmp_path))
    assert kinds == [("early", 100), ("full", 100), ("full", 200)]


def test_a_log_that_cannot_be_read_or_written_counts_as_empty(pair: tuple[Run, Run], tmp_path: Path) -> None:
    _, lora = pair
    (tmp_path / "peeks.json").write_text("[{")
    assert read_comparison_log(tmp_path) == [] and read_comparison_log(None) == []
    assert len(log_comparisons(tmp_path / "missing", [entry(lora, 0.5)], level_of)) == 1


def test_commands_at_the_same_time_share_one_budget(pair: tuple[Run, Run], tmp_path: Path) -> None:
    _, lora = pair
    seen: list[int] = []

    def slow_level(entries: Sequence[LoggedComparison], new: int) -> float:
        seen.append(len(entries))
        time.sleep(0.05)
        return level_of(entries, new)

    others = [replace(lora, facts={**lora.facts, "adapter_digest": f"d{i}"}) for i in range(4)]
    threads = [
        threading.Thread(target=log_comparisons, args=(tmp_path, [entry(run, 0.5)], slow_level))
        for run in others
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [0, 1, 2, 3] and len(read_comparison_log(tmp_path)) == 4
