"""Tables of predictions: any format, any way to write a letter; what holds no letters is no model."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from kmmlu_fast.core.errors import DataError, RunError
from kmmlu_fast.runs.loading import load_run_argument

KEYS, GIVEN = list("BBCD"), list("BACA")


def frame(**columns: Sequence[object]) -> pl.DataFrame:
    return pl.DataFrame({"subject": ["Math"] * 4, "row": range(4), "answer": KEYS, **columns})


def read(path: Path) -> list[tuple[str, list[str | None]]]:
    return [(run.name, run.frame["prediction"].to_list()) for run in load_run_argument(str(path))]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "arrow", "jsonl", "json", "xlsx"])
def test_every_format_is_the_same_table(tmp_path: Path, suffix: str) -> None:
    path, table = tmp_path / f"t.{suffix}", frame(mine=GIVEN)
    if suffix == "arrow":
        table.write_ipc(path)
    elif suffix == "xlsx":
        table.write_excel(path)
    elif suffix == "parquet":
        table.write_parquet(path)
    elif suffix == "jsonl":
        table.write_ndjson(path)
    elif suffix == "json":
        table.write_json(path)
    else:
        table.write_csv(path, separator="\t" if suffix == "tsv" else ",")
    assert read(path) == [("mine", GIVEN)]
    assert load_run_argument(f"{path}:mine")[0].correct == 2


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp949"])
@pytest.mark.parametrize("packed", ["", ".gz", ".xz"])
def test_a_table_is_read_in_any_encoding_and_packed(
    tmp_path: Path, suffix: str, encoding: str, packed: str
) -> None:
    table = frame().rename({"subject": "과목", "row": "번호", "answer": "정답"})
    table = table.with_columns(pl.lit("상법 총칙").alias("비고"), pl.Series("나의 모델", GIVEN))
    separator = "\t" if suffix == "tsv" else ","
    text = table.write_ndjson() if suffix == "jsonl" else table.write_csv(separator=separator)
    path = tmp_path / f"예측.{suffix}{packed}"
    data = text.encode(encoding)
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[packed](data))
    assert read(path) == [("나의 모델", GIVEN)]
    assert load_run_argument(f"{path}:나의 모델")[0].correct == 2


def test_the_models_name_is_the_files_without_its_endings(tmp_path: Path) -> None:
    path = tmp_path / "lora.csv.gz"
    path.write_bytes(gzip.compress(frame(prediction=GIVEN).write_csv().encode()))
    assert read(path) == [("lora", GIVEN)]


@pytest.mark.parametrize("broken", ["cut", "plain", "pointer", "page"])
def test_what_is_no_table_is_named(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "t.csv.gz"
    whole = gzip.compress(frame(mine=GIVEN).write_csv().encode() * 1000)
    path.write_bytes({"cut": whole[:-20], "plain": b"a,b\n1,2\n"}.get(broken, b""))
    if broken in ("pointer", "page"):
        path = tmp_path / "t.csv"
        texts = {"pointer": "version https://git-lfs.github.com/spec/v1\n", "page": "<!DOCTYPE html>\n"}
        path.write_text(texts[broken], encoding="utf-8")
    with pytest.raises(DataError, match=r"cannot be read|Git LFS pointer|web page"):
        load_run_argument(str(path))


def test_columns_without_letters_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    long = ["생각해 보면 답은 B가 맞습니다."] * 4
    frame(
        mine=["(B)", "①", "다", "FILTERED"],
        confidence=[0.5, 0.9, 0.1, 1.0],
        tokens=[1, 2, 3, 812],
        num_options=[4] * 4,
        category=["상법"] * 4,
        gold=KEYS,
        raw=long,
        rarely=["A", "모름", "모르겠다", "글쎄"],
    ).write_csv(path)
    (run,) = load_run_argument(str(path))
    assert (run.name, run.frame["prediction"].to_list()) == ("mine", ["B", "A", "C", None])
    for name in ("confidence", "tokens", "num_options", "category", "gold", "raw", "rarely"):
        assert f"'{name}'" in run.notes[0]
    assert load_run_argument(f"{path}:rarely")[0].frame["prediction"].to_list() == ["A", None, None, None]
    with pytest.raises(RunError, match="column 'raw' holds no letters"):
        load_run_argument(f"{path}:raw")


def test_numbers_beside_letters_are_no_model_and_alone_they_are(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    frame(mine=GIVEN, level=[1, 2, 3, 4]).write_csv(path)
    assert read(path) == [("mine", GIVEN)]
    frame(mine=[2, 1, 3, 1]).write_csv(path)
    assert read(path) == [("mine", GIVEN)]
    frame(mine=["정답 B"] * 4).write_csv(path)
    with pytest.raises(DataError, match="column 'mine' holds no letters"):
        load_run_argument(str(path))


@pytest.mark.parametrize("keep", ["Math,3,D", "Math,3", "Math,3,D,", "Math"])
def test_a_table_cut_in_its_last_row_is_refused(tmp_path: Path, keep: str) -> None:
    path = tmp_path / "t.csv"
    frame(mine=GIVEN).write_csv(path)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: whole.index("Math,3")] + keep, encoding="utf-8")
    with pytest.raises(DataError, match=r"row 3: (has . of the header's 4 columns|the file ends within)"):
        load_run_argument(str(path))
    path.write_text(whole[: whole.index("Math,3")] + "Math,3,D,\n", encoding="utf-8")  # an empty answer
    assert load_run_argument(str(path))[0].frame["prediction"].to_list() == ["B", "A", "C", None]


def test_one_model_per_row_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = {"question_id": ["Law/test/0", "Law/test/1"] * 2, "run": ["a", "a", "b", "b"]}
    pl.DataFrame({**rows, "answer": list("ABAB"), "prediction": list("ABBB")}).write_csv(path)
    assert [(run.name, run.correct) for run in load_run_argument(str(path))] == [("a", 2), ("b", 1)]
    assert load_run_argument(f"{path}:b")[0].frame["subject"].to_list() == ["Law", "Law"]
    path.write_text("question_id,answer,m\nq1,A,A\n", encoding="utf-8")
    with pytest.raises(DataError, match="'q1' is not an id such as Law/test/17"):
        load_run_argument(str(path))


def test_another_exam_s_table_with_its_questions(tmp_path: Path) -> None:
    key = pl.DataFrame(
        {
            "question_id": ["e/test/0", "e/test/1"],
            "subject": ["세무"] * 2,
            "supercategory": ["e"] * 2,
            "split": ["test"] * 2,
            "row": [0, 1],
            "answer": ["E", "A"],
            **{letter: ["가", "나"] for letter in "ABCD"},
            "E": ["마", None],
        }
    )
    path = tmp_path / "t.csv"
    path.write_text("question_id,m\ne/test/0,5\ne/test/1,2\n", encoding="utf-8")
    (run,) = load_run_argument(str(path), key)
    assert run.frame["prediction"].to_list() == ["E", "B"] and run.frame["num_options"].to_list() == [5, 4]
    path.write_text("question_id,answer,m\n가나다/test/0,A,5\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 0: question_id '가나다/test/0' is not in .* such as e/test/0"):
        load_run_argument(str(path), key)


@pytest.mark.parametrize("foreign", ["e/test/9", "Law/test/3"])
def test_one_foreign_id_among_an_exam_s_own_is_the_one_that_is_named(tmp_path: Path, foreign: str) -> None:
    key = pl.DataFrame(
        {
            "question_id": ["e/test/0", "e/test/1"],
            "subject": "세무",
            "supercategory": "e",
            "split": "test",
            "row": [0, 1],
            "answer": ["D", "A"],
        }
    )
    path = tmp_path / "t.csv"
    path.write_text(f"question_id,answer,m\ne/test/0,D,A\n{foreign},B,B\ne/test/1,A,B\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"row 1: question_id '{foreign}' is not in the dataset or exam"):
        load_run_argument(str(path), key)
