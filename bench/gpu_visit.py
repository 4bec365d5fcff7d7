"""Runs the parts of ``bench.gpu`` within ``--minutes``: on a card each in a process of its own, without one
those of a kind in one process (``bench.gpu_warm``), kinds beside one another.

In: a ``GpuConfig``. Out: one JSON file per part, written at once, then a table and the line of results. The
time is kept exactly: a part gets what is left, and all its processes are killed when that is over. What did
not run is "not measured", with the reason, never estimated. Knows nothing of what a part measures.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, device_info, finish, note, table, versions
from bench.gpu_needs import PARTS, Part, missing_packages
from bench.overhead import QUESTIONS
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import write_json_atomically
from kmmlu_fast.machine.gpus import list_gpus
from kmmlu_fast.machine.host import usable_cores

TARGET_SEC = {
    "zero-shot bf16": 120.0,
    "zero-shot fp8": 75.0,
    "train 500 x 3": 120.0,
}  # the targets on one H100
TARGET_FEWSHOT = 1.3  # times the zero-shot pass
NOT_MEASURED = "not measured"
_SET_UP_SEC = 120  # questions and tokenizer; random weights
_FINISH_SEC = 1.0  # for the table and the files' removal
_LEAST_SEC = 3.0  # in less than this nothing starts


class GpuConfig(BenchConfig):
    """python -m bench.gpu: the whole set on one GPU, random weights, within --minutes."""

    shape: Literal["ax4-light", "tiny"] = Field("ax4-light", description="the model's shape")
    questions: PositiveInt | None = Field(
        None, description=f"questions of a full pass; default: {QUESTIONS:,}, without a GPU few"
    )
    some: PositiveInt | None = Field(
        None, description="questions of the parts that are not a full pass; default: 5,000, without a GPU few"
    )
    cot_questions: PositiveInt | None = Field(
        None, description="questions of the chain-of-thought part, at most; default: 2,048, without a GPU few"
    )
    train_rows: PositiveInt | None = Field(
        None, description="rows that are trained on three times; default: 500, without a GPU few"
    )
    minutes: float = Field(9.5, gt=0, description="end after this, whatever is running")
    parts: list[str] = Field([part.name for part in PARTS], description="which parts, comma-separated")
    parts_dir: Path = Field(
        Path("out/bench_gpu"), description="each part's JSON goes to a new folder in here, as soon as it ends"
    )


# What the sizes are where they are not given, with a card and without one.
_SIZES = {
    "questions": (QUESTIONS, 90),
    "some": (5000, 45),
    "cot_questions": (2048, 4),
    "train_rows": (500, 16),
}


def with_sizes(config: GpuConfig, has_card: bool) -> GpuConfig:
    """The settings with every size chosen."""
    chosen = {
        name: getattr(config, name) or (large if has_card else small)
        for name, (large, small) in _SIZES.items()
    }
    return config.model_copy(update=chosen)


def chosen_parts(names: list[str]) -> list[Part]:
    """The parts of these names, in their own order; ConfigError for a name that is none."""
    known = {part.name: part for part in PARTS}
    for name in names:
        if name not in known:
            raise ConfigError(f"--parts {name}: allowed are {', '.join(known)}")
    return [part for part in PARTS if part.name in names]


class Visit:
    """A deadline, a folder of files for the parts, and a folder of results. Without a card the parts run in
    processes whose imports are done, one for each kind, beside one another."""

    def __init__(
        self, config: GpuConfig, files: Path, results: Path, started: float, has_card: bool | None = None
    ) -> None:
        self.has_card = bool(list_gpus()) if has_card is None else has_card
        self.config, self.files, self.results = with_sizes(config, self.has_card), files, results
        self.until = started + config.minutes * 60 - _FINISH_SEC
        self._made: dict[str, str] = {}  # step of the set-up -> "" or why it failed
        self._making = threading.Lock()
        self._warm: dict[str, WarmProcess] = {}
        self.is_closed = False

    def left_sec(self) -> float:
        return self.until - time.monotonic()

    def warm_up(self, parts: list[Part]) -> None:
        """Start the processes that fork the parts, where there is no card; all of them import at once."""
        if not self.has_card:
            kinds = sorted({part.warm for part in parts})
            busy = sum(kind != "plain" for kind in kinds)
            cores = max(1, usable_cores() // max(1, busy))
            self._warm = {kind: WarmProcess(kind, cores) for kind in kinds}

    def imports(self) -> dict[str, dict[str, Any]]:
        """Seconds that each kind's imports took, where they were done once for all its parts."""
        return {kind: process.imports for kind, process in self._warm.items()}

    def close(self) -> None:
        self.is_closed = True
        for process in self._warm.values():
            process.close()

    def run_part(self, part: Part) -> dict[str, Any]:
        """The part's result, or why there is none; never raises for a fault of the part."""
        if missing := missing_packages(part):
            return {NOT_MEASURED: f"not installed: {', '.join(missing)}"}
        if part.card and not self.has_card:
            return {NOT_MEASURED: "no GPU here"}
        for step in (["files"] if part.files else []) + (["weights"] if part.weights else []):
            with self._making:
                if step not in self._made:
                    result = self._run_process(["--part", step, *self._sizes()], _SET_UP_SEC, part.warm)
                    self._made[step] = str(result.get(NOT_MEASURED, ""))
            if self._made[step]:
                return {NOT_MEASURED: f"{step} could not be made: {self._made[step]}"}
        words = ["--part", part.name, *self._sizes()]
        return self._run_process(words, part.limit_sec, part.warm, part.alone)

    def _sizes(self) -> list[str]:
        config = self.config
        numbers = {
            "shape": config.shape,
            **{name.replace("_", "-"): getattr(config, name) for name in _SIZES},
            "dataset": config.dataset_name(),
        }
        return [word for name, value in numbers.items() for word in (f"--{name}", str(value))]

    def _run_process(
        self, words: list[str], limit_sec: float, warm: str, alone: bool = False
    ) -> dict[str, Any]:
        limit = min(limit_sec, self.left_sec())
        if limit < _LEAST_SEC:
            return {NOT_MEASURED: "no time left"}
        words = ["--folder", str(self.files), *words]
        if warm in self._warm:
            return self._warm[warm].run(words, limit, alone)
        return run_limited([sys.executable, "-m", "bench.gpu_parts", *words], limit)


