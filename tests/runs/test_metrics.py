"""Hand-bent parts of metrics.json are named; what evaluations write, now and before, is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.checks import check_config
from kmmlu_fast.runs.metrics import Metrics, PrefixMetrics, SummaryMetrics, parse_metrics, require_summary

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
    assert parse_metrics(metrics, PATH, Metrics).to_json() == metrics


def test_files_of_before_are_accepted() -> None:
    for path in OLD.glob("*/metrics.json"):
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert parse_metrics(stored, path, Metrics).to_json() == stored


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"reasoning": {"ways": [{**WAY, "way": "{x}"}]}}, "reasoning: ways: 0: way"),
        ({"reasoning": {"ways": [{**WAY, "below": "x"}]}}, "reasoning: ways: 0: below"),
        ({"reasoning": {"read_by": 3}}, "reasoning: read_by"),
        ({"num_questions": 4, "micro": {"accuracy": None}}, "accuracy of micro is null"),
        ({"speed": {"seconds": -1}}, "speed: seconds is -1"),
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
        parse_metrics(metrics, PATH, Metrics)
    assert "run eval with --overwrite" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config", [{"adapter": {"name": 5}}, {"adapter": {"name": "a", "path": []}}, {"exam": "x"}]
)
def test_a_bent_config_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(RunError, match=r"config\.json: (adapter|exam)"):
        check_config(config, Path("config.json"))


def test_a_summary_needs_what_it_shows() -> None:
    stored = json.loads((next(OLD.glob("*/metrics.json"))).read_text(encoding="utf-8"))
    whole = parse_metrics(stored, PATH, Metrics)
    assert require_summary(whole, PATH).num_questions == stored["num_questions"]
    needed = [name for name, field in SummaryMetrics.model_fields.items() if field.is_required()]
    assert len(needed) > 10
    for name in needed:
        without = {key: value for key, value in stored.items() if key != name}
        with pytest.raises(RunError, match=rf"metrics\.json: lacks {name}; run eval with --overwrite"):
            require_summary(parse_metrics(without, PATH, Metrics), PATH)


@pytest.mark.parametrize(
    "change", [{"accuracy": [0.9, 0.2]}, {"accuracy": [0.1]}, {"seed": -1}, {"total": True}]
)
def test_a_bent_prefix_is_named(change: dict[str, Any]) -> None:
    good = {"seed": 1, "total": 5, "questions": 2, "accuracy": [0.2, 0.9]}
    assert parse_metrics(good, PATH, PrefixMetrics).questions == 2
    with pytest.raises(RunError, match=r"^metrics\.json: .*(accuracy|seed|total)"):
        parse_metrics({**good, **change}, PATH, PrefixMetrics)
