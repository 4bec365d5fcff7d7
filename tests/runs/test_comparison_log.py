"""Only comparisons on test of a base and an adapter of its model are counted, each once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
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


def test_a_log_that_cannot_be_written_counts_what_is_known(pair: tuple[Run, Run], tmp_path: Path) -> None:
    _, lora = pair
    assert read_comparison_log(None) == []
    assert len(log_comparisons(tmp_path / "missing", [entry(lora, 0.5)], level_of)) == 1


def test_a_damaged_log_is_kept_and_said(
    pair: tuple[Run, Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it holds is a budget that was spent: writing over it would make every adapter the first."""
    _, lora = pair
    caplog.set_level("INFO", logger="kmmlu_fast")
    (whole,) = log_comparisons(tmp_path, [entry(lora, 0.5)], level_of)
    path = tmp_path / "peeks.json"
    half = json.dumps([asdict(whole), {**asdict(whole), "level": "much"}])
    for number, damaged in enumerate(("[{", half, '{"adapter": 1}'), 1):
        path.write_text(damaged)
        log = log_comparisons(tmp_path, [entry(lora, 0.4, 300 + number)], level_of)
        assert len(log) == (2 if damaged == half else 1)
        assert (tmp_path / f"peeks.json.damaged-{number}").read_text() == damaged
        assert f"kept as peeks.json.damaged-{number}" in caplog.text
        assert read_comparison_log(tmp_path) == log


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
