"""Without ``--model`` the adapters' own base is evaluated, and said; with it, the user's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.evaluation.base_model import take_base_from_adapters
from kmmlu_fast.evaluation.config import EvalConfig


def config(*flags: str) -> EvalConfig:
    return parse_config(EvalConfig, list(flags), "eval")


def named(lora: Path, folder: Path, base: str) -> Path:
    shutil.copytree(lora, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base}))
    return folder


def test_the_base_of_the_adapter_is_taken_and_said(
    model: Path, lora: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="kmmlu_fast"):
        taken = take_base_from_adapters(config("--adapter", str(lora)))
    assert taken.model == str(model) and f"base model: {model}" in caplog.text
    assert take_base_from_adapters(taken) is taken
    given = config("--model", "demo", "--adapter", str(lora))
    assert take_base_from_adapters(given) is given


def test_adapters_of_two_bases_are_refused(lora: Path, tmp_path: Path) -> None:
    other = named(lora, tmp_path / "other", "org/other")
    with pytest.raises(ConfigError, match=r"for org/other: give the base with --model"):
        take_base_from_adapters(config("--adapter", str(lora), "--adapter", str(other)))


def test_a_base_that_is_not_here_is_named(lora: Path, tmp_path: Path) -> None:
    gone = named(lora, tmp_path / "gone", "/somewhere/else/base")
    with pytest.raises(ConfigError, match="made for /somewhere/else/base, which is not on this computer"):
        take_base_from_adapters(config("--adapter", str(gone)))
