"""Exams of five, and of two to ten options through one real vLLM engine, base and adapter: letters, rotations
and chain of thought in one command each, then compare, the report, and the report in Chromium."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from exam_files import options_of, place_of, write_jsonl
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast import compare, report
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.runs.store import load_run_directory

pytestmark = pytest.mark.engine
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUESTIONS = 36
EXAMS = {"five": [5], "mixed": list(range(2, 11))}


class Shared:
    """An engine that an evaluation may close and the next one still finds open."""

    def __init__(self, engine: VllmEngine) -> None:
        self.generate, self.stats, self.swap = engine.generate, engine.stats, engine.swap

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rounds")
    make_tiny_model(folder / "base", letters="".join(OPTION_LETTERS))
    make_tiny_adapter(folder / "base", folder / "lora")
    for name, counts in EXAMS.items():
        rows = [
            {
                "question": f"{row}번째로 <b>묻는</b> 것은 무엇인가?",
                "options": options_of(row, count := counts[row % len(counts)]),
                "answer": OPTION_LETTERS[place_of(row, count)],
                "subject": ("산수", "국어", "과학")[row % 3],
            }
            for row in range(QUESTIONS)
        ]
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[VllmEngine]:
    opened = VllmEngine(EngineSettings(model=str(root / "base"), dtype="float32", max_model_len=1024))
    yield opened
    opened.close()


def asked(root: Path, engine: VllmEngine, *more: str) -> list[Any]:
    """Base and adapter over both exams, in one command and one engine."""
    argv = ["--model", str(root / "base"), "--adapter", str(root / "lora"), "--adapter-mode", "swap"]
    argv += [flag for name in EXAMS for flag in ("--exam", str(root / f"{name}.jsonl"))]
    argv += ["--dtype", "float32", "--max-model-len", "1024", "--output-dir", str(root / "runs"), *more]
    opened: list[Shared] = []

    def open_shared(adapters: Any, length: int, path: str | None) -> Any:
        assert path is None and not adapters
        opened.append(Shared(engine))
        return opened[-1]

    runs = run_evaluation(parse_config(EvalConfig, argv, "eval"), open_shared)
    assert len(opened) == 1 and len(runs) == 4
    for run in runs:
        counts = EXAMS[run.config["exam"]["name"]]
        assert run.predictions["num_options"].to_list() == [counts[i % len(counts)] for i in range(QUESTIONS)]
    return runs


@pytest.fixture(scope="module")
def letters(root: Path, engine: VllmEngine) -> list[Any]:
    return asked(root, engine)


def test_every_letter_of_every_question_has_a_log_probability(letters: list[Any]) -> None:
    for run in letters:
        four = pl.concat_list(f"logprob_{letter}" for letter in "ABCD").list.drop_nulls()
        known = run.predictions.select(pl.coalesce("option_logprobs", four).alias("all"))["all"]
        assert known.list.len().to_list() == run.predictions["num_options"].to_list()
        assert known.explode().is_finite().all() and run.predictions["prediction"].null_count() == 0
    states = [run.predictions["prediction"].to_list() for run in letters]
    assert states[0] != states[1] and states[2] != states[3]  # the adapter answers otherwise


def test_rotations_show_each_option_under_each_letter(root: Path, engine: VllmEngine) -> None:
    for run in asked(root, engine, "--rotations", "all"):
        frame = run.predictions
        assert frame["debiased_logprobs"].list.len().to_list() == frame["num_options"].to_list()
        assert frame["debiased_prediction"].null_count() == 0
        best = frame["debiased_logprobs"].list.arg_max().to_list()
        assert [OPTION_LETTERS[place] for place in best] == frame["debiased_prediction"].to_list()
        assert frame["debiased_prediction"].to_list() != frame["prediction"].to_list()


def test_chain_of_thought_ends_in_a_letter_that_the_question_has(root: Path, engine: VllmEngine) -> None:
    for run in asked(root, engine, "--output-type", "cot", "--max-tokens", "16"):
        for row in run.predictions.iter_rows(named=True):
            assert row["prediction"] in OPTION_LETTERS[: row["num_options"]] and row["output_tokens"] > 0
        assert run.predictions["forced"].any()


def test_compare_and_one_report_that_a_browser_shows(
    letters: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(run.path) for run in letters]
    assert [load_run_directory(Path(path)).config["exam"]["name"] for path in paths] == ["five"] * 2 + [
        "mixed"
    ] * 2
    assert compare.run_compare_command([*paths, "--lang", "en"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"five \(36\)\s+\S+ \(\S+\)", out) and re.search(r"mixed \(36\)", out)
    page = tmp_path / "report.html"
    assert report.run_report_command([*paths, "--output", str(page), "--lang", "en"]) == 0
    if CHROMIUM is None:
        pytest.skip("needs Chromium (Debian: chromium fonts-noto-cjk)")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", page.as_uri()]
    shown = subprocess.run([CHROMIUM, *flags], capture_output=True, text=True, timeout=120, check=True)
    assert ":CONSOLE" not in shown.stderr, shown.stderr[-2000:]
    table = re.search(r'id="exams".*?</table>', shown.stdout, re.DOTALL)
    assert table is not None
    cells = html.unescape(re.sub(r"<[^>]+>", " ", table[0])).split()
    assert "five" in cells and "mixed" in cells and "36" in cells and "20.0" in " ".join(cells)
    assert "<b>묻는</b>" not in shown.stdout  # a question's text is text
