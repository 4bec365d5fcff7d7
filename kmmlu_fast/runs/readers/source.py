"""What a run argument names: a path, perhaps with a choice behind a colon; and what a reader of it is.

In: an argument such as ``out/lm-eval:kmmlu_direct`` or ``table.csv:my-model``. Out: ``RunSource``; the file's
JSON is parsed once, whoever asks. Knows nothing of any program's layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.reading import expand_path, parse_json
from kmmlu_fast.data.file_formats import format_suffix
from kmmlu_fast.data.file_text import COMPRESSED, read_json_text
from kmmlu_fast.runs.readers.table_files import TABLE_SUFFIXES, read_text_table
from kmmlu_fast.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class RunSource:
    """A run argument: ``path`` exists, ``choice`` is the part behind the colon."""

    argument: str
    path: Path
    choice: str | None = None
    key: pl.DataFrame | None = None  # the dataset's frame, if there is one
    split: str = "test"

    @property
    def suffix(self) -> str:
        """The ending that names the file's format, as ``.csv`` of ``t.csv.gz``; "" for a directory."""
        return format_suffix(self.path) if self.path.is_file() else ""

    @property
    def stem(self) -> str:
        """The file's name without its endings."""
        name = self.path.name
        if self.path.suffix.lower() in COMPRESSED:
            name = Path(name).stem
        return Path(name).stem

    @cached_property
    def document(self) -> Any:
        """The file's JSON value; None if it is a directory or not one JSON value."""
        if self.suffix != ".json":
            return None
        try:
            return parse_json(read_json_text(self.path), str(self.path), DataError)
        except DataError:
            return None

    @property
    def fields(self) -> dict[str, Any]:
        """``document`` if it is an object, else {}."""
        return self.document if isinstance(self.document, dict) else {}

    @cached_property
    def table(self) -> pl.DataFrame | None:
        """The file's table, every cell a text; None if it is not one."""
        if self.suffix not in TABLE_SUFFIXES:
            return None
        return read_text_table(self.path, self.document)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReader:
    """One program's results. ``detect`` tells by shape, cheaply; ``read`` raises RunError or DataError."""

    program: str
    detect: Callable[[RunSource], bool]
    read: Callable[[RunSource], list[Run]]


def split_run_argument(argument: str) -> tuple[str, str | None]:
    """The path and the choice behind its colon. A path that exists as it stands has no choice."""
    if run_path_exists(argument):
        return argument, None
    place = len(argument)
    while (place := argument.rfind(":", 0, place)) > 0:
        if argument[place + 1 :] and run_path_exists(argument[:place]):
            return argument[:place], argument[place + 1 :]
    return argument, None


def run_path_exists(text: str) -> bool:
    """Whether a file or directory of that name is there."""
    try:
        return expand_path(text, "run").exists()
    except OSError:  # longer than a file name may be
        return False
