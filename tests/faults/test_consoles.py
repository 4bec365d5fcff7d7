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

from bench.faults.bending import make_good
from bench.faults.killing import LEAN, Ended, Job, Watcher
from kmmlu_fast.cli import VERBS

C_LOCALE = {"LANG": "C", "LC_ALL": "C"}  # Python takes paths and files for UTF-8 then, on its own
LOCALES = {"": {}, "C": C_LOCALE, "ascii": {**C_LOCALE, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}}
KOREAN = {
    "model": "모델",
    "lora": "조정",
    "runs": "결과",
    "rows": "표본",
    "ids": "겹침",
    "pair": "짝",
    "page": "보고",
}
CONSOLES = ("cp949", "latin-1", "ascii")
SHOWN = {  # what a verb shows on any console
    "eval": "micro",
    "sample": "rows written",
    "leakage": "rows",
    "train": "GiB",
    "compare": "micro",
    "report": "2 runs",
    "plan": "35,030",
    "doctor": "CPU",
    "exams": "kmmlu",
    "install": "pip",
}


# These load models: tests/shipping, improvement; engines/warm and doors/test_serve_engine_door.
ELSEWHERE = {"export", "check", "push", "verify", "improve", "serve-engine"}


class Stage:
    """One command a verb, what it names in Korean (or in ASCII), and the processes that fork for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("model", KOREAN["model"]):
            make_tiny_model(root / name, chat=True)
        make_tiny_adapter(root / "model", root / "adapter", scale=20.0)
        make_good(root / "good")
        for i, name in enumerate(("기본", "조정 [/b]")):
            run_directory(root / f"run{i}", name, predictions(1, skill=0.5 + i))
        self.watchers: dict[str, Watcher] = {}

    def commands(self, called: dict[str, str]) -> dict[str, list[str]]:
        """``called``: what files and adapters are called."""
        name = {key: called.get(key, key) for key in KOREAN}
        runs = [str(self.root / "run0"), str(self.root / "run1"), "--overlap", "none", "--dataset", "none"]
        model = ["--model", str(self.root / name["model"])]
        sample = ["--dataset", "sample"]
        asked = [*model, *sample, "--subjects", "Law,Math", "--output-dir", name["runs"], "--lang", "ko"]
        drawn = ["--from", str(self.root / "good" / "scores.json"), *sample, "--size", "4"]
        page = ["--output", f"{name['page']}.html", "--export", "csv,lm-eval", "--lang", "ko"]
        rows = str(self.root / "good" / "any.jsonl")
        return {
            "eval": [*asked, "--adapter", f"{name['lora']}={self.root / 'adapter'}"],
            "sample": [*drawn, "--out", f"{name['rows']}.jsonl"],
            "leakage": [rows, *sample, "--output", f"{name['ids']}.json"],
            "train": ["--plan", *model],
            "compare": [*runs, "--json-file", f"{name['pair']}.json", "--lang", "ko"],
            "report": [*runs, *page],
            "plan": [],
            "doctor": model,
            "exams": [],
            "install": ["cpu", "--print"],
        }

    def watcher(self, locale: str) -> Watcher:
        if locale not in self.watchers:
            made = Watcher(*LEAN, "transformers", "torch", environment=LOCALES[locale])
            self.watchers[locale] = made
        return self.watchers[locale]

    def run(self, verb: str, locale: str = "", **how: Any) -> tuple[Ended, Path]:
        folder = self.root / "work"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        environment = {"KMMLU_FAST_CACHE": str(self.root / "cache"), "COLUMNS": "100"}
        argv = self.commands({} if locale == "ascii" else KOREAN)[verb]
        drawn = str(self.root / "drawn")
        job = Job(verb, argv, str(folder), environment=environment, drawn=drawn, **how)
        return self.watcher(locale).run(job), folder


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("consoles"))
    yield made
    for watcher in made.watchers.values():
        watcher.__exit__()


def test_every_verb_is_here(stage: Stage) -> None:
    assert set(stage.commands(KOREAN)) == set(SHOWN) == set(VERBS) - ELSEWHERE


def ends_well(verb: str, ended: Ended) -> None:
    """Done (leakage: it may have found some), and nothing of Python's own on stderr."""
    assert ended.code == 0 or (verb, ended.code) == ("leakage", 1), (verb, ended.code, ended.err)
    assert "Traceback" not in ended.err and "error: " not in ended.err and "Error" not in ended.err, ended.err


