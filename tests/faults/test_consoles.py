"""Every verb on every console: cp949, latin-1, ascii, the C locale, stdout closed, full, or read by nobody.

In forks of a process that has everything imported; the C locale's is started in it. Engines are the fake one;
training is the plan here, and real in the test with the engine mark.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import predictions, run_directory
from tiny import make_tiny_adapter, make_tiny_model

from bench.bending import make_good
from bench.killing import LEAN, Ended, Job, Watcher
from kmmlu_fast.cli import VERBS

C_LOCALE = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
CONSOLES = ("utf-8", "cp949", "latin-1", "ascii")
SHOWN = {  # what a verb shows on any console
    "eval": "run directory: ",
    "sample": "rows",
    "leakage": "rows",
    "train": "GiB",
    "compare": "micro",
    "report": "report",
    "doctor": "this computer",
    "exams": "kmmlu",
    "install": "pip",
}


class Stage:
    """One command a verb, its inputs named in Korean, and the processes that fork for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        model = make_tiny_model(root / "모델", chat=True)
        lora = make_tiny_adapter(model, root / "lora", scale=20.0)
        good = root / "good"
        make_good(good)
        runs = [
            str(run_directory(root / f"run{i}", name, predictions(1, skill=0.5 + i)))
            for i, name in enumerate(("기본", "조정 [/b]"))
        ]
        none = ["--overlap", "none", "--dataset", "none"]
        asked = ["--model", str(model), "--dataset", "sample", "--subjects", "Law,Math"]
        drawn = ["--from", str(good / "scores.json"), "--dataset", "sample", "--size", "4"]
        self.commands: dict[str, list[str]] = {
            "eval": [*asked, "--adapter", f"조정={lora}", "--output-dir", "결과", "--lang", "ko"],
            "sample": [*drawn, "--out", "표본.jsonl"],
            "leakage": [str(good / "any.jsonl"), "--dataset", "sample", "--output", "겹침.json"],
            "train": ["--plan", "--model", str(model)],
            "compare": [*runs, *none, "--json-file", "짝.json", "--lang", "ko"],
            "report": [
                *runs,
                *none,
                "--output",
                "보고.html",
                "--export",
                "csv,lm-eval",
                "--show",
                "--lang",
                "ko",
            ],
            "doctor": ["--model", str(model)],
            "exams": [],
            "install": ["cpu", "--print"],
        }
        self.watchers: dict[str, Watcher] = {}

    def watcher(self, locale: str = "") -> Watcher:
        if locale not in self.watchers:
            environment = C_LOCALE if locale == "C" else None
            self.watchers[locale] = Watcher(*LEAN, "transformers", "torch", environment=environment)
        return self.watchers[locale]

    def run(self, verb: str, locale: str = "", **how: Any) -> tuple[Ended, Path]:
        folder = self.root / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        environment = {"KMMLU_FAST_CACHE": str(self.root / "cache"), "COLUMNS": "100"}
        job = Job(verb, self.commands[verb], str(folder), environment=environment, **how)
        job.drawn = str(self.root / "drawn")
        return self.watcher(locale).run(job), folder


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("consoles"))
    yield made
    for watcher in made.watchers.values():
        watcher.__exit__()


def test_every_verb_is_here(stage: Stage) -> None:
    assert set(stage.commands) == set(SHOWN) == set(VERBS)


def ends_well(verb: str, ended: Ended) -> None:
    """Done (leakage: found some), and nothing of Python's own on stderr."""
    assert ended.code == (1 if verb == "leakage" else 0), (verb, ended.code, ended.err)
    assert "Traceback" not in ended.err and "error: " not in ended.err and "Error" not in ended.err, ended.err


@pytest.mark.parametrize("encoding", CONSOLES)
@pytest.mark.parametrize("verb", VERBS)
def test_consoles_of_other_encodings(stage: Stage, verb: str, encoding: str) -> None:
    ended, _ = stage.run(verb, encoding=encoding)
    ends_well(verb, ended)
    assert SHOWN[verb] in ended.out and "\x1b" not in ended.out, ended.out
    assert "\\u2212" not in ended.out and "\\xb7" not in ended.out, "signs of our own have an ASCII form"


