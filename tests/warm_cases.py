"""A warm engine to test with: the real process and socket around ``FakeEngine``, in a thread or a child."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import AdapterError, EngineError
from kmmlu_fast.core.schema import Adapter, Candidates, Generation, Request, Response
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.engines.protocol import FollowUp
from kmmlu_fast.engines.warm.client import find_warm_engine
from kmmlu_fast.engines.warm.identity import EngineIdentity
from kmmlu_fast.engines.warm.remote_engine import WarmEngine
from kmmlu_fast.engines.warm.worker import WarmWorker

ROOT = Path(__file__).resolve().parents[1]
IDENTITY = EngineIdentity({"engine": "fake", "model": "/a/model", "dtype": "auto"}, 256)
ADAPTER = Adapter(name="lora", path=Path("/a/lora"), adapter_id=1, rank=4, digest="d1")
WAIT_SEC = 30.0


class LoggingEngine(FakeEngine):
    """Notes what is asked of it; answers slowly if told to; refuses adapters called "misfit"."""

    def __init__(self, delay_sec: float = 0.0) -> None:
        super().__init__(max_in_flight=4)
        self.delay_sec, self.fails_at = delay_sec, ""
        self.log: list[str] = []
        self.open_passes = 0

    def swap(self, adapter: Adapter | None) -> None:
        if adapter is not None and adapter.name == "misfit":
            self.swap(None)
            raise AdapterError("misfit: does not fit")
        self.log.append(f"swap {adapter.name if adapter else None}")
        super().swap(adapter)

    def start_afresh(self) -> None:
        self.log.append("afresh")
        super().start_afresh()

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        self.open_passes += 1
        try:
            for response in super().generate(requests, follow_up):
                time.sleep(self.delay_sec)
                if response.request.question_id == self.fails_at:
                    raise EngineError("the engine stopped: out of memory")
                yield response
        finally:
            self.open_passes -= 1

    def close(self) -> None:
        self.log.append("closed")


def letters(count: int, first: int = 0) -> list[Request]:
    return [
        Request(question_id=f"q{i}", stage="letters", token_ids=(i, 7, 9), want=Candidates((1, 2, 3, 4)))
        for i in range(first, first + count)
    ]


def no_follow_up(response: Response) -> list[Request]:
    return []


def text_after(response: Response) -> list[Request]:
    """Every other question of letters is reasoned about, then forced: two follow-ups in a row."""
    request = response.request
    if request.stage == "letters" and request.token_ids[0] % 2:
        want = Generation(max_tokens=5, temperature=0.7, seed=2**40, stop=("\n", "끝"))
        return [
            Request(question_id=request.question_id, stage="text", token_ids=(5, 6), want=want, carry=[1])
        ]
    if request.stage == "text":
        assert request.carry == [1]
        ids = (5, 6, *response.completions[0].token_ids)
        return [
            Request(question_id=request.question_id, stage="forced", token_ids=ids, want=Candidates((1, 2)))
        ]
    return []


@contextlib.contextmanager
def warm_thread(
    folder: Path,
    engine: Any = None,
    identity: EngineIdentity = IDENTITY,
    idle_sec: float = 60.0,
    find_change: Any = lambda: "",
) -> Iterator[Any]:
    """A worker in a thread of this process; ``worker.ended`` is why it ended, or the error."""
    worker: Any = WarmWorker(identity, folder, idle_sec)
    worker.ended = None

    def serve() -> None:
        try:
            worker.ended = worker.serve_commands(lambda: engine or LoggingEngine(), find_change)
        except BaseException as error:
            worker.ended = error
        finally:
            worker.close()

    thread = threading.Thread(target=serve)
    thread.start()
    worker.thread = thread
    try:
        yield worker
    finally:
        wait_until(lambda: worker._state.phase != "starting" or not thread.is_alive())
        worker._set_stopping("the test is over")
        thread.join(WAIT_SEC)
        assert not thread.is_alive()


CHILD = """
import sys
import time
from pathlib import Path
from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main
from warm_cases import IDENTITY, LoggingEngine
from kmmlu_fast.engines.warm.remote_engine import WarmEngine
from kmmlu_fast.engines.warm.worker import WarmWorker
def serve():
    delay_sec, idle_sec, start_sec = map(float, sys.argv[2:])
    worker = WarmWorker(IDENTITY, Path(sys.argv[1]), idle_sec)
    def open_engine():
        time.sleep(start_sec)
        return LoggingEngine(delay_sec)
    try:
        print(worker.serve_commands(open_engine))
    finally:
        worker.close()
sys.exit(run_main(serve))
"""


@contextlib.contextmanager
def warm_process(
    folder: Path, delay_sec: float = 0.0, idle_sec: float = 60.0, start_sec: float = 0.0
) -> Iterator[subprocess.Popen[str]]:
    """The same in a process of its own, which can be killed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(delay_sec), str(idle_sec), str(start_sec)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: list(folder.glob("*.sock")) or process.poll() is not None)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate()


def wait_until(holds: Any, seconds: float = WAIT_SEC) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def connect(folder: Path, here: Any = None, identity: EngineIdentity = IDENTITY) -> WarmEngine:
    """A command's engine; ``here`` is what it would start itself, and must not unless it is given."""

    def start_here() -> Any:
        assert here is not None, "started an engine of its own"
        return here

    engine = find_warm_engine(identity, folder, start_here)
    assert engine is not None
    return engine
