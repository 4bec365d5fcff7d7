"""What goes wrong, in the report, its exports and the API: sorts of error and of question, errors by id."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest
from made_runs import found_in, loaded, predictions, questions, run_directory

from kmmlu_fast import DataError, RunError, find_confident_errors, profile_errors
from kmmlu_fast.analysis.error_profile import confident_errors, error_profile
from kmmlu_fast.core.schema import LOGPROB_COLUMNS
from kmmlu_fast.reporting.files.exports import write_exports
from kmmlu_fast.reporting.html.page import render_report
from kmmlu_fast.reporting.wording.language import get_translator, text_table
from kmmlu_fast.runs.run import Run

STEM = "다음 중 <b>옳지</b> 않은 것은?"


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [
        loaded("base", predictions(1, skill=0.5, unparsed=0.1)),
        loaded("lora", predictions(2, skill=1.2)),
    ]


@pytest.fixture(scope="module")
def asked(runs: list[Run]) -> pl.DataFrame:
    """Questions of different lengths."""
    longer = pl.concat_str("question", pl.lit("가").repeat_by("row").list.join(""))
    return questions(runs[0].frame, text=STEM).with_columns(question=longer)


@pytest.fixture(scope="module")
def page(runs: list[Run], asked: pl.DataFrame) -> dict[str, str]:
    """The report in both languages, as one page holds them."""
    shown, _, rest = render_report(found_in(runs, asked), "en").partition('<template id="other"')
    return {"en": shown, "ko": rest.partition("</template>")[0]}


def section_of(html: str) -> str:
    found = re.search(r'<section id="errors">.*?</section>', html, re.DOTALL)
    assert found, "the report has no section on errors"
    return found[0]


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_report_says_what_goes_wrong(
    page: dict[str, str], runs: list[Run], asked: pl.DataFrame, lang: str
) -> None:
    part, words = section_of(page[lang]), text_table("report", lang)
    assert '<a href="#errors">' + words["errors_section"] + "</a>" in page[lang]
    for run in runs:
        wrong = run.total - run.correct
        assert f">{wrong:,} ({100 * wrong / run.total:.1f})</td>" in part
    assert words["feature_length"] in part and words["value_longest"] in part
    longest = error_profile(runs[1].frame, asked).filter(pl.col("value") == "longest quarter")
    accuracy = 100 * longest["accuracy"].item()
    assert f">{accuracy:.1f}</span>" in part
    assert part.count("<tr>") > 2 * 4 + 20  # two states of four subjects, and the errors by id


def test_confident_errors_are_ids_that_open_their_question(page: dict[str, str], runs: list[Run]) -> None:
    part = section_of(page["en"])
    surest = confident_errors(runs[1].frame, 20)["question_id"].to_list()
    assert re.findall(r'<a href="#([^"]+)">', part) == surest and len(surest) == 20
    assert "&lt;b&gt;옳지&lt;/b&gt;" in part and "<b>옳지" not in part


def test_without_texts_there_are_ids_and_no_texts(runs: list[Run], asked: pl.DataFrame) -> None:
    part = section_of(render_report(found_in(runs, asked), "en", with_texts=False))
    assert "옳지" not in part and "Law/test/" in part and "longest quarter" in part


def test_letters_alone_have_no_confident_errors_but_their_sorts(runs: list[Run]) -> None:
    nothing = {name: pl.lit(None, pl.Float64) for name in ("margin", "confidence", *LOGPROB_COLUMNS)}
    bare = [loaded(run.name, run.frame.with_columns(**nothing)) for run in runs]
    part = section_of(render_report(found_in(bare), "en"))
    assert (
        "surest" not in part
        and "by log-probability" not in part
        and "confident</button>" not in part
        and "unparsed</button>" in part
    )
    scores = Run(name="old", kind="scores", source="old.json", predictions=None, scores=runs[0].scores)
    assert '<section id="errors">' not in render_report(found_in([scores]), "en")


def test_exports_hold_them_without_texts_too(runs: list[Run], asked: pl.DataFrame, tmp_path: Path) -> None:
    write_exports(
        ["csv", "parquet", "json"], found_in(runs, asked), get_translator("en"), tmp_path, with_texts=False
    )
    for name in ("errors", "error_profile", "confident_errors"):
        frame = pl.read_parquet(tmp_path / f"{name}.parquet")
        assert set(frame["run"]) == {"base", "lora"} and len(frame) == len(
            pl.read_csv(tmp_path / f"{name}.csv")
        )
        assert STEM not in (tmp_path / f"{name}.csv").read_text(encoding="utf-8")
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["errors"]
    assert sum(row["errors"] for row in document["errors"] if row["run"] == "lora") == (
        runs[1].total - runs[1].correct
    )
    assert {row["feature"] for row in document["error_profile"]} >= {"length", "negation", "figure"}


def test_the_api_gives_the_same_frames(tmp_path: Path) -> None:
    run = run_directory(tmp_path / "base", "base", predictions(1, skill=0.5))
    by_subject = profile_errors(run, by="subject")
    assert by_subject["subject"].to_list() == ["Accounting", "Computer-Science", "Law", "Math"]
    frame = predictions(1, skill=0.5)
    assert by_subject["errors"].sum() == int((~frame["correct"]).sum())
    assert find_confident_errors(run, limit=3).equals(confident_errors(frame, 3))
    with pytest.raises(DataError, match="the texts of its questions are not known"):
        profile_errors(run)
    found = profile_errors(run, dataset="sample")
    assert {"feature", "value", "accuracy"} <= set(found.columns)
    scores = tmp_path / "old.csv"
    scores.write_text("subject,correct,total\nLaw,30,60\n", encoding="utf-8")
    with pytest.raises(RunError, match="scores by subject only"):
        find_confident_errors(scores)
