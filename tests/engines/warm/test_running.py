"""What is kept warm is listed and stopped; what is left of killed processes is swept on the way."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from warm_cases import IDENTITY, connect, wait_until, warm_process, warm_thread

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.engines.warm.address import make_socket_folder, socket_folder
from kmmlu_fast.engines.warm.identity import EngineIdentity
from kmmlu_fast.engines.warm.running import (
    age_text,
    describe_warm_engine,
    list_warm_engines,
    stop_warm_engines,
)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return make_socket_folder()


def test_none_where_there_was_never_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert list_warm_engines() == [] and stop_warm_engines() == []
    assert not socket_folder().exists()


def test_each_is_described_in_a_line(folder: Path) -> None:
    other = EngineIdentity({**IDENTITY.parts, "dtype": "float32"}, 1024)
    with warm_thread(folder), warm_thread(folder, identity=other):
        connect(folder).close()
        command = connect(folder)
        lines = [describe_warm_engine(facts) for facts in list_warm_engines()]
        command.close()
    assert f"process {os.getpid()}: fake for model, up to 256 tokens; started 0 s ago, 2 commands" in lines[0]
    assert f"answering process {os.getpid()} for 0 s; ends after 1 idle minutes" in lines[0]
    assert "fake for model in float32, up to 1024 tokens" in lines[1] and "0 commands, idle" in lines[1]


def test_all_are_stopped_at_once_even_those_that_answer(folder: Path) -> None:
    with warm_process(folder, delay_sec=0.05) as process:
        command = connect(folder)
        (number,) = stop_warm_engines()
        assert process.wait(30) == 0
        stdout, _ = process.communicate()
        assert stdout.strip() == f"stopped by process {os.getpid()}" and number != os.getpid()
        command.close()
    assert list_warm_engines() == []


def test_one_that_is_still_starting_is_stopped_too(folder: Path) -> None:
    with warm_process(folder, start_sec=60) as process:
        wait_until(lambda: [facts["phase"] for facts in list_warm_engines()] == ["starting"])
        assert stop_warm_engines()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not list(folder.glob("*.sock"))


def test_a_killed_process_is_not_listed_and_its_socket_is_gone(folder: Path) -> None:
    with warm_process(folder) as process:
        connect(folder).close()
        os.kill(list_warm_engines()[0]["pid"], signal.SIGKILL)
        process.wait(30)
        assert list(folder.glob("*.sock")) and list_warm_engines() == []
    assert not list(folder.glob("*.sock"))


def test_a_directory_of_others_is_not_believed(folder: Path) -> None:
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="other users may enter it"):
        list_warm_engines()


def test_ages() -> None:
    assert age_text(time.time() - 40) == "40 s" and age_text(time.time() - 190) == "3 min"
    assert age_text(time.time() + 5) == "0 s"
