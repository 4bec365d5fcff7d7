"""The same rows out of every kind of file, and the true reason for what cannot be read."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import logging
import lzma
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.file_formats import iter_file_rows

ROWS = [{"instruction": f"{word}을 쓰시오.", "output": f"네, {word}"} for word in ("연필", "지우개", "공책")]


def read(path: Path) -> list[dict[str, Any]]:
    rows = []
    for _, row in iter_file_rows(path):
        if isinstance(row, DataError):
            raise row
        rows.append(row)
    return rows


def json_lines() -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def csv_text(separator: str = ",") -> str:
    lines = [separator.join(f'"{row[name]}"' for name in row) for row in ROWS]
    return "\r\n".join([separator.join(ROWS[0]), *lines, ""])


def zstd(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    return bytes(zstandard.compress(data))


def arrow_stream() -> bytes:
    file = io.BytesIO()
    pl.DataFrame(ROWS).write_ipc_stream(file)
    return file.getvalue()


def feather() -> bytes:
    file = io.BytesIO()
    pl.DataFrame(ROWS).write_ipc(file)
    return file.getvalue()


def pandas_json(orient: str) -> str:
    names = list(ROWS[0])
    by_orient: dict[str, Any] = {
        "columns": {name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in names},
        "index": {str(i): row for i, row in enumerate(ROWS)},
        "split": {"columns": names, "index": [0, 1, 2], "data": [list(row.values()) for row in ROWS]},
        "list": {name: [row[name] for row in ROWS] for name in names},
        "table": {"schema": {"fields": []}, "data": ROWS},
    }
    return json.dumps(by_orient[orient], ensure_ascii=False, indent=1)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.jsonl.gz", lambda: gzip.compress(json_lines().encode())),
        ("a.jsonl.bz2", lambda: bz2.compress(json_lines().encode())),
        ("a.ndjson.xz", lambda: lzma.compress(json_lines().encode())),
        ("a.jsonl.zst", lambda: zstd(json_lines().encode())),
        ("a.csv.gz", lambda: gzip.compress(csv_text().encode())),
        ("a.json", lambda: json_lines().encode()),
        ("b.jsonl", lambda: json_lines().replace("\n", ",\n").encode()),
        ("c.jsonl", lambda: ("\ufeff\n" + json_lines()).encode()),
        ("d.jsonl", lambda: json_lines().encode("cp949")),
        ("e.jsonl", lambda: json_lines().encode("utf-16")),
        ("f.jsonl", lambda: json_lines().encode("utf-16-le")),
        ("g.csv", lambda: csv_text().encode("cp949")),
        ("h.csv", lambda: csv_text("\t").encode("utf-16")),
        ("i.csv", lambda: csv_text(";").encode("utf-8-sig")),
        ("j.tsv", lambda: csv_text("\t").encode()),
        ("k.tsv", lambda: csv_text(",").encode()),
        ("l.arrow", arrow_stream),
        ("m.feather", feather),
        *[
            (f"pandas-{orient}.json", lambda orient=orient: pandas_json(orient).encode())
            for orient in ("columns", "index", "split", "list", "table")
        ],
    ],
)
def test_the_same_rows_out_of_every_kind_of_file(name: str, make: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(make())
    assert read(tmp_path / name) == ROWS


def test_an_excel_sheet(tmp_path: Path) -> None:
    pytest.importorskip("fastexcel")
    pl.DataFrame(ROWS).write_excel(tmp_path / "a.xlsx")
    assert read(tmp_path / "a.xlsx") == ROWS


def test_what_is_not_utf8_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_bytes(csv_text().encode("cp949"))
    with caplog.at_level(logging.INFO, logger="kmmlu_fast"):
        read(tmp_path / "a.csv")
    assert [r.getMessage() for r in caplog.records] == [
        f'note: {tmp_path / "a.csv"}: read as CP949 (Excel\'s "CSV"); save it as "CSV UTF-8" to be sure'
    ]


def test_a_broken_byte_in_utf8_is_no_reason_to_guess(tmp_path: Path) -> None:
    data = json_lines().encode().replace("지우개".encode(), "지우개".encode()[:-1])
    (tmp_path / "a.jsonl").write_bytes(data)
    rows = [row for _, row in iter_file_rows(tmp_path / "a.jsonl")]
    assert rows[0] == ROWS[0] and rows[2] == ROWS[2]  # the others can still be read
    assert "row 2: is not UTF-8 text" in str(rows[1])


def test_nan_is_an_empty_cell_in_json_and_in_tables(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": NaN, "b": [NaN, 1], "c": 1e9999}\n', encoding="utf-8")
    assert read(tmp_path / "a.jsonl") == [{"a": None, "b": [None, 1], "c": float("inf")}]
    pl.DataFrame({"a": [1.0, float("nan")]}).write_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [{"a": 1.0}, {"a": None}]


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        ("a.csv", b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        ("a.jsonl.gz", b"not packed", "cannot be read"),
        ("a.jsonl", b'{"a": "\\ud800"}\n', "row 1: holds half a character"),
        ("a.jsonl", b"[1, 2]\n", "row 1: is a int, not a JSON object"),
        ("a.json", b'{"x": {"y": 1}, "z": 2}', "is one JSON object; expected a list"),
        ("a.csv", b"a,b\n1,2\n3\n", "row 2: does not have the header's 2 columns"),
        ("a.parquet.gz", gzip.compress(b"PAR1", mtime=0), "unpack it first"),
        ("a.arrow", b"ARROW1 not really", "cannot be read as Arrow"),
        ("a.docx", b"x", "unknown extension '.docx'"),
    ],
)
def test_the_true_reason_is_given(name: str, data: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and fault in str(caught.value)


def test_a_packed_file_that_ends_too_soon_is_not_taken_for_whole(tmp_path: Path) -> None:
    packed = gzip.compress(json_lines().encode())
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) - 12])
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "a.jsonl.gz")
