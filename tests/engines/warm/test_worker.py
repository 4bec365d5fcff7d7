"""One command after another, each on the base alone; whoever is killed, silent or hostile stops no other."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from warm_cases import (
    ADAPTER,
    IDENTITY,
    LoggingEngine,
    connect,
    letters,
    no_follow_up,
    wait_until,
    warm_process,
    warm_thread,
)

from kmmlu_fast.core.errors import ConfigError, EngineError
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.engines.warm import worker as workers
from kmmlu_fast.engines.warm.address import Peer, socket_path
from kmmlu_fast.engines.warm.messages import MOST_GREETING_BYTES, Link, LinkLostError
from kmmlu_fast.engines.warm.running import connect_to_worker, list_warm_engines


def answers(engine: Any, count: int = 5) -> list[tuple[str, tuple[float, ...]]]:
    return [(each.request.key, each.logprobs) for each in engine.generate(letters(count), no_follow_up)]


BASE = answers(FakeEngine())


def test_commands_follow_each_other_and_each_finds_the_base(tmp_path: Path) -> None:
    engine = LoggingEngine()
    with warm_thread(tmp_path, engine):
        for _ in range(2):
            command = connect(tmp_path)
            assert answers(command) == BASE
            command.swap(ADAPTER)
            assert answers(command) != BASE
            command.close()
    assert engine.log == [*["afresh", "swap lora", "afresh"] * 2, "closed"]
    assert not list(tmp_path.glob("*.sock"))


def test_a_second_command_waits_for_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warm_thread(tmp_path) as worker:
        first = connect(tmp_path)
        second = Link(_connected(tmp_path))
        second.send({"do": "ask", "key": IDENTITY.key})
        third = Link(_connected(tmp_path))
        wait_until(lambda: len(worker._state.line) == 1)
        third.send({"do": "ask", "key": IDENTITY.key})
        assert second.receive(5)["place"] == 1
        wait_until(lambda: len(worker._state.line) == 2)
        message = third.receive(5)
        assert (message["place"], message["client"], message["phase"]) == (2, os.getpid(), "answering")
        third.close()  # gives up while it waits
        wait_until(lambda: len(worker._state.line) == 1)
        assert answers(first) == BASE
        first.close()
        while "ready" not in (message := second.receive(5)):
            pass
        second.close()
        assert answers(connect(tmp_path)) == BASE


def test_a_waiting_command_says_for_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kmmlu_fast")
    with warm_thread(tmp_path) as worker:
        first = connect(tmp_path)
        got: list[Any] = []
        waiting = threading.Thread(target=lambda: got.append(answers(connect(tmp_path))))
        waiting.start()
        wait_until(lambda: f"it answers process {os.getpid()} (--no-warm-engine" in caplog.text)
        assert not got and len(worker._state.line) == 1
        first.close()
        waiting.join(30)
    assert got == [BASE]


def _connected(folder: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(socket_path(folder, IDENTITY.key)))
    return connection


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x05garbage" * 100,
        struct.pack(">I", MOST_GREETING_BYTES + 1),
        struct.pack(">I", 2**32 - 1) + b"x" * 70_000,
        b'\x00\x00\x00\x12{"do": "restart!"}',
        b'\x00\x00\x00\x1d{"do": "ask", "key": "other"}',
        b"\x00\x00\x00\x02[]",
        b"",
    ],
)
def test_whoever_is_not_understood_is_let_go(tmp_path: Path, data: bytes) -> None:
    with warm_thread(tmp_path):
        connection = _connected(tmp_path)
        connection.settimeout(5)
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
        except (ConnectionError, BrokenPipeError):
            pass  # let go before all of it was read
        connection.close()
        assert answers(connect(tmp_path)) == BASE


def test_a_command_that_talks_nonsense_is_let_go(tmp_path: Path) -> None:
    engine = LoggingEngine()
    with warm_thread(tmp_path, engine):
        for words in (
            {"do": "exec"},
            {"do": "swap", "adapter": {"name": "x", "path": "relative", "rank": 1, "digest": "d"}},
            {"do": "swap", "adapter": ["x"]},
            {"do": "generate", "follows": True},
        ):
            link = Link(_connected(tmp_path))
            link.send({"do": "ask", "key": IDENTITY.key})
            while "ready" not in link.receive(5):
                pass
            with pytest.raises(LinkLostError):
                link.send(words)
                link.send({"requests": [{"number": 1}]})
                while True:
                    link.receive(5)
            link.close()
        assert answers(connect(tmp_path)) == BASE
    assert engine.open_passes == 0


def test_another_user_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warm_thread(tmp_path):
        monkeypatch.setattr(workers, "peer_of", lambda connection: Peer(1, os.geteuid() + 1))
        link = Link(_connected(tmp_path))
        with pytest.raises(LinkLostError):  # on sending already, where the worker was faster
            link.send({"do": "status"})
            link.receive(5)
        link.close()
        monkeypatch.undo()
        assert list_warm_engines(tmp_path)


COMMAND = """
import os, signal, sys
from pathlib import Path
from warm_cases import ADAPTER, connect, letters, no_follow_up
engine = connect(Path(sys.argv[1]))
engine.swap(ADAPTER)
for place, _ in enumerate(engine.generate(letters(10_000), no_follow_up)):
    if place == 3:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_command_killed_in_the_middle_leaves_the_base(tmp_path: Path) -> None:
    engine = LoggingEngine()
    root = Path(__file__).resolve().parents[3]
    with warm_thread(tmp_path, engine):
        environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, str(tmp_path)], env=environment, check=False, timeout=60
        )
        assert done.returncode == -signal.SIGKILL
        assert answers(connect(tmp_path)) == BASE
    assert engine.log[:3] == ["afresh", "swap lora", "afresh"] and engine.open_passes == 0


