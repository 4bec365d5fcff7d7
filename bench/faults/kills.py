"""What is killed, and what must be true afterwards: every verb that writes, and those that only read.

In: a folder, a watcher (``killing``). Out: problems in words, none where all is well: whatever a kill left,
nothing half-finished looks
whole, and the same command then gives what it gives uninterrupted. Knows nothing of how a process is killed.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from bench.faults.killing import Job, Watcher
from bench.faults.outcomes import (
    adapter_outcome,
    digests,
    exports,
    file_names,
    litter,
    merged,
    nothing,
    old_or_new,
    run_outcome,
    same_or_absent,
    staged,
    untouched,
    whole_adapter,
    whole_documents,
    whole_exports,
    whole_merge,
    whole_run,
    whole_staging,
)


@dataclass(slots=True)
class Scenario:
    """``prepare`` fills the folder; ``outcome`` reads what the finished command left; ``check`` looks at what
    a kill left.
    """

    name: str
    verb: str
    argv: list[str]
    outcome: Callable[[Path], Any]
    check: Callable[[Path, Any], str | None] = lambda folder, wanted: None
    prepare: Callable[[Path], None] = lambda folder: None
    again: list[str] = field(default_factory=list)  # further flags of the second try
    flush_rows: int | None = 7
    real: bool = False
    own_cache: bool = False  # its work in the cache counts too
    timeout_sec: float = 120.0


@dataclass(slots=True)
class Place:
    """Where scenarios find what they share: a tiny model, an adapter for it, score files, finished runs."""

    root: Path
    model: Path
    adapter: Path | None = None
    rows: Path | None = None
    watcher: Watcher | None = None  # for the finished run that ``--overwrite`` is to replace

    @property
    def environment(self) -> dict[str, str]:
        return {"KMMLU_FAST_CACHE": str(self.root / "cache"), "KMMLU_FAST_DEBUG": "1"}


def scenarios(place: Place) -> list[Scenario]:
    """Those that need no engine. Merging needs ``place.adapter``, training ``place.rows``."""
    asked = [
        "--model",
        str(place.model),
        "--dataset",
        "sample",
        "--subjects",
        "Math,Law,Biology",
        "--output-dir",
        "runs",
    ]
    cot = [*asked, "--output-type", "cot", "--max-tokens", "32"]
    drawn = [
        "--from",
        str(_scores(place.root)),
        "--dataset",
        "sample",
        "--size",
        "6",
        "--subjects",
        "Law,Math",
    ]
    runs = [str(path) for path in _two_runs(place.root)]
    overlap = ["--overlap", "none", "--dataset", "none"]
    report = [
        *runs,
        "--output",
        "out/report.html",
        "--export",
        "csv,json,xlsx,lm-eval",
        "--figures",
        "out/figures",
        *overlap,
    ]
    found = [
        Scenario("eval", "eval", asked, run_outcome, whole_run),
        Scenario(
            "eval --overwrite",
            "eval",
            [*asked, "--overwrite"],
            run_outcome,
            old_or_new,
            lambda folder: _old_run(folder, place, asked),
        ),
        Scenario("chain of thought", "eval", cot, run_outcome, whole_run),
        Scenario("sample", "sample", [*drawn, "--out", "out/sft.jsonl"], digests, same_or_absent),
        Scenario("report", "report", report, exports, whole_exports, again=["--overwrite"]),
        Scenario(
            "leakage",
            "leakage",
            [str(_training_rows(place.root)), "--dataset", "sample", "--output", "out/overlap.json"],
            digests,
            same_or_absent,
            again=["--overwrite"],
        ),
        Scenario("exams", "exams", ["--check", str(_own_table(place.root))], nothing, untouched),
        Scenario(
            "compare",
            "compare",
            [*runs, "--json-file", "out/pair.json", *overlap],
            digests,
            same_or_absent,
            again=["--overwrite"],
        ),
    ]
    if place.adapter is not None:
        with_lora = [*asked, "--adapter", f"lora={place.adapter}", "--adapter-mode", "merge"]
        found.append(Scenario("merge", "eval", with_lora, merged, whole_merge, own_cache=True))
        found += _shipping_scenarios(place, asked)
    if place.rows is not None:
        train = [
            "--model",
            str(place.model),
            "--data",
            str(place.rows),
            "--output-dir",
            "lora",
            "--dataset",
            "sample",
            "--resume",
        ]
        train += [
            "--max-steps",
            "4",
            "--effective-batch",
            "4",
            "--micro-batch",
            "4",
            "--measure-every",
            "1",
            "--save-every",
            "2",
        ]
        train += ["--r", "4"]
        train += [
            "--held-out",
            "4",
            "--no-load-in-4bit",
            "--max-seq-length",
            "512",
            "--learning-rate",
            "0.01",
        ]
        found.append(
            Scenario("training", "train", train, adapter_outcome, whole_adapter, real=True, timeout_sec=300)
        )
    return found


def _shipping_scenarios(place: Place, asked: list[str]) -> list[Scenario]:
    """Export, the checks of what is shipped, publishing, and planning from a finished run."""
    adapter, model = str(place.adapter), ["--model", str(place.model)]
    finished = place.root / "finished"
    out = ["--out", "out/ship"]
    questions = ["--questions", "8", "--generations", "2", "--dataset", "sample"]
    checked = [adapter, str(place.root / "shipped"), *model, *questions]
    return [
        Scenario("export", "export", [adapter, *model, *out], digests, same_or_absent),
        Scenario(
            "check",
            "check",
            [*checked, "--json-file", "out/check.json", "--junit", "out/check.xml"],
            file_names,
            whole_documents,
            lambda folder: _shipped(folder, place),
            again=["--overwrite"],
            real=True,
        ),
        Scenario(
            "push",
            "push",
            [
                adapter,
                *("--repo", "org/name", "--base", "org/base"),
                *("--run", str(finished), "--dry-run", "--staging", "out/push"),
            ],
            staged,
            whole_staging,
            lambda folder: _finished_run(folder, place, asked),
        ),
        Scenario(
            "verify",
            "verify",
            [str(place.root / "bundle")],
            nothing,
            untouched,
            lambda folder: _finished_run(folder, place, asked),
        ),
        Scenario(
            "plan",
            "plan",
            [str(finished)],
            nothing,
            untouched,
            lambda folder: _finished_run(folder, place, asked),
        ),
    ]


class Known(NamedTuple):
    """What a command leaves when nothing disturbs it, how many events it has, how long it takes."""

    outcome: Any
    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Stop:
    """How a command is disturbed: a signal at an event (from 1), SIGKILL at a time, or a full disk."""

    at: int | None = None
    how: int = signal.SIGKILL
    after_sec: float | None = None
    max_file_bytes: int | None = None

    def __str__(self) -> str:
        if self.max_file_bytes is not None:
            return f"full disk at {self.max_file_bytes} bytes"
        where = f"event {self.at}" if self.at is not None else f"{self.after_sec:.2f} s"
        return f"{signal.Signals(self.how).name} at {where}"


@dataclass(frozen=True, slots=True)
class Disturbed:
    """What was wrong (None: nothing), how many of the stops really ended the command, and the seconds of the
    last try.
    """

    problem: str | None
    stopped: int
    seconds: float = 0.0


def uninterrupted(scenario: Scenario, place: Place, watcher: Watcher, times: int = 1) -> Known:
    """Run a command to its end. RuntimeError where it fails, or leaves something else another time: then
    nothing could be said of what a kill does to it.
    """
    known: Known | None = None
    for _ in range(times):
        folder = _fresh(scenario, place)
        ended = watcher.run(_job(scenario, place, folder))
        if ended.code != 0:
            raise RuntimeError(f"{scenario.name}: ends with {ended.code} undisturbed: {ended.err[-2000:]}")
        found = Known(scenario.outcome(folder), ended.events, ended.seconds)
        if known is not None and found.outcome != known.outcome:
            why = _difference(known.outcome, found.outcome)
            raise RuntimeError(f"{scenario.name}: another result when run again: {why}")
        known = found
    assert known is not None
    return known


def disturb(scenario: Scenario, place: Place, watcher: Watcher, wanted: Any, *stops: Stop) -> Disturbed:
    """Stop the command, as often as there are stops, look each time; then let it end, and look."""
    folder = _fresh(scenario, place)
    said = f"{scenario.name}, {' then '.join(map(str, stops))}"
    for stopped, stop in enumerate((*stops, None)):
        ended = watcher.run(_job(scenario, place, folder, stop, again=_left(folder)))
        if ended.code == 2 and ": exists; " in ended.err and scenario.outcome(folder) == wanted:
            left = litter(folder)  # killed after its last file: it was done
            return Disturbed(f"{said}: left behind: {', '.join(left[:5])}" if left else None, stopped)
        if stop is None or ended.code == 0:  # to its end
            if ended.code != 0:
                return Disturbed(
                    f"{said}: the same command then ends with {ended.code}: {ended.err[-1500:]}", stopped
                )
            found = scenario.outcome(folder)
            same = found == wanted
            other = None if same else f"{said}: another result: {_difference(wanted, found)}"
            if same and (left := litter(folder)):
                other = f"{said}: left behind: {', '.join(left[:5])}"
            return Disturbed(other, stopped, ended.seconds)
        if problem := _ended_well(ended.code, ended.err, stop) or scenario.check(folder, wanted):
            return Disturbed(f"{said}: {problem}", stopped)
    raise AssertionError("unreachable")


def points(events: int, count: int, seed: int = 0) -> list[int]:
    """``count`` of the events, spread at random; all of them where there are no more."""
    return sorted(random.Random(seed).sample(range(1, events + 1), min(count, events)))


def _ended_well(code: int | None, err: str, stop: Stop) -> str | None:
    if code is None:
        return "it hangs"
    if "Traceback" in err:
        return f"a traceback: {err[-1500:]}"
    if stop.max_file_bytes is not None:
        return (
            None
            if code == 0 or (code == 2 and err.count("error: ") == 1)
            else f"ends with {code}: {err[-500:]}"
        )
    allowed = {0, -signal.SIGKILL} if stop.how == signal.SIGKILL else {0, 128 + stop.how}
    return None if code in allowed else f"ends with {code}: {err[-500:]}"


def _left(folder: Path) -> bool:
    return any(path.is_file() for path in (folder / "out").rglob("*")) if (folder / "out").is_dir() else False


def _fresh(scenario: Scenario, place: Place) -> Path:
    folder = place.root / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scenario.prepare(folder)
    return folder


def _job(
    scenario: Scenario, place: Place, folder: Path, stop: Stop | None = None, again: bool = False
) -> Job:
    environment = {
        **place.environment,
        **({"KMMLU_FAST_CACHE": str(folder / "cache")} if scenario.own_cache else {}),
    }
    stop = stop or Stop()
    return Job(
        scenario.verb,
        [*scenario.argv, *(scenario.again if again else [])],
        str(folder),
        stop_at=stop.at,
        stop_with=stop.how,
        stop_after_sec=stop.after_sec,
        max_file_bytes=stop.max_file_bytes,
        flush_rows=scenario.flush_rows,
        environment=environment,
        real=scenario.real,
        drawn=str(place.root / "drawn"),
        timeout_sec=scenario.timeout_sec,
    )


def _difference(wanted: Any, found: Any) -> str:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return ", ".join(str(key) for key in sorted({*wanted, *found}) if wanted.get(key) != found.get(key))[
            :300
        ]
    return f"{str(wanted)[:200]} became {str(found)[:200]}"


def _old_run(folder: Path, place: Place, argv: list[str]) -> None:
    """A finished run, made once; its metrics say that it is the old one."""
    kept = place.root / "old-runs"
    if not kept.exists():
        _run_undisturbed("eval", argv, place, folder)
        for path in (folder / "runs").glob("*/metrics.json"):
            path.write_text(json.dumps({**json.loads(path.read_text()), "old": True}))
        shutil.copytree(folder / "runs", kept)
    shutil.rmtree(folder / "runs", ignore_errors=True)
    shutil.copytree(kept, folder / "runs")


def _finished_run(folder: Path, place: Place, argv: list[str]) -> None:
    """A finished run and its bundle, made once, beside the folder."""
    finished, bundle = place.root / "finished", place.root / "bundle"
    if finished.exists():
        return
    from kmmlu_fast.runs.store import load_run_directory
    from kmmlu_fast.shipping.bundle import make_bundle

    _run_undisturbed("eval", argv, place, folder)
    (run,) = (folder / "runs").glob("*/")
    shutil.move(run, finished)
    bundle.mkdir()
    for name, data in make_bundle(load_run_directory(finished)).items():
        (bundle / name).write_bytes(data)
    shutil.rmtree(folder)
    folder.mkdir()


def _shipped(folder: Path, place: Place) -> None:
    """What ``export`` makes of the adapter, made once."""
    shipped = place.root / "shipped"
    if not shipped.exists():
        argv = [str(place.adapter), "--model", str(place.model), "--out", str(shipped)]
        _run_undisturbed("export", argv, place, folder)


def _run_undisturbed(verb: str, argv: list[str], place: Place, folder: Path) -> None:
    assert place.watcher is not None
    ended = place.watcher.run(Job(verb, argv, str(folder), environment=place.environment))
    if ended.code != 0:
        raise RuntimeError(f"{verb}: ends with {ended.code} undisturbed: {ended.err[-2000:]}")


def _training_rows(root: Path) -> Path:
    path = root / "training.json"
    rows = [
        {"instruction": f"{number} 더하기 {number}은 얼마인가?", "input": "", "output": str(2 * number)}
        for number in range(40)
    ]
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def _own_table(root: Path) -> Path:
    path = root / "own.csv"
    rows = [f"{number} 더하기 1은?,{number},{number + 1},{number + 2},{number + 3},B" for number in range(12)]
    path.write_text("\n".join(["question,A,B,C,D,answer", *rows, ""]), encoding="utf-8")
    return path


def _scores(root: Path) -> Path:
    from kmmlu_fast.data.subjects import SUBJECTS

    path = root / "scores.json"
    rows = [
        {"subject": name, "total": 10, "correct": 3 if name in ("Law", "Math") else 8} for name in SUBJECTS
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def _two_runs(root: Path) -> list[Path]:
    """Two tables' runs over the sample, from a fixed pattern of answers."""
    from kmmlu_fast.data.dataset import load_frame
    from kmmlu_fast.data.subjects import find_subjects

    frame = load_frame("sample", "test", find_subjects(["Law", "Math"]))
    paths = []
    for shift, name in ((0, "base"), (1, "lora")):
        guess = pl.Series([("A", "B", "C", "D")[(row * 7 + shift * 3) % 4] for row in range(len(frame))])
        table = frame.select(
            pl.col("subject").alias("_config"), pl.col("row").alias("_row"), "answer", guess.alias(name)
        )
        paths.append(root / f"{name}.csv")
        table.write_csv(paths[-1])
    return paths
