"""Hand-bent parts of metrics.json are named; what evaluations write, now and before, is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.checks import check_config
from kmmlu_fast.runs.optional_metrics import check_optional_metrics

OLD = Path(__file__).parents[1] / "fixtures" / "before_wings" / "runs"
PATH = Path("metrics.json")
WAY = {
    "way": "full",
    "below": None,
    "accuracy": 0.5,
    "reasoned": 3,
    "output_tokens": 9,
    "seconds": None,
    "estimated": False,
}


@pytest.mark.parametrize("metrics", [{}, {"reasoning": None}, {"reasoning": {"ways": [WAY]}}, {"later": 1}])
def test_what_is_written_is_accepted(metrics: dict[str, Any]) -> None:
    check_optional_metrics(metrics, PATH)


def test_files_of_before_are_accepted() -> None:
    for path in OLD.glob("*/metrics.json"):
        check_optional_metrics(json.loads(path.read_text(encoding="utf-8")), path)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"reasoning": {"ways": [{**WAY, "way": "{x}"}]}}, "reasoning: ways: 0: way"),
        ({"reasoning": {"ways": [{**WAY, "below": "x"}]}}, "reasoning: ways: 0: below"),
        ({"reasoning": {"read_by": None}}, "read_by' is null"),
        ({"reasoning": {"rungs": []}}, "reasoning: rungs"),
        ({"adapter_shift": {}}, "adapter_shift: largest_nats"),
        ({"adapter_shift": {"largest_nats": float("nan")}}, "adapter_shift: largest_nats"),
        ({"engine": {"start_sec": "x"}}, "engine: start_sec"),
        ({"forced": 2}, "lacks accuracy_without_forced"),
        ({"balanced_accuracy": [1]}, "balanced_accuracy"),
    ],
)
def test_what_no_evaluation_writes_is_named(metrics: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message) as caught:
        check_optional_metrics(metrics, PATH)
    assert "run eval with --overwrite" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config", [{"adapter": {"name": 5}}, {"adapter": {"name": "a", "path": []}}, {"exam": "x"}]
)
def test_a_bent_config_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(RunError, match=r"config\.json: (adapter|exam)"):
        check_config(config, Path("config.json"))