class WarmProcess:
    """``bench.gpu_warm`` with its libraries imported: runs parts in processes that it forks."""

    def __init__(self, kind: str, cores: int) -> None:
        command = [sys.executable, "-m", "bench.gpu_warm", kind, str(cores)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read_answers, daemon=True).start()
        self.imports: dict[str, Any] = {}  # their seconds, once they are done
        self._count = 0  # of tasks: a late answer about one that was given up belongs to no other

    def run(self, words: list[str], limit_sec: float, alone: bool = False) -> dict[str, Any]:
        """The JSON object that a part prints last, with its CPU seconds, or why there is none. The process
        stays for the next part unless the limit is over.
        """
        until = time.monotonic() + limit_sec
        child = 0
        with tempfile.NamedTemporaryFile("r") as out:
            try:
                if not self.imports:
                    self.imports = self._answer("ready_sec", 0, until)
                assert self._process.stdin is not None
                self._count += 1
                task = {"number": self._count, "words": words, "out": out.name, "alone": alone}
                self._process.stdin.write((json.dumps(task) + "\n").encode())
                self._process.stdin.flush()
                child = self._answer("pid", self._count, until)["pid"]
                ended = self._answer("exit_code", self._count, until)
            except queue.Empty:
                if child:
                    kill_session(child)
                return {NOT_MEASURED: f"not done after {limit_sec:.0f} s"}
            except (EOFError, BrokenPipeError):
                return {NOT_MEASURED: "the process that imports for it ended; its own message is above"}
            result = last_object(out.read(), ended["exit_code"])
            return {**result, "cpu_sec": round(ended["cpu_sec"], 1)}

    def close(self) -> None:
        kill_session(self._process.pid)
        self._process.wait()

    def _answer(self, name: str, number: int, until: float) -> dict[str, Any]:
        """The next answer about this task with that name in it; those about earlier tasks are passed over."""
        while True:
            found = self._answers.get(timeout=max(0.0, until - time.monotonic()))
            if found is None:
                self._answers.put(None)
                raise EOFError
            if name in found and found["number"] == number:
                return found

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)


def run_limited(command: list[str], limit_sec: float) -> dict[str, Any]:
    """The JSON object that a command prints last. When the limit is over, or this process is interrupted, all
    processes of its session are killed.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        out, _ = process.communicate(timeout=limit_sec)
    except subprocess.TimeoutExpired:
        return {NOT_MEASURED: f"not done after {limit_sec:.0f} s"}
    finally:
        kill_session(process.pid)
        process.wait()
    return last_object(out, process.returncode)


def last_object(out: str, exit_code: int) -> dict[str, Any]:
    """The JSON object on the last line, or why there is none."""
    with contextlib.suppress(ValueError, IndexError):
        result = json.loads(out.strip().splitlines()[-1])
        if isinstance(result, dict) and exit_code == 0:
            return result
    return {NOT_MEASURED: f"ended with exit code {exit_code}; its own message is above"}


def kill_session(session: int) -> None:
    """Kill every process of a session, in whatever group: engines start processes of their own."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getsid(int(folder.name)) == session:
                os.kill(int(folder.name), signal.SIGKILL)


