"""Verbs run in forks of a process that has everything imported, watched at every file-system event, and
killed at any one of them or at any time.

In: jobs (a verb, its arguments, what is to be done to it). Out: how each ended: code, output, events, memory,
seconds. An event is what Python's audit hooks tell of: a file opened for writing, a folder made, a name
changed or removed, below the job's folder. No strace, no privileges. At the event that is named, what is
half-written is cut in half and the process kills itself, before the event takes place; libraries that write
past Python (safetensors, Parquet) are met by kills at a time instead. Knows nothing of what is right.

What a fork is not: its imports were made before it, once; it has one thread of OpenMP. Engines are
``FakeEngine``, and training stops before Unsloth, unless ``real`` is set: then Unsloth, TRL, PEFT and torch
do all that they do. Drawings of charts are kept in ``drawn`` from one job for the next, so that not every
victim starts V8 anew; the files themselves are written by the real code. Importing polars starts its
allocator's threads (jemalloc's, which lock and unlock around a fork) and an idle one: ``Ended.threads``.

    python -m bench.faults.killing   # a JSON job per line on stdin, a JSON answer per line on stdout
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
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
_LOOK_SEC = 2.0  # between looks at whether a victim still computes
LEAN = (
    "kmmlu_fast.eval",
    "kmmlu_fast.sample",
    "kmmlu_fast.compare",
    "kmmlu_fast.report",
    "kmmlu_fast.leakage",
    "kmmlu_fast.train",
    "kmmlu_fast.export",
    "kmmlu_fast.check",
    "kmmlu_fast.push",
    "kmmlu_fast.verify",
    "kmmlu_fast.exams",
    "kmmlu_fast.plan",
)


@dataclass(slots=True)
class Job:
    """One run of a verb. ``stop_at``: the event (from 1) before which ``stop_with`` is sent,
    ``stop_after_sec``: the time at which SIGKILL is; None lets it run.
    """

    verb: str
    argv: list[str]
    root: str = ""  # events count below this folder; also the working directory
    stop_at: int | None = None
    stop_with: int = signal.SIGKILL
    stop_after_sec: float | None = None
    max_file_bytes: int | None = None  # as a full disk: writing more to one file fails
    flush_rows: int | None = None  # answers a part, so that a small run has several
    environment: dict[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"  # of the console
    stdout: str = ""  # "closed" before the start, "gone": nobody reads it, "full": /dev/full; "": a file
    timeout_sec: float = 120.0  # of computing, or of sleeping
    real: bool = False  # real training
    module: str = ""  # another module's main in the verb's place
    more_memory_bytes: int | None = None  # of address space (ulimit -v), beside what is mapped already
    no_temporary: bool = False  # no folder for temporary files can be used
    drawn: str = ""  # folder that keeps drawings of charts; "" draws them all


@dataclass(slots=True)
class Ended:
    """How it ended: exit code (negative: the signal it died of), or None where the time was up."""

    code: int | None
    out: str
    err: str
    events: int
    peak_bytes: int
    seconds: float
    threads: list[str] = field(default_factory=list)  # that the forked process had beside its own, by name


class Watcher:
    """Runs jobs, one at a time; ``imports`` are made once, before the first. A context manager."""

    def __init__(self, *imports: str, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.faults.killing", *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={
                "OMP_NUM_THREADS": "1",  # tiny matrices: threads would only wait for each other
                **os.environ,
                "TOKENIZERS_PARALLELISM": "false",
                "HF_HUB_OFFLINE": "1",
                **(environment or {}),
            },
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
        _import(name)
    gc.collect()
    gc.freeze()  # what is imported is no victim's to look through
    for line in sys.stdin:
        answers.write(json.dumps(asdict(_watched(Job(**json.loads(line))))) + "\n")
        answers.flush()


def _import(name: str) -> None:
    if name == "unsloth":  # as training does it
        from kmmlu_fast.training.libraries import import_unsloth

        import_unsloth()
    else:
        importlib.import_module(name)


def _watched(job: Job) -> Ended:
    threads = [(path / "comm").read_text().strip() for path in Path("/proc/self/task").iterdir()][1:]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as count:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(job, out.fileno(), err.fileno(), count.fileno())
        status, peak_bytes = _wait(child, job.timeout_sec, job.stop_after_sec)
        texts, seconds = [], time.monotonic() - began
        for file in (out, err):
            file.seek(0)
            texts.append(file.read()[-20_000:].decode(job.encoding, "replace"))
        count.seek(0)
        told = json.loads(count.read() or "{}")
        events = told.get("events", 0)
    if late := told.get("modules", []):  # what this verb imports late is there at once next time
        for name in late:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        gc.freeze()
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return Ended(code, texts[0], texts[1], events, peak_bytes, seconds, threads)


def _wait(child: int, timeout_sec: float, stop_after_sec: float | None) -> tuple[int | None, int]:
    """The wait status and the most memory it held; None where it hangs: it computed for ``timeout_sec``, or
    slept as long without computing anything. A machine that is busy with others makes no hang.
    """
    descriptor = os.pidfd_open(child)
    stopping = stop_after_sec is not None
    cpu_sec = asleep_sec = 0.0
    try:
        while True:
            ready, _, _ = select.select([descriptor], [], [], stop_after_sec if stopping else _LOOK_SEC)
            if ready or stopping:
                break
            state, now_sec = _computed(child)
            asleep_sec = 0.0 if now_sec > cpu_sec or state == "R" else asleep_sec + _LOOK_SEC
            cpu_sec = now_sec
            if max(cpu_sec, asleep_sec) > timeout_sec:
                break
        if not ready:
            os.kill(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
        return (status if ready or stopping else None), usage.ru_maxrss * 1024
    finally:
        os.close(descriptor)


def _computed(child: int) -> tuple[str, float]:
    """Its state (proc(5): R is running or waiting for a processor), and its CPU seconds."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(job: Job, out: int, err: int, count: int) -> None:
    """The fork. Does not return."""
    code, known = 99, set(sys.modules)
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        for number in (1, 2):
            stream = open(number, "w", encoding=job.encoding, errors="strict", closefd=False)  # noqa: SIM115
            setattr(sys, "stdout" if number == 1 else "stderr", stream)
        _spoil_stdout(job.stdout)
        os.environ.update(job.environment)
        if job.root:
            os.chdir(job.root)
        _prepare(job)
        gc.set_threshold(50_000, 20, 100)  # a collection copies every page that the fork shares
        counter = _Counter(job)
        try:
            if job.module:
                code = importlib.import_module(job.module).main(job.argv)
            else:
                door = importlib.import_module(f"kmmlu_fast.{job.verb}")
                code = getattr(door, f"run_{job.verb}_command")(job.argv)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        counter.on = False
        late = [name for name in sys.modules if name not in known and not name.startswith("_")]
        os.pwrite(count, json.dumps({"events": counter.seen, "modules": late}).encode(), 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) and 0 <= code < 256 else 98)


