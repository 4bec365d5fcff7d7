"""Only comparisons on test of a base and an adapter of its model are counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from made_runs import loaded, predictions

from kmmlu_fast.runs.comparison_log import is_test_split_comparison, log_comparisons, read_comparison_log
from kmmlu_fast.runs.run import Run


@pytest.fixture()
def pair(tmp_path: Path) -> tuple[Run, Run]:
    base = replace(loaded("base", predictions(1), model="m", adapter_digest=None), path=tmp_path)
    return base, loaded("lora", predictions(2), model="m", adapter_digest="d1")


def over_split(run: Run, split: str) -> Run:
    assert run.predictions is not None
    return replace(run, predictions=run.predictions.with_columns(pl.lit(split).alias("split")))


def test_only_test_counts(pair: tuple[Run, Run]) -> None:
    base, lora = pair
    assert is_test_split_comparison(base, lora)
    for split in ("train", "dev"):
        assert not is_test_split_comparison(over_split(base, split), over_split(lora, split))
        log_comparisons(over_split(base, split), [(over_split(lora, split), 100, 0.5, 0.0)])
    assert read_comparison_log(base) == []


def test_only_adapters_of_the_same_base_count(pair: tuple[Run, Run]) -> None:
    base, lora = pair
    assert not is_test_split_comparison(lora, lora)  # the first has an adapter too
    assert not is_test_split_comparison(base, base)
    assert not is_test_split_comparison(base, replace(lora, facts={**lora.facts, "model": "another"}))
    assert not is_test_split_comparison(replace(base, predictions=None), lora)


def test_an_adapter_is_logged_once(pair: tuple[Run, Run]) -> None:
    base, lora = pair
    assert log_comparisons(base, [(lora, 200, 0.04, 0.03)]) == []
    again = log_comparisons(base, [(lora, 200, 0.01, 0.05)])
    assert again == [] and [entry.p_value for entry in read_comparison_log(base)] == [0.04]
    other = replace(lora, name="second", facts={**lora.facts, "adapter_digest": "d2"})
    before = log_comparisons(base, [(other, 200, 0.5, 0.0)])
    assert [entry.name for entry in before] == ["lora"] and len(read_comparison_log(base)) == 2
