"""Python files that a model brings along run on ``--trust-remote-code`` only, and never after a question at
the terminal.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import make_tiny_model

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.models.model import load_tokenizer, resolve_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose tokenizer is a class of its own, in a file that leaves a mark when it is run."""
    folder = make_tiny_model(tmp_path / "model")
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    code += (
        "from transformers import PreTrainedTokenizerFast\nclass Own(PreTrainedTokenizerFast):\n    pass\n"
    )
    (folder / "own.py").write_text(code)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_model_code_is_refused_in_one_line_or_left_alone(model: Path) -> None:
    try:
        load_tokenizer(resolve_model(str(model)))
    except ModelError as error:
        assert "--trust-remote-code" in str(error)
    assert not (model.parent / "ran").exists()


def test_model_code_runs_on_request(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(model.parent / "modules"))
    load_tokenizer(resolve_model(str(model), trust_remote_code=True))
    assert (model.parent / "ran").exists()


def test_nothing_is_asked_at_a_terminal(model: Path) -> None:
    ours, theirs = pty.openpty()
    code = (
        "from kmmlu_fast.models.model import load_tokenizer,"
        f" resolve_model\nload_tokenizer(resolve_model({str(model)!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=theirs,
        capture_output=True,
        env=environment,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert b"[y/N]" not in done.stdout + done.stderr and not (model.parent / "ran").exists()


def test_the_flag_is_part_of_the_fingerprint(model: Path) -> None:
    from kmmlu_fast.evaluation.plan import make_eval_plan

    plain = make_tiny_model(model.parent / "plain")
    flags = ["--model", str(plain), "--dataset", "sample", "--subjects", "Law"]
    without, given = (
        make_eval_plan(parse_config(EvalConfig, [*flags, *more], "eval"))
        for more in ([], ["--trust-remote-code"])
    )
    for plan in (without, given):
        plan.close()
    assert "trust_remote_code" not in without.parts and given.parts["trust_remote_code"] is True
