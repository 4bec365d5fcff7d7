"""Exports: nothing that came from data or a model may act as a formula, and numbers stay numbers."""

import json
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made_runs import QUICK, found_in, loaded, predictions, questions

from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.core.prediction_frames import predictions_frame
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, OPTION_LETTERS, Prediction
from kmmlu_fast.reporting.config import FORMATS
from kmmlu_fast.reporting.export_names import EXPORT_MODULES
from kmmlu_fast.reporting.files.csv_tables import escape_formula, write_csv_tables
from kmmlu_fast.reporting.files.export_formats import find_export_format
from kmmlu_fast.reporting.files.exports import write_exports
from kmmlu_fast.reporting.files.spreadsheet import write_xlsx
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.runs.loading import load_run_argument
from kmmlu_fast.runs.run import Run, count_subject_scores


@pytest.fixture
def runs() -> list[Run]:
    return [
        loaded("=1+1", predictions(1, text="=cmd|' /C calc'!A0")),
        loaded("@lora", predictions(2, skill=1.2, text="정답: B")),
    ]


def test_safe_text() -> None:
    assert [escape_formula(value) for value in ("=1+1", "+1", "-1", "@x", "\tx", "plain", "", None)] == [
        "'=1+1",
        "'+1",
        "'-1",
        "'@x",
        "'\tx",
        "plain",
        "",
        None,
    ]


def test_csv_has_a_bom_and_no_formula(runs: list[Run], tmp_path: Path) -> None:
    files = write_csv_tables(found_in(runs, questions(runs[0].frame, text="=1+1")), tmp_path)
    assert [file.name for file in files] == [
        "subjects.csv",
        "predictions.csv",
        "questions.csv",
        "errors.csv",
        "error_profile.csv",
        "confident_errors.csv",
        "changes.csv",
    ]
    for file in files:
        assert file.read_bytes().startswith(b"\xef\xbb\xbf")
        frame = pl.read_csv(file, infer_schema=False)
        for name in frame.columns:
            texts = [value for value in frame[name] if value and value[0] in "=+@\t"]
            assert not texts, (file.name, name, texts[:1])
    frame = pl.read_csv(files[1], infer_schema_length=None)
    assert frame["run"].unique().sort().to_list() == ["'=1+1", "'@lora"]
    assert "question" not in frame.columns and frame["text"][0].startswith("'=cmd")
    asked = pl.read_csv(files[2])
    assert asked["question"][0] == "'=1+1 (0)" and len(asked) == len(runs[0].frame)  # once, not once a run
    assert (
        frame["logprob_A"].dtype == pl.Float64 and (frame["logprob_A"] < 0).all()
    )  # a negative number is no formula


def test_xlsx_cells_are_typed_and_coloured(runs: list[Run], tmp_path: Path) -> None:
    path = write_xlsx(found_in(runs), "en", tmp_path / "r.xlsx")
    with zipfile.ZipFile(path) as book:
        sheets = [
            book.read(name).decode() for name in book.namelist() if name.startswith("xl/worksheets/sheet")
        ]
        assert len(sheets) == 5 and sum(name.startswith("xl/charts/chart") for name in book.namelist()) == 2
        assert not any("<f>" in sheet or "<hyperlink" in sheet for sheet in sheets)
        assert any("colorScale" in sheet for sheet in sheets) and any("dataBar" in sheet for sheet in sheets)
        assert "0.00%" in book.read("xl/styles.xml").decode()
    totals = pl.read_excel(path, sheet_name="Totals")
    assert totals["Run"].to_list() == ["=1+1", "@lora"]
    assert totals["Accuracy (micro)"][0] == pytest.approx(runs[0].frame["correct"].mean())
    subjects = pl.read_excel(path, sheet_name="Subjects")
    assert len(subjects) == 8 and subjects["Korean name"][0] == "회계"
    changes = pl.read_excel(path, sheet_name="Changes")
    found = compare_pair(runs[0], runs[1], QUICK).subjects["difference"]
    assert changes["Difference"].to_list() == pytest.approx(found.sort(descending=True).to_list())


def test_score_files_export_too(tmp_path: Path) -> None:
    scores = pl.DataFrame({"subject": ["Law"], "supercategory": ["HUMSS"], "correct": [3], "total": [4]})
    run = Run(name="old", kind="scores", source="old.json", predictions=None, scores=scores)
    written = write_exports(
        ["csv", "xlsx", "json", "lm-eval"], found_in([run]), get_translator("en"), tmp_path
    )
    assert sorted(path.name for path in written) == ["report.json", "report.xlsx", "subjects.csv"]


def test_json_and_lm_eval(runs: list[Run], tmp_path: Path) -> None:
    found = found_in(runs, questions(runs[0].frame))
    written = write_exports(["json", "lm-eval"], found, get_translator("en"), tmp_path)
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert document["comparisons"][0]["verdict"] and len(document["runs"]) == 2
    again = load_run_argument(str(written[1].parent))[0]
    assert again.name == "=1+1" and again.frame["correct"].sum() == runs[0].frame["correct"].sum()
    sample = json.loads(
        next(written[1].parent.glob("samples_kmmlu_law_*")).read_text(encoding="utf-8").splitlines()[0]
    )
    assert (
        sample["doc"]["question"].startswith("다음 중")
        and sample["doc"]["answer"] in (1, 2, 3, 4)
        and sample["doc"]["Category"] == "Law"
    )


