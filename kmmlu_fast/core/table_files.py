"""Reading untrusted tables: CSV, Parquet, Arrow and Excel. Any bytes give a frame or one error.

In: a path and the error class to raise. Out: polars frames. Sizes are bounded, duplicate column names and
files that end within a row are refused. File names are never treated as patterns. Knows nothing of what the
columns mean.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections import deque
from pathlib import Path

import polars as pl

from kmmlu_fast.core.errors import InstallError, RunError
from kmmlu_fast.core.reading import MAX_TEXT_BYTES, Raised, first_duplicate, read_bytes
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line

MAX_TABLE_BYTES = 4 << 30
MAX_TABLE_CELLS = 2_000_000_000
MAX_COLUMNS = 10_000


def read_csv(
    path: Path, raised: Raised = RunError, *, lossy: bool = False, separator: str = ","
) -> pl.DataFrame:
    """A CSV file, every column a string, empty cells null; a row with fewer cells than the header is refused,
    as the end of a cut file is one. ``lossy``: bytes that are not UTF-8 become U+FFFD instead of an error.
    """
    data = read_bytes(path, raised, MAX_TABLE_BYTES)
    try:
        text = data.decode("utf-8-sig", "replace" if lossy else "strict")
    except UnicodeDecodeError as error:
        raise raised(f"{path}: is not UTF-8 text (byte {error.start:,}); save it as UTF-8 CSV") from error
    return parse_csv(text, path, raised, separator)


def parse_csv(text: str, path: Path, raised: Raised = RunError, separator: str = ",") -> pl.DataFrame:
    """The text of a CSV file as ``read_csv`` reads it."""
    if "\0" in text:
        raise raised(f"{path}: contains NUL bytes, so it is not CSV text; save it as UTF-8 CSV")
    data = text.encode()
    try:
        head = pl.read_csv(
            io.BytesIO(data),
            has_header=False,
            n_rows=1,
            infer_schema=False,
            glob=False,
            separator=separator,
        )
        names = [str(name or "") for name in head.row(0)] if len(head) else []
        if len(names) > MAX_COLUMNS:
            raise raised(
                f"{path}: has {len(names):,} columns; at most {MAX_COLUMNS:,} are read; give a table with one"
                " row per record"
            )
        duplicate = first_duplicate(filter(None, names))
        if duplicate is not None:
            raise raised(
                f"{path}: has two columns {bounded_repr(duplicate)}; keep one, or the wrong one would be read"
            )
        frame = pl.read_csv(io.BytesIO(data), infer_schema=False, glob=False, separator=separator)
    except pl.exceptions.NoDataError as error:
        raise raised(f"{path}: is empty; expected a line of column names and rows") from error
    except BaseException as error:
        raise _translate_polars_error(error, path, "CSV", raised) from error
    if frame.width > 1 and frame[:, -1].null_count():  # polars fills short rows with nulls
        _refuse_short_rows(text, frame.width, separator, path, raised)
    if _is_cut_in_last_row(text, frame.width, separator):
        raise raised(
            f"{path} row {len(frame) - 1}: the file ends within its last row; copy the whole file again (or,"
            " if it is whole, end it with a line break)"
        )
    return frame


def _refuse_short_rows(text: str, width: int, separator: str, path: Path, raised: Raised) -> None:
    csv.field_size_limit(2**31 - 1)
    cells_by_row = [len(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
    for number, cells in enumerate(cells_by_row[1:]):
        if cells < width:
            is_last = number == len(cells_by_row) - 2
            why = "the file is cut off there: give the whole file" if is_last else "complete the row"
            raise raised(f"{path} row {number}: has {cells} of the header's {width} columns; {why}")


def _is_cut_in_last_row(text: str, columns: int, separator: str) -> bool:
    """Whether a CSV text has no final line break and its last row lacks cells or ends in an empty one: polars
    would read nulls.
    """
    if text.endswith(("\n", "\r")) or columns < 2:
        return False
    last = text[text.rfind("\n") + 1 :]
    # An odd number of quotes: the line begins inside a quoted cell.
    source = io.StringIO(text if last.count('"') % 2 else last, newline="")
    try:
        cells = deque(csv.reader(source, delimiter=separator), maxlen=1)[0]
    except (csv.Error, IndexError):  # told by polars, in its words
        return False
    return len(cells) < columns or not cells[-1]


def read_parquet(
    path: Path,
    raised: Raised = RunError,
    *,
    schema: pl.Schema | None = None,
    columns: list[str] | None = None,
    optional: tuple[str, ...] = (),
) -> pl.DataFrame:
    """A Parquet file. With ``schema``, it must have these columns and types (except those in ``optional``);
    other columns are left out.
    """
    data = read_bytes(path, raised, MAX_TABLE_BYTES)
    try:
        lazy = pl.scan_parquet(io.BytesIO(data), glob=False)
        types = lazy.collect_schema()
        rows = lazy.select(pl.len()).collect().item()
        if rows * max(1, len(types)) > MAX_TABLE_CELLS:
            raise raised(
                f"{path}: claims to have {rows:,} rows, too many for such a file; give the right file"
            )
        wanted = columns
        if not wanted and schema is not None:
            wanted = [name for name in schema if name in types or name not in optional]
        if absent := [name for name in wanted or [] if name not in types]:
            raise raised(
                f"{path}: lacks column {', '.join(absent)}; it was written by another version or program"
            )
        if schema is not None:
            for name in wanted or []:
                if types[name] not in (schema[name], pl.Null):
                    raise raised(f"{path}: column {name} is of type {types[name]}, not {schema[name]}")
        frame = pl.read_parquet(io.BytesIO(data), columns=wanted, glob=False)
        if schema is None:
            return frame
        return frame.cast(
            {name: schema[name] for name in frame.columns if frame.schema[name] != schema[name]}
        )
    except BaseException as error:
        raise _translate_polars_error(error, path, "Parquet", raised) from error


def read_arrow(path: Path, raised: Raised = RunError) -> pl.DataFrame:
    """An Arrow file (Feather), or a file in Arrow's stream format, which ``datasets`` writes."""
    data = read_bytes(path, raised, MAX_TABLE_BYTES)
    try:
        if data.startswith(b"ARROW1"):
            return pl.read_ipc(io.BytesIO(data))
        return pl.read_ipc_stream(io.BytesIO(data))
    except BaseException as error:
        raise _translate_polars_error(error, path, "Arrow", raised) from error


