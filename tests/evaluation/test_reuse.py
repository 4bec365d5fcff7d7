"""A finished command shown again: the same runs, no tokenizer and no torch; and the ordinary
way as soon as anything differs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation import reuse
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation

SCRIPT = """
import json, sys
from kmmlu_fast.eval import run_eval_command
code = run_eval_command(sys.argv[1:])
print(json.dumps({"code": code, "loaded": sorted({"torch", "transformers", "tokenizers", "vllm"} & set(sys.modules))}))
"""  # noqa: E501


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("again")
    make_tiny_model(folder / "base")
    make_tiny_adapter(folder / "base", folder / "lora")
    run_evaluation(config(folder), opened)
    return folder


def flags(root: Path, *more: str) -> list[str]:
    argv = [
        "--model",
        str(root / "base"),
        "--adapter",
        str(root / "lora"),
        "--dataset",
        "sample",
        "--limit",
        "2",
    ]
    return [*argv, "--output-dir", str(root / "runs"), *more]


def config(root: Path, *more: str) -> EvalConfig:
    return parse_config(EvalConfig, flags(root, *more), "eval")


def opened(served: list[Adapter], length: int, path: str | None) -> FakeEngine:
    return FakeEngine()


def test_the_same_command_shows_the_same_runs_and_loads_nothing_heavy(root: Path) -> None:
    runs = reuse.reusable_runs(config(root))
    assert runs is not None and [bool(run.config["adapter"]) for run in runs] == [False, True]
    ordinary = run_evaluation(config(root), opened)
    assert [run.path for run in runs] == [run.path for run in ordinary]
    assert all(one.predictions.equals(two.predictions) for one, two in zip(runs, ordinary, strict=True))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *flags(root)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"code": 0, "loaded": []}
    assert done.stderr.count("finished before, reused from") == 2


@pytest.mark.parametrize(
    "more",
    [["--limit", "1"], ["--prompt-style", "qa"], ["--overwrite"], ["--no-base"], ["--num-fewshot", "1"]],
)
def test_another_command_goes_the_ordinary_way(root: Path, more: list[str]) -> None:
    assert reuse.reusable_runs(config(root, *more)) is None


def test_other_weights_wordings_or_questions_are_seen(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "code_digest", lambda: "edited")
    assert reuse.reusable_runs(config(root)) is None
    monkeypatch.undo()
    shutil.copytree(root, tmp_path / "copy")
    settings = tmp_path / "copy" / "lora" / "adapter_config.json"
    settings.write_text(settings.read_text() + "\n")
    moved = [*flags(root)[:2], "--adapter", f"lora={settings.parent}", *flags(root)[4:]]
    assert reuse.reusable_runs(parse_config(EvalConfig, moved, "eval")) is None


def test_a_run_that_was_deleted_is_computed_again(root: Path, tmp_path: Path) -> None:
    runs = run_evaluation(config(root, "--output-dir", str(tmp_path)), opened)
    assert runs[1].path is not None
    shutil.rmtree(runs[1].path)
    made = config(root, "--output-dir", str(tmp_path))
    assert reuse.reusable_runs(made) is None
    assert len(run_evaluation(made, opened)) == 2 and reuse.reusable_runs(made) is not None