@pytest.mark.parametrize("verb", VERBS)
def test_the_c_locale(stage: Stage, verb: str) -> None:
    """Paths, files and the console are ASCII to Python; what is written is the same UTF-8."""
    ended, folder = stage.run(verb, locale="C", encoding="ascii")
    ends_well(verb, ended)
    assert SHOWN[verb] in ended.out
    if verb in ("compare", "leakage"):
        [file] = folder.glob("*.json")
        assert json.loads(file.read_text(encoding="utf-8"))
    if verb == "report":
        assert "기본" in (folder / "보고.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", VERBS)
def test_stdout_closed_before_the_start(stage: Stage, verb: str) -> None:
    ended, folder = stage.run(verb, stdout="closed")
    ends_well(verb, ended)
    wanted = {
        "eval": "결과/*/metrics.json",
        "sample": "표본.jsonl",
        "report": "보고.html",
        "compare": "짝.json",
    }
    assert verb not in wanted or list(folder.glob(wanted[verb]))


@pytest.mark.parametrize("verb", VERBS)
def test_a_reader_that_has_gone_is_told_nothing(stage: Stage, verb: str) -> None:
    ended, _ = stage.run(verb, stdout="gone")
    assert ended.code == 128 + signal.SIGPIPE, (ended.code, ended.err)
    assert "Traceback" not in ended.err and "error: " not in ended.err


@pytest.mark.parametrize("verb", VERBS)
def test_a_stdout_that_is_full_is_one_line(stage: Stage, verb: str) -> None:
    ended, _ = stage.run(verb, stdout="full")
    assert ended.code == 2 and "Traceback" not in ended.err, ended.err
    assert [line for line in ended.err.splitlines() if line.startswith("error: ")] == [
        "error: disk full: no space left to write to; free space, or write elsewhere, and run the same"
        " command again"
    ]


@pytest.mark.engine
def test_training_ends_well_on_every_console(stage: Stage, tmp_path: Path) -> None:
    """Real Unsloth on a tiny model."""
    from kmmlu_fast.data import dataset, rows
    from kmmlu_fast.data.subjects import find_subjects

    questions = dataset.load_questions("sample", "train", find_subjects(["Math", "Law", "Biology"]))
    rows.write_rows(tmp_path / "행.jsonl", [rows.SftRow(question, "uniform") for question in questions])
    flags = ["--model", str(stage.root / "모델"), "--data", str(tmp_path / "행.jsonl"), "--dataset", "sample"]
    flags += ["--max-steps", "1", "--effective-batch", "2", "--micro-batch", "2", "--held-out", "2"]
    flags += ["--no-load-in-4bit", "--max-seq-length", "512", "--show-rows", "1"]
    environment = {"KMMLU_FAST_CACHE": str(tmp_path / "cache")}
    for locale, consoles in (({}, ("cp949", "latin-1", "ascii", "closed", "gone")), (C_LOCALE, ("ascii",))):
        with Watcher("unsloth", "kmmlu_fast.train", environment=locale) as watcher:
            for number, console in enumerate(consoles):
                folder = tmp_path / f"{number}-{len(locale)}"
                folder.mkdir()
                how = {"stdout": console} if console in ("closed", "gone") else {"encoding": console}
                job = Job(
                    "train", [*flags, "--output-dir", "어댑터"], str(folder), real=True, timeout_sec=400
                )
                job.environment = environment
                for name, value in how.items():
                    setattr(job, name, value)
                ended = watcher.run(job)
                assert ended.code == (141 if console == "gone" else 0), (console, ended.err)
                assert "Traceback" not in ended.err and "error: " not in ended.err
                assert (folder / "어댑터" / "adapter_config.json").exists()
                assert console in ("closed", "gone") or "final loss" in ended.out