@pytest.mark.parametrize("encoding", CONSOLES)
@pytest.mark.parametrize("verb", SHOWN)
def test_consoles_of_other_encodings(stage: Stage, verb: str, encoding: str) -> None:
    ended, _ = stage.run(verb, encoding=encoding)
    ends_well(verb, ended)
    assert SHOWN[verb] in ended.out and "\x1b" not in ended.out, ended.out
    assert "\\u2212" not in ended.out and "\\xb7" not in ended.out, "signs of our own have an ASCII form"


@pytest.mark.parametrize("locale", ["C", "ascii"])
@pytest.mark.parametrize("verb", SHOWN)
def test_the_c_locale(stage: Stage, verb: str, locale: str) -> None:
    """The console is ASCII, and so are paths and files to a Python that was told to believe the locale; what
    is written is the same UTF-8.
    """
    ended, folder = stage.run(verb, locale=locale, encoding="ascii")
    ends_well(verb, ended)
    assert SHOWN[verb] in ended.out
    if verb in ("compare", "leakage"):
        [file] = [path for path in folder.iterdir() if path.suffix == ".json"]
        assert json.loads(file.read_text(encoding="utf-8"))
    if verb == "report":
        [page] = folder.glob("*.html")
        assert "기본" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", SHOWN)
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


@pytest.mark.parametrize("verb", SHOWN)
def test_a_reader_that_has_gone_is_told_nothing(stage: Stage, verb: str) -> None:
    ended, _ = stage.run(verb, stdout="gone")
    assert ended.code == 128 + signal.SIGPIPE, (ended.code, ended.err)
    assert "Traceback" not in ended.err and "error: " not in ended.err


@pytest.mark.parametrize("verb", SHOWN)
def test_a_stdout_that_is_full_is_one_line(stage: Stage, verb: str) -> None:
    ended, _ = stage.run(verb, stdout="full")
    assert ended.code == 2 and "Traceback" not in ended.err, ended.err
    assert [line for line in ended.err.splitlines() if line.startswith("error: ")] == [
        "error: disk full: no space left to write to; free space, or write elsewhere, and run the same"
        " command again"
    ]


@pytest.mark.engine
@pytest.mark.alone
def test_training_ends_well_on_every_console(stage: Stage, tmp_path: Path) -> None:
    """Real Unsloth on a tiny model."""
    from kmmlu_fast.data import alpaca, dataset
    from kmmlu_fast.data.subjects import find_subjects

    questions = dataset.load_questions("sample", "train", find_subjects(["Math", "Law", "Biology"]))
    alpaca.write_sft_rows(
        tmp_path / "행.jsonl",
        [alpaca.SftRow(question=question, strategy="uniform") for question in questions],
    )
    flags = [
        "--model",
        str(stage.root / "model"),
        "--data",
        str(tmp_path / "행.jsonl"),
        "--dataset",
        "sample",
    ]
    flags += ["--max-steps", "1", "--effective-batch", "2", "--micro-batch", "2", "--held-out", "2"]
    flags += ["--no-load-in-4bit", "--max-seq-length", "512"]
    environment = {"KMMLU_FAST_CACHE": str(tmp_path / "cache")}
    for locale, consoles in (("", ("cp949", "latin-1", "ascii", "closed", "gone")), ("C", ("ascii",))):
        with Watcher("unsloth", "kmmlu_fast.train", environment=LOCALES[locale]) as watcher:
            for number, console in enumerate(consoles):
                folder = tmp_path / f"{number}{locale}"
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
                # the summary comes last: without a reader the adapter is there all the same
                assert (folder / "어댑터" / "adapter_config.json").exists()
                assert console in ("closed", "gone") or "final loss" in ended.out
