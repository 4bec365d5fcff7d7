"""KMMLU on disk, as ``datasets`` and the hub lay it out: the same questions, whatever holds them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.dataset import load_frame, read_frame, split_files
from kmmlu_fast.data.subjects import find_subjects

LAW = find_subjects(["Law"])
HEAD = {"A": "가", "B": "나", "C": "다", "D": "라", "Category": "Law"}


def table(first: int, count: int = 2) -> pl.DataFrame:
    rows = [{"question": f"{i}번 물음?", "answer": i % 4 + 1, **HEAD} for i in range(first, first + count)]
    return pl.DataFrame(rows)


def write_arrow(frame: pl.DataFrame, path: Path) -> None:
    frame.write_ipc_stream(path)


@pytest.mark.parametrize(
    "names",
    [
        ["Law/test/0000.parquet", "Law/test/0001.parquet"],
        ["Law/kmmlu-test.parquet"],
        ["Law/test-00000-of-00002.parquet", "Law/test-00001-of-00002.parquet"],
        ["law/test/data-00000-of-00002.arrow", "law/test/data-00001-of-00002.arrow"],
        ["HAERAE-HUB___kmmlu/Law/0.0.0/abc/kmmlu-test.arrow"],
        ["data/Law-test.csv"],
        ["snapshots/abc/data/Law-test.csv"],
    ],
)
def test_layouts_of_the_hub_and_of_datasets(tmp_path: Path, names: list[str]) -> None:
    for place, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = table(2 * place, 2 if len(names) > 1 else 4)
        if path.suffix == ".csv":
            frame.write_csv(path)
        elif path.suffix == ".arrow":
            write_arrow(frame, path)
        else:
            frame.write_parquet(path)
        other = path.with_name(path.name.replace("test", "train"))
        if other != path:  # another split beside it is not read
            other.write_bytes(path.read_bytes())
    frame = load_frame(str(tmp_path), "test", LAW)
    assert frame["question"].to_list() == [f"{i}번 물음?" for i in range(4)]
    assert frame["question_id"].to_list() == [f"Law/test/{i}" for i in range(4)]
    assert frame["answer"].to_list() == ["A", "B", "C", "D"]


def whole_table() -> pl.DataFrame:
    """Two subjects, mixed, one of them spelt in two ways."""
    names = ["Law", "Criminal Law", "law", "criminal-law"]
    rows = [
        {"question": f"{i}번 물음?", "answer": i + 1, **HEAD, "Category": name}
        for i, name in enumerate(names)
    ]
    return pl.DataFrame(rows)


@pytest.mark.parametrize(
    "names",
    [
        ["test.csv"],
        ["kmmlu-test.parquet"],
        ["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"],
        ["test/data-00000-of-00001.arrow"],
        ["all/test/0000.parquet"],
    ],
)
def test_one_table_with_all_subjects(tmp_path: Path, names: list[str]) -> None:
    frame = whole_table()
    for place, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = frame.slice(place * 2, 2) if len(names) > 1 else frame
        if path.suffix == ".csv":
            part.write_csv(path)
        elif path.suffix == ".arrow":
            write_arrow(part, path)
        else:
            part.write_parquet(path)
    read = load_frame(str(tmp_path), "test", find_subjects(["Law", "Criminal-Law"]))
    assert dict(read.select("question_id", "question").iter_rows()) == {
        "Law/test/0": "0번 물음?",
        "Law/test/1": "2번 물음?",
        "Criminal-Law/test/0": "1번 물음?",
        "Criminal-Law/test/1": "3번 물음?",
    }
    assert load_frame(str(tmp_path), "test", LAW)["question_id"].to_list() == ["Law/test/0", "Law/test/1"]
    assert [path.name for path in split_files(str(tmp_path), "test").value] == [
        Path(name).name for name in names
    ]


def test_the_table_itself_and_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "kmmlu.parquet"
    whole_table().write_parquet(path)
    assert load_frame(str(path), "test", LAW)["row"].to_list() == [0, 1]
    with pytest.raises(DataError, match="one table of another split than dev"):
        load_frame(str(path), "dev", LAW)
    with pytest.raises(DataError, match=r"no questions of Accounting, .*; name the others with --subjects"):
        load_frame(str(path), "test")
    whole_table().drop("Category").write_parquet(path)
    with pytest.raises(DataError, match="no column Category that tells them apart"):
        load_frame(str(path), "test", LAW)
    whole_table().with_columns(pl.lit("Lore").alias("Category")).write_parquet(path)
    with pytest.raises(DataError, match=r"column Category: unknown subject 'Lore': allowed are"):
        load_frame(str(path), "test", LAW)
    broken = whole_table().with_columns(pl.when(pl.col("answer") == 3).then(9).otherwise(1).alias("answer"))
    broken.write_parquet(path)
    with pytest.raises(DataError, match=r"kmmlu.parquet \(Law\) row 1: answer '9' is not allowed"):
        load_frame(str(path), "test", LAW)
    two = tmp_path / "two"
    two.mkdir()
    for name in ("test.csv", "kmmlu-test.csv"):
        whole_table().write_csv(two / name)
    with pytest.raises(DataError, match="both look like its test split"):
        load_frame(str(two), "test", LAW)


def test_faults_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nor test files in folders called like subjects"):
        load_frame(str(tmp_path), "test", LAW)
    for name in ("one/Law/test/0000.parquet", "two/Law/test/0000.parquet"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        table(0).write_parquet(path)
    with pytest.raises(DataError, match="a second file for Law besides 0000"):
        load_frame(str(tmp_path), "test", LAW)
    with pytest.raises(DataError, match="no test file for Math"):
        load_frame(str(tmp_path / "one"), "test", find_subjects(["Math"]))
    (tmp_path / "one/Law/test/0000.parquet").write_bytes(b"PAR1 not whole")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_frame(str(tmp_path / "one"), "test", LAW)


def test_whole_numbers_as_pandas_writes_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table(0).with_columns(pl.col("answer").cast(pl.Float64)).write_csv(tmp_path / "data" / "Law-test.csv")
    assert load_frame(str(tmp_path), "test", LAW)["answer"].to_list() == ["A", "B"]
    table(0).with_columns(answer=pl.lit(1.5)).write_csv(tmp_path / "data" / "Law-test.csv")
    with pytest.raises(DataError, match=r"answer '1\.5' is not allowed"):
        read_frame(str(tmp_path), "test", LAW)