def read_excel(path: Path, raised: Raised = RunError) -> pl.DataFrame:
    """The first sheet of an Excel workbook. InstallError if the package that reads it is absent."""
    if importlib.util.find_spec("fastexcel") is None:
        raise InstallError(
            f"{path}: reading .xlsx needs the package fastexcel: pip install 'kmmlu-fast[files]', or save the"
            " sheet as CSV UTF-8"
        )
    data = read_bytes(path, raised, MAX_TEXT_BYTES)
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise raised(f"{path}: is not an Excel workbook (.xlsx); save it as one, or as CSV UTF-8")
    try:
        return pl.read_excel(io.BytesIO(data), raise_if_empty=False)
    except Exception as error:  # fastexcel's own kinds
        why = one_line(str(error).splitlines()[0] if str(error) else type(error).__name__, 200)
        raise raised(f"{path}: cannot be read as Excel ({why})") from error


def scan_parquet(path: Path, raised: Raised = RunError) -> tuple[pl.LazyFrame, int]:
    """A Parquet file that is too large to be held, to be read in slices (``collect_slice``); and its rows."""
    try:
        scan = pl.scan_parquet(path, glob=False)
        return scan, int(scan.select(pl.len()).collect().item())
    except BaseException as error:
        raise _translate_polars_error(error, path, "Parquet", raised) from error


def collect_slice(part: pl.LazyFrame, path: Path, raised: Raised = RunError) -> pl.DataFrame:
    """Read part of a ``scan_parquet`` result."""
    try:
        return part.collect()
    except BaseException as error:
        raise _translate_polars_error(error, path, "Parquet", raised) from error


def _translate_polars_error(error: BaseException, path: Path, kind: str, raised: Raised) -> BaseException:
    """polars' errors and panics (BaseExceptions, known by name) as ``raised``; other errors unchanged."""
    known = (pl.exceptions.PolarsError, OSError, ValueError, OverflowError)
    if isinstance(error, known) or type(error).__name__ == "PanicException":
        why = one_line(str(error).splitlines()[0] if str(error) else type(error).__name__, 200)
        return raised(f"{path}: cannot be read as {kind} ({why})")
    return error
