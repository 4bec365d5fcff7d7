"""The warm engine is asked only if it is the very one that is needed, and why it is not is told."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest
from warm_cases import (
    IDENTITY,
    connect,
    wait_until,
    warm_thread,
)

from kmmlu_fast.engines.warm import client, remote_engine
from kmmlu_fast.engines.warm.address import socket_path
from kmmlu_fast.engines.warm.client import find_socket_folder, find_warm_engine
from kmmlu_fast.engines.warm.identity import EngineIdentity
from kmmlu_fast.engines.warm.running import list_warm_engines


def test_a_longer_context_than_the_engine_s_is_not_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kmmlu_fast")
    with warm_thread(tmp_path):
        longer = EngineIdentity(IDENTITY.parts, 257)
        assert find_warm_engine(longer, tmp_path, pytest.fail) is None
        assert "takes 256 tokens, and this needs 257: give serve-engine --max-model-len 257" in caplog.text
        connect(tmp_path, identity=EngineIdentity(IDENTITY.parts, 255)).close()


def test_another_engine_is_never_asked_and_the_difference_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kmmlu_fast")
    with warm_thread(tmp_path):
        other = EngineIdentity({**IDENTITY.parts, "dtype": "float32"}, 256)
        assert find_warm_engine(other, tmp_path, pytest.fail) is None
        assert "is another one: dtype ('auto' there, 'float32' here)" in caplog.text
        caplog.clear()
        adapters = EngineIdentity({**IDENTITY.parts, "num_adapters": 1}, 256)
        assert find_warm_engine(adapters, tmp_path, pytest.fail) is None
        assert "with --adapter-mode swap adapters are written into it" in caplog.text
        caplog.clear()
        stranger = EngineIdentity({**IDENTITY.parts, "model": "/another/model"}, 256)
        assert find_warm_engine(stranger, tmp_path, pytest.fail) is None
        assert caplog.text == ""


def test_a_worker_that_ends_before_the_turn_came_is_no_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kmmlu_fast")
    with warm_thread(tmp_path, find_change=lambda: "the model's files have changed"):
        assert find_warm_engine(IDENTITY, tmp_path, pytest.fail) is None
    assert "ended before it was this command's turn" in caplog.text


def test_a_worker_that_first_reads_the_model_again_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes for a large model whose files were touched; nothing is sent meanwhile."""
    monkeypatch.setattr(remote_engine, "SILENT_SEC", 0.05)
    monkeypatch.setattr(client, "ALIVE_SEC", 0.05)
    reading = threading.Event()

    def find_change() -> str:
        reading.wait(0.5)
        return ""

    with warm_thread(tmp_path, find_change=find_change):
        connect(tmp_path).close()


def test_without_a_worker_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kmmlu_fast")
    socket_path(tmp_path, IDENTITY.key).touch()  # of a killed one
    assert find_warm_engine(IDENTITY, tmp_path, pytest.fail) is None
    assert caplog.text == "" and not list(tmp_path.glob("*.sock"))


def test_a_directory_of_others_is_not_searched_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kmmlu_fast")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert find_socket_folder() is None and caplog.text == ""
    folder = tmp_path / "kmmlu_fast"
    folder.mkdir(mode=0o700)
    assert find_socket_folder() == folder
    folder.chmod(0o777)
    assert find_socket_folder() is None and "other users may enter it" in caplog.text


def test_the_pid_and_the_age_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kmmlu_fast")
    with warm_thread(tmp_path):
        command = connect(tmp_path)
        assert f"keeps warm (pid {os.getpid()}, started 0 s ago)" in caplog.text
        assert command.stats()["warm"] is True and command.stats()["requests"] == 0
        wait_until(lambda: list_warm_engines(tmp_path)[0]["client"] == os.getpid())
