"""Two engines' letters side by side: what agreement is, and that both are asked the same."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import Request, Response
from kmmlu_fast.engines import factory
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.engine_agreement import compare_engine_scores, verify_engines

CLEAR = (-0.1, -3.0, -4.0, -5.0)
TIED = (-1.0, -1.005, -4.0, -5.0)


def shifted(scores: tuple[float, ...], nats: float, place: int = 1) -> tuple[float, ...]:
    return tuple(value + (nats if i == place else 0.0) for i, value in enumerate(scores))


def test_the_same_letters_pass_and_the_differences_are_measured() -> None:
    found = compare_engine_scores({"a": CLEAR, "b": TIED}, {"a": shifted(CLEAR, 0.004), "b": TIED}, 0.01)
    assert found.passed and found.same_letters == found.questions == 2 and not found.differences
    assert found.largest_nats == pytest.approx(0.004) and found.mean_nats == pytest.approx(0.0005)
    assert found.lines()[0] == "passed: 2 of 2 letters are the same"


def test_another_letter_in_a_near_tie_passes_and_is_reported() -> None:
    found = compare_engine_scores({"a": CLEAR, "b": TIED}, {"a": CLEAR, "b": shifted(TIED, 0.02)}, 0.01)
    assert found.passed and found.same_letters == 1 and found.differences[0].margin == pytest.approx(0.005)
    assert "1 differ in near ties (below 0.01 nats)" in found.lines()[0]


def test_another_letter_beyond_near_ties_fails_and_is_named() -> None:
    found = compare_engine_scores(
        {"a": CLEAR, "b": TIED}, {"a": shifted(CLEAR, 9.0), "b": shifted(TIED, 0.02)}, 0.01
    )
    assert not found.passed and [difference.question_id for difference in found.beyond_near_ties] == ["a"]
    assert found.lines()[0].startswith("failed: 0 of 2")
    assert found.lines()[-1] == "a: transformers A, vLLM B, 2.900 nats apart"


def test_numbers_that_are_none_fail() -> None:
    found = compare_engine_scores(
        {"a": CLEAR, "b": CLEAR}, {"a": (-0.1, math.nan, -4.0, -5.0), "b": CLEAR}, 0.01
    )
    assert not found.passed
    shown = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert shown["passed"] is False and shown["largest_nats"] is None and shown["questions"] == 2


def test_other_questions_are_an_error() -> None:
    with pytest.raises(EngineError, match="not the same ones"):
        compare_engine_scores({"a": CLEAR}, {"b": CLEAR}, 0.01)
    with pytest.raises(EngineError, match="0 and 0"):
        compare_engine_scores({}, {}, 0.01)


class Recorded(FakeEngine):
    """Answers by hash, moved by ``nats``; notes when it was opened and closed."""

    def __init__(self, name: str, log: list[str], nats: float) -> None:
        super().__init__()
        self._name, self._log, self._nats = name, log, nats
        log.append(f"open {name}")
        self.asked: list[tuple[int, ...]] = []

    def generate(self, requests: Iterable[Request], follow_up: Any = None) -> Iterator[Response]:
        for response in super().generate(requests, follow_up):
            self.asked.append(response.request.token_ids)
            yield replace(response, logprobs=tuple(value - self._nats for value in response.logprobs))

    def close(self) -> None:
        self._log.append(f"close {self._name}")


def test_both_engines_are_asked_the_same_questions_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    opened: list[Recorded] = []

    def open_engine(config: EvalConfig, *_: Any, **__: Any) -> Recorded:
        opened.append(Recorded(config.engine, log, 0.001 if config.engine == "vllm" else 0.0))
        return opened[-1]

    monkeypatch.setattr(factory, "open_engine", open_engine)
    make_tiny_model(tmp_path / "model")
    config = parse_config(EvalConfig, ["--model", str(tmp_path / "model"), "--dataset", "sample"], "doctor")
    found = verify_engines(config)
    assert log == ["open vllm", "close vllm", "open transformers", "close transformers"]
    assert found.passed and found.questions == found.same_letters == 64
    assert found.largest_nats == pytest.approx(0.001)
    assert opened[0].asked == opened[1].asked and len(set(opened[0].asked)) == 64
    assert "transformers answered in" in found.lines()[2]


@pytest.mark.engine
def test_vllm_is_verified_on_a_tiny_model(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "model")
    flags = ["--model", str(tmp_path / "model"), "--dataset", "sample", "--dtype", "float32"]
    found = verify_engines(parse_config(EvalConfig, flags, "doctor"))
    assert found.passed and found.questions == 64 and 0 < found.largest_nats < 1e-3


def test_a_nan_is_never_a_near_tie() -> None:
    """Whatever the tolerance: no margin can be computed from it."""
    broken = compare_engine_scores(
        {"a": (math.nan, -3.0, -4.0, -5.0), "b": CLEAR}, {"a": CLEAR, "b": CLEAR}, near_tie_nats=100.0
    )
    assert [difference.question_id for difference in broken.beyond_near_ties] == ["a"]