def test_a_command_that_says_nothing_more_loses_the_engine(tmp_path: Path) -> None:
    with warm_thread(tmp_path, idle_sec=0.3) as worker:
        silent = connect(tmp_path, here=FakeEngine())
        assert answers(silent, 2)
        worker.thread.join(20)  # let go after 0.3 s, and idle after as long again
        assert answers(silent) == BASE  # by an engine of its own
    assert "no command" in worker.ended


def test_idle_it_ends_and_nothing_is_left(tmp_path: Path) -> None:
    engine = LoggingEngine()
    with warm_thread(tmp_path, engine, idle_sec=0.1) as worker:
        worker.thread.join(20)
    assert worker.ended == "no command for 0.00166667 minutes" and engine.log == ["closed"]
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_it_does_not_answer_from_files_that_changed(tmp_path: Path) -> None:
    changes = iter(["", "the model's files have changed"])
    with warm_thread(tmp_path, find_change=lambda: next(changes)) as worker:
        connect(tmp_path).close()
        link = Link(_connected(tmp_path))
        link.send({"do": "ask", "key": IDENTITY.key})
        with pytest.raises(LinkLostError):
            while True:
                assert "ready" not in link.receive(5)
        worker.thread.join(20)
    assert worker.ended == "the model's files have changed"


def test_an_engine_that_failed_is_not_used_again(tmp_path: Path) -> None:
    engine = LoggingEngine()
    engine.fails_at = "q2"
    with warm_thread(tmp_path, engine) as worker:
        command = connect(tmp_path)
        with pytest.raises(EngineError, match="out of memory"):
            answers(command)
        command.close()
        worker.thread.join(20)
    assert isinstance(worker.ended, EngineError) and connect_to_worker(next(iter(tmp_path.iterdir()))) is None


def test_a_start_that_fails_lets_waiting_commands_go(tmp_path: Path) -> None:
    worker = workers.WarmWorker(IDENTITY, tmp_path, 60)
    link = Link(_connected(tmp_path))
    link.send({"do": "ask", "key": IDENTITY.key})
    wait_until(lambda: worker._state.line)

    def fail() -> Any:
        raise EngineError("no memory")

    with pytest.raises(EngineError, match="no memory"):
        worker.serve_commands(fail)
    worker.close()
    with pytest.raises(LinkLostError):
        while True:
            link.receive(5)
    link.close()


def test_the_same_engine_is_kept_once(tmp_path: Path) -> None:
    with warm_thread(tmp_path):
        with pytest.raises(ConfigError, match="already kept warm"):
            workers.WarmWorker(IDENTITY, tmp_path, 60)
        assert answers(connect(tmp_path)) == BASE  # whose socket is still there


def test_ctrl_c_ends_it_cleanly_also_while_it_answers(tmp_path: Path) -> None:
    with warm_process(tmp_path, delay_sec=0.05) as process:
        command = connect(tmp_path, here=FakeEngine())
        running = command.generate(letters(200), no_follow_up)
        next(running)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130 and time.monotonic() - began < 20
        assert len(list(running)) == 199
        _, stderr = process.communicate()
    assert "Traceback" not in stderr and not list(tmp_path.glob("*.sock"))


def test_a_killed_worker_s_address_is_free_again(tmp_path: Path) -> None:
    with warm_process(tmp_path) as process:
        connect(tmp_path).close()
        os.kill(list_warm_engines(tmp_path)[0]["pid"], signal.SIGKILL)
        process.wait(30)
        assert list(tmp_path.glob("*.sock"))  # as it was left
        assert connect_to_worker(socket_path(tmp_path, IDENTITY.key)) is None
        with warm_thread(tmp_path):
            assert answers(connect(tmp_path)) == BASE