def run_parts(visit: Visit, parts: list[Part]) -> dict[str, dict[str, Any]]:
    """Every part in turn, without a card those of each kind; its result is on disk before the next one
    starts.
    """
    visit.warm_up(parts)
    lanes = split_lanes(parts, visit.has_card)
    about: dict[str, Any] = {"device": device_info(), "versions": versions(), "shape": visit.config.shape}
    if len(lanes) > 1:
        about["beside"] = f"parts of {len(lanes)} kinds ran at once: their seconds are no measurement"
    results: dict[str, dict[str, Any]] = {}

    def run_lane(lane: list[Part]) -> None:
        for part in lane:
            note(f"{part.name} ({visit.left_sec():.0f} s left)")
            began = time.monotonic()
            result = visit.run_part(part)
            if visit.is_closed:
                return
            result["part_sec"] = round(time.monotonic() - began, 1)
            results[part.name] = result
            slug = re.sub(r"[^a-z0-9]+", "-", part.name.lower()).strip("-")
            path = visit.results / f"{parts.index(part) + 1:02d}-{slug}.json"
            write_json_atomically(path, {"part": part.name, "time_utc": _now(), **about, "result": result})
            note(f"{part.name}: {json.dumps(result)[:300]}")

    threads = [threading.Thread(target=run_lane, args=(lane,), daemon=True) for lane in lanes[1:]]
    for thread in threads:
        thread.start()
    run_lane(lanes[0])
    for thread in threads:
        thread.join()
    return {part.name: results[part.name] for part in parts}


def split_lanes(parts: list[Part], has_card: bool) -> list[list[Part]]:
    """Parts that run one after the other: on a card all of them, without one those of each kind."""
    if has_card:
        return [parts]
    kinds = dict.fromkeys(part.warm for part in parts)
    in_turn = sorted(parts, key=lambda part: part.turn)
    return [[part for part in in_turn if part.warm == kind] for kind in kinds]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def new_folder(parent: Path) -> Path:
    """A new folder in ``parent``, named by the time."""
    name = _now()[:19].replace(":", "-")
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        with contextlib.suppress(FileExistsError):
            (parent / f"{name}{suffix}").mkdir(parents=True)
            return parent / f"{name}{suffix}"
    raise ConfigError(f"--parts-dir {parent}: no new folder could be made; give another one")


def judge(results: dict[str, Any], full: bool) -> list[dict[str, Any]]:
    """A row per part: seconds, and for the ``full`` set the target and whether it was reached."""
    rows = []
    zero = _seconds(results.get("zero-shot bf16"))
    for part, result in results.items():
        sec, target = _seconds(result), None
        if full:
            few_shot = TARGET_FEWSHOT * zero if part == "five-shot bf16" and zero else None
            target = TARGET_SEC.get(part) or few_shot
        why = result.get(NOT_MEASURED)
        rows.append(
            {
                "part": part,
                "seconds": NOT_MEASURED if why else sec,
                "tflop_per_sec": _tflop_per_sec(result),
                "target_sec": round(target, 1) if target else None,
                "reached": None if sec is None or target is None else sec < target,
                "questions_per_sec": result.get("questions_per_sec"),
                "output_tokens_per_sec": result.get("output_tokens_per_sec"),
                "share_of_matmul_rate": result.get("share_of_matmul_rate"),
                "start_sec": result.get("start_sec"),
                "part_sec": result.get("part_sec"),
                "cpu_sec": result.get("cpu_sec"),
                "why": why,
            }
        )
    return rows


def _tflop_per_sec(result: dict[str, Any]) -> float | None:
    rate = result.get("gflop_per_sec")
    return round((rate["median"] if isinstance(rate, dict) else rate) / 1000, 2) if rate else None


def _seconds(result: dict[str, Any] | None) -> float | None:
    """A pass's seconds, or training's own without loading."""
    if not result or NOT_MEASURED in result:
        return None
    if "card" in result:
        return round(float(result["card"]["metrics"]["train_sec"]), 1)
    seconds = result.get("seconds")
    return seconds["median"] if isinstance(seconds, dict) else seconds


def run_visit(argv: list[str] | None, started: float) -> int:
    """The command: parse, run, print. ``started``: when --minutes began to count (time.monotonic)."""

    def body() -> int:
        config = parse_config(GpuConfig, argv, "python -m bench.gpu")
        parts, results_dir = chosen_parts(config.parts), new_folder(config.parts_dir)
        note(f"results: {results_dir}")
        with tempfile.TemporaryDirectory() as name:
            visit = Visit(config, Path(name), results_dir, started)
            try:
                results = run_parts(visit, parts)
            finally:
                visit.close()
        config = visit.config
        full = config.shape == "ax4-light" and config.questions == QUESTIONS and config.train_rows == 500
        rows = judge(results, full)
        title = f"One device, {config.shape} shape"
        finish(
            "gpu",
            config,
            argv,
            {"shape": config.shape, "rows": rows, "parts": results, "imports": visit.imports()},
            [table(title, rows)],
        )
        return 0

    return run_main(body)
