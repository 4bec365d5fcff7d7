"""Runs of several exams compared and reported: above chance, who gained and lost where, and the sentence
about forgetting."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from exam_files import write_jsonl
from made_runs import loaded, predictions, run_directory
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast import compare, report
from kmmlu_fast.analysis.accuracy import (
    above_chance,
    chance_level,
    letter_confusion_table,
    summarise_predictions,
)
from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.exam_comparison import exam_rows, group_runs_by_exam, summarise_exam_changes
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.reporting.wording.exam_text import exam_sentences
from kmmlu_fast.reporting.wording.language import get_translator

SETTINGS = ComparisonSettings()


def five(frame: pl.DataFrame) -> pl.DataFrame:
    """The same answers as if every question had five options."""
    return frame.with_columns(pl.lit(5, dtype=pl.Int32).alias("num_options"))


def of(exam: str, title: str, state: str, frame: pl.DataFrame) -> Any:
    run = loaded(f"{exam}-{state}", frame)
    adapter = None if state == "base" else {"name": state}
    return replace(run, config={"exam": {"name": exam, "title": title, "licence": "x"}, "adapter": adapter})


def runs(kmmlu: float, click: float) -> list[Any]:
    """A base of skill 1 on both, and an adapter with these skills."""
    return [
        of("kmmlu", "KMMLU", "base", predictions(1, 1.0)),
        of("click", "CLIcK", "base", five(predictions(2, 1.0))),
        of("kmmlu", "KMMLU", "lora", predictions(3, kmmlu)),
        of("click", "CLIcK", "lora", five(predictions(4, click))),
    ]


def test_chance_is_per_exam_and_accuracy_is_corrected_for_it() -> None:
    frame = predictions(1).with_columns(pl.Series("num_options", [2, 4] * 100, dtype=pl.Int32))
    assert chance_level(frame) == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert above_chance(0.25, 0.25) == 0 and above_chance(1.0, 0.2) == 1 and above_chance(0.1, 0.2) < 0
    table = letter_confusion_table(five(predictions(1)))
    assert table.columns == ["answer", "A", "B", "C", "D", "E", "unparsed"] and table[
        "answer"
    ].to_list() == list("ABCDE")
    found = summarise_predictions(five(predictions(1))).to_json()
    assert found["baselines"]["uniform"] == pytest.approx(0.2) and found["baselines"]["always_E"] == 0
    assert set(found["answer_letter_share"]) == set("ABCDE") and found["recall"]["E"] is None


def test_forgetting_is_said_where_one_exam_gained_and_another_lost() -> None:
    rows = exam_rows(runs(2.5, 0.0), SETTINGS)
    assert [(row.title, round(row.chance, 6), len(row.states)) for row in rows] == [
        ("KMMLU", 0.25, 2),
        ("CLIcK", 0.2, 2),
    ]
    (change,) = summarise_exam_changes(rows)
    assert (change.state, change.better, change.worse) == ("lora", ("KMMLU",), ("CLIcK",))
    assert exam_sentences(rows, get_translator("en", "report")) == [
        "lora: better on KMMLU, worse on CLIcK: possible forgetting."
    ]
    assert "망각" in exam_sentences(rows, get_translator("ko", "report"))[0]
    base, lora = rows[1].states
    assert base.pair is None and lora.pair is not None and lora.change == -1
    assert lora.corrected == pytest.approx((lora.accuracy - 0.2) / 0.8)
    said = {
        exam_sentences(exam_rows(runs(*skills), SETTINGS), get_translator("en", "report"))[0][6:17]
        for skills in ((1, 1), (2.5, 1), (1, 0))
    }
    assert said == {"no signific", "better on K", "worse on CL"}


def test_a_state_that_was_asked_twice_counts_once_and_the_rest_is_said() -> None:
    once = runs(2.5, 0.0)
    twice = [
        *once,
        of("kmmlu", "KMMLU", "lora", predictions(3, 0.2)),
        of("click", "CLIcK", "base", five(predictions(4, 3))),
    ]
    rows = exam_rows(twice, SETTINGS)
    assert [len(row.states) for row in rows] == [2, 2] and [row.left_out for row in rows] == [1, 1]
    shown, plain = (
        [(state.name, state.accuracy, state.p_holm) for row in table for state in row.states]
        for table in (rows, exam_rows(once, SETTINGS))
    )
    assert shown == plain
    for lang in ("en", "ko"):
        said = exam_sentences(rows, get_translator(lang, "report"))
        assert len(said) == 2 and "2" in said[1] and "--exam" in said[1]


def test_p_values_are_corrected_over_the_exams() -> None:
    rows = exam_rows(runs(1.15, 0.0), SETTINGS)
    pairs = {row.exam: next(s for s in row.states if s.pair) for row in rows}
    raw = sorted(state.pair.micro.p_value for state in pairs.values() if state.pair)
    assert sorted(state.p_holm for state in pairs.values()) == pytest.approx(
        [min(1, 2 * raw[0]), max(2 * raw[0], raw[1])]
    )


def mixed(frame: pl.DataFrame) -> pl.DataFrame:
    """The same answers as if every third question had five options."""
    options = pl.when(pl.col("row") % 3 == 0).then(5).otherwise(4).cast(pl.Int32)
    return frame.with_columns(options.alias("num_options"))


def test_no_letter_split_where_the_number_of_options_differs() -> None:
    alike, other = (
        compare_pair(
            loaded("one", change(predictions(1, 1))), loaded("two", change(predictions(2, 0))), SETTINGS
        )
        for change in (five, mixed)
    )
    assert other.letters is None and other.micro.difference < 0
    assert alike.letters is not None and len(alike.letters.key_shares) == 5
    assert list(group_runs_by_exam(runs(1, 1))) == ["kmmlu", "click"]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """KMMLU's sample and an exam of 2 to 10 options, base and adapter, by a fake engine."""
    root = tmp_path_factory.mktemp("several")
    model = make_tiny_model(root / "base", letters="ABCDEFGHIJ")
    lora = make_tiny_adapter(model, root / "lora")
    rows = [
        {
            "question": f"{i}번째 <b>물음</b>",
            "options": [f"{k}번 답" for k in range(2 + i % 9)],
            "answer": "AB"[i % 2],
            "subject": f"과목 {i % 3}",
        }
        for i in range(60)
    ]
    mixed = write_jsonl(root / "mixed.jsonl", rows)
    argv = [
        "--model",
        str(model),
        "--output-dir",
        str(root / "runs"),
        "--adapter-mode",
        "serve",
        "--adapter",
        str(lora),
    ]
    argv += ["--exam", "kmmlu", "--exam", str(mixed), "--dataset", "sample"]
    found = run_evaluation(
        parse_config(EvalConfig, argv, "eval"), lambda adapters, length, path: FakeEngine()
    )
    return [str(run.path) for run in found]


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_one_report_of_several_exams(lang: str, directories: list[str], tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "report.html"
    assert (
        report.run_report_command(
            [*directories, "--output", str(page), "--lang", lang, "--export", "csv,json,xlsx,lm-eval"]
        )
        == 0
    ), capsys.readouterr()
    html = page.read_text(encoding="utf-8")
    assert 'id="exams"' in html and "mixed" in html and "CC-BY-ND-4.0" in html
    assert ("Exams" if lang == "en" else "시험별 결과") in html
    other = tmp_path / "mixed.html"
    assert (
        report.run_report_command([*directories, "--exam", "mixed", "--output", str(other), "--lang", lang])
        == 0
    )
    html = other.read_text(encoding="utf-8")
    assert "mixed report" in html or "mixed 보고서" in html
    assert "your own" in html and "CC-BY-ND-4.0" not in html.split("<footer")[1]


def test_compare_shows_the_exams_and_the_one_in_focus(
    directories: list[str], tmp_path: Path, capsys: Any
) -> None:
    assert compare.run_compare_command([*directories, "--json-file", str(tmp_path / "all.json")]) == 0
    out = capsys.readouterr().out
    assert "above chance, %" in out and "KMMLU (180)" in out and "mixed (60)" in out
    document = json.loads((tmp_path / "all.json").read_text())
    assert [exam["exam"] for exam in document["exams"]] == ["kmmlu", "mixed"] and len(
        document["comparisons"]
    ) == 1
    assert compare.run_compare_command([*directories[2:]]) == 0
    out = capsys.readouterr().out
    assert "과목" in out and "letter prior" not in out
    assert compare.run_compare_command([*directories, "--exam", "click"]) == 2
    assert "none of the runs is of it; they are of kmmlu, mixed" in capsys.readouterr().err


def test_show_prints_all_options_of_a_question(directories: list[str], capsys: Any) -> None:
    assert report.run_report_command([directories[2], directories[3], "--show", "mixed/test/8"]) == 0
    out = capsys.readouterr().out
    assert "J. 9번 답" in out and "P(J)" in out


def test_old_runs_are_kmmlu_s(tmp_path: Path, capsys: Any) -> None:
    one = run_directory(tmp_path / "a", "base", predictions(1))
    other = run_directory(tmp_path / "b", "lora", predictions(1, 1.5))
    assert compare.run_compare_command([str(one), str(other)]) == 0
    assert "above chance" not in capsys.readouterr().out
