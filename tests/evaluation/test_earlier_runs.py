"""Runs made when a model's digest covered only the ends of its files: reused if the model is surely the
same.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation import earlier_runs
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.models import model as models
from kmmlu_fast.models.model_files import edge_digest

WEIGHTS = "more.safetensors"  # large enough to have a middle


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, an adapter, and the base's run as it was made until November 2026."""
    make_tiny_model(tmp_path / "base")
    make_tiny_adapter(tmp_path / "base", tmp_path / "lora")
    (tmp_path / "base" / WEIGHTS).write_bytes(bytes(3 << 20))
    time.sleep(1.1)  # a run records when it finished in whole seconds
    with monkeypatch.context() as patch:
        patch.setattr(models, "model_content_digest", edge_digest)
        patch.setattr(earlier_runs, "digest_for_runs", lambda parts, *_: parts["model_digest"])
        run_evaluation(config(tmp_path), opened)
    for asked in (tmp_path / "runs").glob(".asked-*"):  # they hold the code's digest
        asked.unlink()
    return tmp_path


def config(root: Path, *more: str) -> EvalConfig:
    argv = ["--model", str(root / "base"), "--dataset", "sample", "--limit", "2"]
    return parse_config(EvalConfig, [*argv, "--output-dir", str(root / "runs"), *more], "eval")


def opened(served: list[Adapter], length: int, path: str | None) -> FakeEngine:
    return FakeEngine()


def change_the_middle(path: Path) -> None:
    """As a fine-tuning in place does; size and both ends stay."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        old = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([old[0] ^ 1]))


def names(root: Path) -> set[str]:
    return {path.name for path in (root / "runs").iterdir() if not path.name.startswith(".")}


def test_a_run_of_an_unchanged_model_is_reused_and_new_adapters_join_it(root: Path) -> None:
    before = names(root)
    (run,) = run_evaluation(config(root), opened)
    assert {run.path.name} == before == names(root)
    base, lora = run_evaluation(config(root, "--adapter", str(root / "lora")), opened)
    assert base.facts["model_digest"] == lora.facts["model_digest"] == edge_digest(root / "base")


def test_a_model_that_changed_since_is_a_new_run_and_says_so(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = names(root)
    edges = edge_digest(root / "base")
    change_the_middle(root / "base" / WEIGHTS)
    with caplog.at_level("INFO", logger="kmmlu_fast"):
        (run,) = run_evaluation(config(root), opened)
    assert run.path is not None and run.path.name not in before
    assert edge_digest(root / "base") == edges and "is not reused: files of" in caplog.text


def test_a_copied_run_is_not_younger_than_what_it_recorded(root: Path) -> None:
    change_the_middle(root / "base" / WEIGHTS)
    time.sleep(0.05)
    shutil.copytree(root / "runs", root / "copied")
    copied = config(root).model_copy(update={"output_dir": root / "copied"})
    before = {path.name for path in (root / "copied").iterdir()}
    (run,) = run_evaluation(copied, opened)
    assert run.path is not None and run.path.name not in before


def test_a_model_tuned_again_in_place_is_a_new_run_and_a_new_merge(root: Path) -> None:
    from kmmlu_fast.models.model import resolve_model

    shutil.rmtree(root / "runs")
    (first,) = run_evaluation(config(root), opened)
    digest = resolve_model(str(root / "base")).digest
    change_the_middle(root / "base" / WEIGHTS)
    (second,) = run_evaluation(config(root), opened)
    assert first.path != second.path and resolve_model(str(root / "base")).digest != digest
