"""Run directories, an adapter and training rows that version 0.1 wrote: they still load, compare, and are not
computed again.

``fixtures/before_wings`` was written by 0.1 (packaged sample, one question a subject; tiny random model, no
model's answers).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast import compare_runs, load_run
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA
from kmmlu_fast.data.alpaca import read_sft_rows
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import make_eval_plan
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.model import resolve_model
from kmmlu_fast.models.model_files import edge_digest

OLD = Path(__file__).parents[1] / "fixtures" / "before_wings"
RUNS = sorted(path.name for path in (OLD / "runs").iterdir())
BASE, LORA = (
    OLD / "runs" / next(name for name in RUNS if f"-{state}-" in name and "-mc-" in name)
    for state in ("base", "lora")
)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_directory_of_before_loads(name: str) -> None:
    run = load_run(OLD / "runs" / name)
    assert (
        list(run.frame.columns)[: len(PREDICTION_SCHEMA)] == PREDICTION_SCHEMA.names()
        and len(run.frame) == 45
    )
    assert run.metrics.to_json()["num_questions"] == 45 and run.config["fingerprint"] in name


def test_runs_of_before_compare() -> None:
    found = compare_runs(BASE, LORA)
    assert found.micro.n == 45 and "lora" in found.verdict()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as it was: model and adapter of the same seeds, the run directories beside them."""
    monkeypatch.chdir(tmp_path)
    make_tiny_model("model")
    make_tiny_adapter("model", "lora")
    shutil.copytree(OLD / "runs", "runs")
    return tmp_path


def old_command(*more: str) -> EvalConfig:
    flags = [
        "--model",
        "model",
        "--dataset",
        "sample",
        "--limit",
        "1",
        "--output-dir",
        "runs",
        "--adapter",
        "lora",
        "--dtype",
        "auto",
    ]
    return parse_config(EvalConfig, [*flags, "--adapter-mode", "serve", *more], "eval")


@pytest.mark.parametrize("more", [[], ["--output-type", "generate_until"]])
def test_the_fingerprint_is_made_of_the_same_parts(place: Path, more: list[str]) -> None:
    """All but what follows from this machine: the weights' bytes and the libraries' versions."""
    kind = "-gen-" if more else "-mc-"
    old = json.loads(next(Path("runs").glob(f"*-base-*{kind}*/config.json")).read_text(encoding="utf-8"))[
        "fingerprint_parts"
    ]
    plan = make_eval_plan(old_command(*more))
    plan.close()
    assert set(plan.parts) == set(old) - {"adapter_digest"}
    machine = {"model_digest", "versions", "adapter_digest"}
    assert {name: plan.parts[name] for name in plan.parts if name not in machine} == {
        k: v for k, v in old.items() if k not in machine
    }


def test_a_finished_run_of_before_is_reused(place: Path) -> None:
    # The model was made just now; a run of before is its own only if it is younger.
    environment = Path("runs") / BASE.name / "environment.json"
    facts = json.loads(environment.read_text(encoding="utf-8"))
    environment.write_text(json.dumps({**facts, "finished": "2099-01-01T00:00:00+0000"}), encoding="utf-8")
    os.utime(Path("runs") / BASE.name / "config.json", (4e9, 4e9))
    old = json.loads((Path("runs") / BASE.name / "config.json").read_text(encoding="utf-8"))[
        "fingerprint_parts"
    ]
    plan = make_eval_plan(old_command())
    plan.close()
    if plan.parts["versions"] != old["versions"] or edge_digest(Path("model")) != old["model_digest"]:
        pytest.skip(
            "another machine: torch's random weights or the libraries' versions differ from those of the"
            " fixture"
        )

    def no_engine(*_: Any) -> Engine:
        raise AssertionError("an engine was opened for finished runs")

    (run,) = run_evaluation(old_command().model_copy(update={"adapter": []}), no_engine)
    assert run.path is not None and run.path.name == BASE.name


def test_an_adapter_of_before_loads(place: Path) -> None:
    shutil.copytree(OLD / "trained", "trained")
    (adapter,) = load_adapters(["trained"], resolve_model("model", None), "serve")
    assert adapter.rank == 4 and adapter.prompt_style == "qa" and adapter.template_digest


def test_training_rows_of_before_load() -> None:
    rows = read_sft_rows(OLD / "sft.jsonl")
    assert len(rows) == 12 and {row.strategy for row in rows} == {"uniform"}
    assert sorted("".join(sorted(row.option_order)) for row in rows) == ["ABCD"] * 12