def _spoil_stdout(how: str) -> None:
    if how == "closed":  # as the interpreter starts with it: a file that is opened may become number 1
        os.close(1)
        sys.stdout = None
    elif how == "gone":
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(reader)
        os.close(writer)
    elif how == "full":
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, 1)
        os.close(full)


def _refuse_temporary_folder(*_: Any) -> str:
    raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")


def _limit_surroundings(job: Job) -> None:
    if job.max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.max_file_bytes, job.max_file_bytes))
    if job.more_memory_bytes is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + job.more_memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if job.no_temporary:
        tempfile.tempdir = None
        tempfile._get_default_tempdir = _refuse_temporary_folder  # type: ignore[attr-defined]


def _prepare(job: Job) -> None:
    _limit_surroundings(job)
    if job.flush_rows is not None:
        from kmmlu_fast.runs import store

        store.FLUSH_ROWS = job.flush_rows
    if job.drawn:
        _keep_drawings(Path(job.drawn))
    if job.real:
        return
    from kmmlu_fast.core.errors import TrainError
    from kmmlu_fast.engines import factory
    from kmmlu_fast.engines.fake import FakeEngine
    from kmmlu_fast.engines.server import client
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

    client.ATTEMPTS, client.ANSWER_SEC = 2, 2.0  # minutes, and half an hour
    opened, factory.open_engine = factory.open_engine, open_engine  # type: ignore[assignment]
    training.train_and_write_adapter = stop  # type: ignore[assignment]


def _keep_drawings(folder: Path) -> None:
    """What V8 makes of a specification or an SVG is looked up, once made: they are pure functions."""
    import vl_convert

    def kept(name: str) -> None:
        real = getattr(vl_convert, name)

        def drawn(*arguments: Any, **named: Any) -> Any:
            path = folder / hashlib.sha256(repr((name, arguments, named)).encode()).hexdigest()
            if not path.exists():
                made = real(*arguments, **named)
                fresh = path.with_suffix(f".{os.getpid()}")
                fresh.write_bytes(made.encode() if isinstance(made, str) else bytes(made))
                fresh.rename(path)
            data = path.read_bytes()
            return data.decode() if name.endswith("_to_svg") else data

        setattr(vl_convert, name, drawn)

    folder.mkdir(exist_ok=True)
    for name in ("vegalite_to_svg", "svg_to_png", "svg_to_pdf"):
        kept(name)


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
