"""Verbs run in forks of a process that has everything imported, watched at every file-system event, and
killed at any one of them.

In: jobs (a verb, its arguments, what is to be done to it). Out: how each ended: code, output, events, memory,
seconds. An event is
what Python's audit hooks tell of: a file opened for writing, a folder made, a name changed or removed, below
the job's folder. No
strace, no privileges. At the event that is named, what is half-written is cut in half and the process kills
itself, before the
event takes place. Engines are ``FakeEngine``; training stops before Unsloth unless ``real`` is set. Knows
nothing of what is right.

    python -m bench.killing        # the watcher itself: one JSON job a line on stdin, one JSON answer a line
    on stdout
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
)
LEAN = (
    "kmmlu_fast.eval",
    "kmmlu_fast.sample",
    "kmmlu_fast.compare",
    "kmmlu_fast.report",
    "kmmlu_fast.leakage",
    "kmmlu_fast.train",
)


@dataclass(slots=True)
class Job:
    """One run of a verb. ``stop_at``: the event (from 1) before which ``stop_with`` is sent; None lets it
    run.
    """

    verb: str
    argv: list[str]
    root: str = ""  # events count below this folder; also the working directory
    stop_at: int | None = None
    stop_with: int = signal.SIGKILL
    max_file_bytes: int | None = None  # as a full disk: writing more to one file fails
    flush_rows: int | None = None  # answers a part, so that a small run has several
    environment: dict[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"  # of the console
    timeout_sec: float = 120.0
    real: bool = False  # real training, real merges


@dataclass(slots=True)
class Ended:
    """How it ended: exit code (negative: the signal it died of), or None where the time was up."""

    code: int | None
    out: str
    err: str
    events: int
    peak_bytes: int
    seconds: float


class Watcher:
    """Runs jobs, one at a time; ``imports`` are made once, before the first. A context manager."""

    def __init__(self, *imports: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.killing", *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
        )

    def run(self, job: Job) -> Ended:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the watcher died")
        return Ended(**json.loads(line))

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def main() -> None:
    """The watcher: import, then fork for each job."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever an import prints must not be taken for an answer
    for name in sys.argv[1:] or LEAN:
        importlib.import_module(name)
    for line in sys.stdin:
        answers.write(json.dumps(asdict(_watched(Job(**json.loads(line))))) + "\n")
        answers.flush()


def _watched(job: Job) -> Ended:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as count:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(job, out.fileno(), err.fileno(), count.fileno())
        status, peak_bytes = _wait(child, job.timeout_sec)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read()[-20_000:].decode(job.encoding, "replace"))
        count.seek(0)
        told = json.loads(count.read() or "{}")
        events = told.get("events", 0)
    for name in told.get("modules", []):  # what this verb imports late is there at once next time
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return Ended(code, texts[0], texts[1], events, peak_bytes, time.monotonic() - began)


def _wait(child: int, timeout_sec: float) -> tuple[int | None, int]:
    """The wait status and the most memory it held; None where it had to be killed because the time was up."""
    descriptor = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([descriptor], [], [], timeout_sec)
        if not ready:
            os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        return (status if ready else None), usage.ru_maxrss * 1024
    finally:
        os.close(descriptor)


def _child(job: Job, out: int, err: int, count: int) -> None:
    """The fork. Does not return."""
    code, known = 99, set(sys.modules)
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        for number in (1, 2):
            stream = open(number, "w", encoding=job.encoding, errors="strict", closefd=False)  # noqa: SIM115
            setattr(sys, "stdout" if number == 1 else "stderr", stream)
        os.environ.update(job.environment)
        if job.root:
            os.chdir(job.root)
        _prepare(job)
        counter = _Counter(job)
        try:
            code = importlib.import_module(f"kmmlu_fast.{job.verb}").main(job.argv)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        counter.on = False
        late = [name for name in sys.modules if name not in known and not name.startswith("_")]
        os.pwrite(count, json.dumps({"events": counter.seen, "modules": late}).encode(), 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) and 0 <= code < 256 else 98)


def _prepare(job: Job) -> None:
    if job.max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.max_file_bytes, job.max_file_bytes))
    if job.flush_rows is not None:
        from kmmlu_fast.runs import store

        store.FLUSH_ROWS = job.flush_rows
    if job.real:
        return
    from kmmlu_fast.core.errors import TrainError
    from kmmlu_fast.engines import opening
    from kmmlu_fast.engines.fake import FakeEngine
    from kmmlu_fast.training import job as training

    class Merged(FakeEngine):
        """Other answers than the base's, as merged weights give."""

        def _answer(self, request: Any) -> Any:
            response = super()._answer(replace(request, token_ids=(*request.token_ids, 1)))
            return replace(response, request=request)

    def open_engine(config: Any, model: Any, adapters: Any, length: int, path: str | None = None) -> Any:
        if config.engine == "server":
            return opened(config, model, adapters, length, path)
        return Merged() if path else FakeEngine()

    def stop(*_: Any) -> Any:
        raise TrainError("stopped before Unsloth")

    opened, opening.open_engine = opening.open_engine, open_engine  # type: ignore[assignment]
    training.train_alone = stop  # type: ignore[assignment]


class _Counter:
    """Counts events below a folder, and stops the process before the one that is named."""

    def __init__(self, job: Job) -> None:
        self.seen = 0
        self.on = True
        self._root = os.path.realpath(job.root) if job.root else None
        self._job = job
        self._open: list[str] = []
        if self._root:
            sys.addaudithook(self._event)

    def _event(self, name: str, arguments: tuple[Any, ...]) -> None:
        if (
            not self.on
            or not (name in EVENTS or (name == "open" and _writes(arguments)))
            or not self._below(arguments[0])
        ):
            return
        self.seen += 1
        if self.seen == self._job.stop_at:
            self.on = False
            if self._job.stop_with == signal.SIGKILL:
                for path in self._open[-3:]:
                    with contextlib.suppress(OSError):
                        if path.endswith(".partial") and os.path.isfile(path):  # noqa: PTH113
                            os.truncate(path, os.path.getsize(path) // 2)  # noqa: PTH202
            os.kill(os.getpid(), self._job.stop_with)
        if name == "open":
            self._open.append(os.fsdecode(arguments[0]))

    def _below(self, path: Any) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)) or self._root is None:
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self._root)  # noqa: PTH100


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    return (
        bool(flags & WRITES)
        if isinstance(flags, int)
        else isinstance(mode, str) and any(c in mode for c in "wax+")
    )


if __name__ == "__main__":
    main()
