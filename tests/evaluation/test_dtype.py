"""``--dtype auto`` in a run: reported, recorded, and part of the fingerprint only where it is not
what it always meant.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import make_tiny_model

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.engines import compute_type
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plan
from kmmlu_fast.machine import host


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("dtype") / "model")


def planned(model: Path, *flags: str) -> EvalPlan:
    argv = ["--model", str(model), "--dataset", "sample", "--limit", "1", "--subjects", "Math", *flags]
    plan = make_eval_plan(parse_config(EvalConfig, argv, "eval"))
    plan.close()
    return plan


def on_cpu(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(compute_type, "gpu_capability", lambda: None)
    monkeypatch.setattr(host, "best_cpu_dtype", lambda flags=None: kind)


def test_a_cpu_without_bfloat16_computes_in_float32_and_says_so(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu(monkeypatch, "float32")
    plan = planned(model)
    assert plan.config.dtype == plan.parts["dtype"] == "float32"
    assert [note for note in plan.notes if "float32" in note]
    asked_for = planned(model, "--dtype", "float32")
    assert asked_for.parts == plan.parts and not asked_for.notes  # the same run, whoever chose it
    assert planned(model, "--dtype", "bfloat16").parts["dtype"] == "bfloat16"


def test_elsewhere_the_fingerprint_is_what_it_was_before(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu(monkeypatch, "bfloat16")
    on_bfloat16 = planned(model)
    monkeypatch.setattr(compute_type, "gpu_capability", lambda: (8, 9))
    on_a_card = planned(model)
    assert on_bfloat16.parts == on_a_card.parts and on_a_card.parts["dtype"] == "auto"
    assert "letter_precision" not in on_a_card.parts
    assert not on_a_card.notes
    monkeypatch.setattr(compute_type, "gpu_capability", lambda: (7, 5))
    assert planned(model).parts["dtype"] == "float16"


def test_letters_in_float32_are_another_run(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu(monkeypatch, "bfloat16")
    default, precise = planned(model), planned(model, "--letter-precision", "float32")
    assert precise.parts == {**default.parts, "letter_precision": "float32"}


def test_a_servers_type_is_the_servers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu(monkeypatch, "float32")
    plan = planned(model, "--engine", "server", "--base-url", "http://127.0.0.1:9/v1")
    assert plan.config.dtype == plan.parts["dtype"] == "auto"
