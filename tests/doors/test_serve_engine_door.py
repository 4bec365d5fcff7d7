"""``kmmlu-fast serve-engine``: its commands, and one line for what cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from warm_cases import warm_thread

from kmmlu_fast import cli
from kmmlu_fast.engines.warm.address import make_socket_folder

Caught = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_status_and_stop(capsys: Caught) -> None:
    for flag in ("--status", "--stop"):
        assert cli.dispatch_command(["serve-engine", flag]) == 0
        assert capsys.readouterr().out == "no engine is kept warm\n"
    with warm_thread(make_socket_folder()) as worker:
        assert cli.dispatch_command(["serve-engine", "--status"]) == 0
        assert f"process {os.getpid()}: fake for model" in capsys.readouterr().out
        assert cli.dispatch_command(["serve-engine", "--stop"]) == 0
        assert capsys.readouterr().out == f"process {os.getpid()}: stopping\n"
        worker.thread.join(20)
    assert worker.ended == f"stopped by process {os.getpid()}"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--status", "--stop"], "--status and --stop are two commands"),
        (["--engine", "transformers"], "only --engine vllm is kept warm, and this is transformers"),
        (["--model", "x.gguf"], "only --engine vllm is kept warm, and this is llama-cpp"),
        (["--compile", "on"], "a compiled engine is not kept warm"),
        (["--idle-minutes", "0"], "greater than 0"),
        (["--model", "./absent"], "no such directory"),
    ],
)
def test_what_cannot_be_is_one_line(capsys: Caught, flags: list[str], says: str) -> None:
    assert cli.dispatch_command(["serve-engine", *flags]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1


def test_a_directory_that_others_may_enter_is_refused_first(capsys: Caught, runtime: Path) -> None:
    make_socket_folder().chmod(0o777)
    assert cli.dispatch_command(["serve-engine", "--model", "./absent"]) == 2
    assert "other users may enter it (mode 777)" in capsys.readouterr().err


def test_help_names_the_verb_as_it_is_typed(capsys: Caught) -> None:
    assert cli.dispatch_command(["help", "serve-engine"]) == 0
    assert "--idle-minutes" in capsys.readouterr().out
