"""KMMLU on disk, as ``datasets`` and the hub lay it out: the same questions, whatever holds them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.dataset import load_frame, read_frame
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