def own_exam(counts: tuple[int, ...] = (2, 5, 10)) -> Run:
    """A run over an exam of two to ten options, whose subjects are no file names."""
    rows = []
    for row in range(12):
        count = counts[row % len(counts)]
        values = [-1.0 - place / 10 for place in range(count)]
        values[row % count] = -0.1
        answer, prediction = OPTION_LETTERS[count - 1], OPTION_LETTERS[row % count]
        subject = ("회계/세무", "../etc", "a:b*?")[row % 3]
        rows.append(
            Prediction(
                question_id=f"mine/test/{row}",
                subject=subject,
                supercategory=("회계/세무", "다른 것")[row % 2],
                split="test",
                row=row,
                answer=answer,
                prediction=prediction,
                correct=prediction == answer,
                read_by="loglikelihood",
                **dict(zip(LOGPROB_COLUMNS, values, strict=False)),  # type: ignore[arg-type]
                option_logprobs=values if count > 4 else None,
                num_options=count,
            )
        )
    frame = predictions_frame(rows)
    exam = {"name": "mine", "title": "내 시험", "licence": "CC0"}
    return Run(
        name="own",
        kind="run",
        source="own",
        predictions=frame,
        scores=count_subject_scores(frame),
        facts={"exam": "mine", "model": "m"},
        config={"exam": exam},
    )


@pytest.mark.parametrize("with_texts", [True, False])
@pytest.mark.parametrize("name", ["lm-eval", "inspect"])
def test_any_exam_comes_back_from_the_formats_of_others(tmp_path: Path, name: str, with_texts: bool) -> None:
    run = own_exam()
    written = write_exports([name], found_in([run]), get_translator("en"), tmp_path, with_texts=with_texts)
    (again,) = load_run_argument(str(written[0]))
    assert (again.exam, again.exam_title, again.licence) == ("mine", "내 시험", "CC0")
    both = again.frame.sort("row"), run.frame.sort("row")
    for column in (
        "question_id",
        "subject",
        "supercategory",
        "answer",
        "prediction",
        "correct",
        "num_options",
    ):
        assert both[0][column].equals(both[1][column]), column
    assert both[0]["logprob_B"].equals(both[1]["logprob_B"])
    assert both[0]["option_logprobs"].equals(both[1]["option_logprobs"])
    inside = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(tmp_path / name) for path in inside)
    if name == "lm-eval":
        assert len(inside) == 4 and any("회계-세무" in path.name for path in inside)


def test_an_lm_eval_export_is_whole_or_nothing(runs: list[Run], tmp_path: Path, monkeypatch: Any) -> None:
    def fails(row: dict[str, Any], *_: Any) -> dict[str, Any]:
        if row["subject"] == "Math":
            raise OSError("no space left")
        return {}

    monkeypatch.setattr("kmmlu_fast.runs.lm_eval_export._sample_record", fails)
    with pytest.raises(OSError, match="no space"):
        write_exports(["lm-eval"], found_in(runs), get_translator("en"), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_formats_are_one_registry(tmp_path: Path) -> None:
    for name in EXPORT_MODULES:
        export = find_export_format(name)
        assert export.name == name and all(path.is_relative_to(tmp_path) for path in export.paths(tmp_path))
    assert set(FORMATS) == set(EXPORT_MODULES)


def test_lm_eval_makes_its_own_table_of_it(runs: list[Run], tmp_path: Path) -> None:
    pytest.importorskip("chardet", reason="needs lm-eval (requirements/bench.txt)")
    utils = pytest.importorskip("lm_eval.utils", reason="needs lm-eval (requirements/bench.txt)")
    written = write_exports(["lm-eval"], found_in(runs), get_translator("en"), tmp_path)
    table = utils.make_table(json.loads(written[0].read_text(encoding="utf-8")))
    assert "kmmlu_law" in table and f"{runs[0].micro:.4f}" in table
    assert "|acc" in table.replace(" ", "")


def test_without_texts_there_are_none(runs: list[Run], tmp_path: Path) -> None:
    asked = questions(runs[0].frame, text="본문")
    told = [
        Run(
            name=run.name,
            kind="run",
            source=run.source,
            predictions=run.frame.with_columns(texts=pl.lit(["풀이"])),
            scores=run.scores,
        )
        for run in runs
    ]
    formats = ["csv", "csv.gz", "parquet", "json", "lm-eval"]
    for with_texts in (True, False):
        folder = tmp_path / str(with_texts)
        written = write_exports(
            formats, found_in(told, asked), get_translator("en"), folder, with_texts=with_texts
        )
        assert ((folder / "questions.parquet") in written) is with_texts
        everything = b"".join(
            path.read_bytes() for path in folder.rglob("*") if path.suffix in (".csv", ".jsonl", ".json")
        )
        assert ("본문".encode() in everything) is with_texts and ("풀이".encode() in everything) is with_texts
    small, large = (tmp_path / "True" / f"predictions.csv{kind}" for kind in (".gz", ""))
    assert small.stat().st_size < large.stat().st_size / 2
    assert pl.read_csv(small).equals(pl.read_csv(large))


def test_xlsx_speaks_korean(runs: list[Run], tmp_path: Path) -> None:
    path = write_xlsx(found_in(runs), "ko", tmp_path / "r.xlsx")
    changes = pl.read_excel(path, sheet_name="과목별 변화")
    assert (
        changes.columns[:4] == ["기준", "비교", "과목", "영문 이름"]
        and "Accounting" in changes["영문 이름"].to_list()
    )
    summary = "\n".join(
        str(value) for value in pl.read_excel(path, sheet_name="요약", has_header=False)[:, 0]
    )
    assert "읽는 법" in summary and ("사이에" in summary or "낫습니다" in summary)
