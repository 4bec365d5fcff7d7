"""Which tables an exam's split consists of: configs on the hub, or files of a directory that are named after
them.

In: an ``Exam``, the name that its data set has for the split, a source. Out: (config, its key in the
declaration, ``ExamTable``) of each.
Knows nothing of what stands in the rows.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.row_files import READERS, Row, is_hub_id, iter_file_rows, iter_hub_rows, list_hub_configs


class ExamTable:
    """A source's name and its rows."""

    def __init__(self, name: str, rows: Iterator[tuple[int, Row]]) -> None:
        self.name, self.rows = name, rows


def exam_split_name(exam: Exam, split: str) -> str:
    theirs = {str(ours): name for ours, name in exam.splits.items()}.get(split)
    if theirs is None:
        raise ConfigError(f"{exam.label} has no {split} split; its declaration has {', '.join(exam.splits)}")
    return theirs


def iter_exam_tables(
    exam: Exam, theirs: str, source: str, revision: str | None
) -> Iterator[tuple[str | None, str | None, ExamTable]]:
    """(config, its key in the declaration, table) of everything that the declaration's configs stand for."""
    wanted = exam.config_names()
    if is_hub_id(source):
        chosen: list[tuple[str | None, str | None]] = [(name, name) for name in wanted] or [(None, None)]
        if any("*" in name for name in wanted):
            chosen = _expand_configs(wanted, list_hub_configs(source, revision), source)
        for config, key in chosen:
            shown = f"{source}{f' ({config})' if config else ''} {theirs}"
            yield config, key, ExamTable(shown, iter_hub_rows(source, config, theirs, revision))
        return
    files = _data_files(expand_path(source, "--dataset"), exam)
    found = False
    for path, folder in files:
        words = _path_words(path, folder)
        config, key = _config_from_path(words, wanted)
        if (wanted and key is None) or not (
            _matches_split(path, folder, theirs) or (len(exam.splits) == 1 and len(files) == 1)
        ):
            continue
        found = True
        yield config, key, ExamTable(str(path), iter_file_rows(path))
    if not found:
        names = ", ".join(path.name for path, _ in files[:5])
        of = f" of config {' or '.join(wanted)}" if wanted else ""
        raise DataError(
            f"{source}: no file{of} for split {theirs!r} (its name, or its folder's, must hold both) among"
            f" {names or 'no files'}"
        )


def _expand_configs(
    patterns: list[str], names: list[str], source: str
) -> list[tuple[str | None, str | None]]:
    first = {n: next((p for p in patterns if fnmatch.fnmatch(n, p)), None) for n in names}
    found: list[tuple[str | None, str | None]] = [(name, key) for name, key in first.items() if key]
    if not found:
        raise DataError(f"{source}: no config fits {', '.join(patterns)}; it has {', '.join(names[:8])}")
    return found


def _data_files(path: Path, exam: Exam) -> list[tuple[Path, Path]]:
    """Data files and the folder that their names count from."""
    if path.is_file():
        return [(path, path.parent)]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or directory; give where {exam.label}'s rows are")
    return [(file, path) for file in sorted(path.rglob("*")) if file.suffix.lower() in READERS]


def _path_words(path: Path, folder: Path) -> list[str]:
    """The folder names and the file's name without its ending: where a config may be named."""
    return [*path.relative_to(folder).parts[:-1], path.name.removesuffix("".join(path.suffixes[-1:]))]


def _matches_split(path: Path, folder: Path, split: str) -> bool:
    return any(split.lower() in re.split(r"[^a-z0-9]+", word.lower()) for word in _path_words(path, folder))


def _config_from_path(words: list[str], wanted: list[str]) -> tuple[str | None, str | None]:
    """(config, key) where a name fits a wanted config as a whole, or as its beginning: "boolq-test.csv",
    "boolq/test.parquet"."""
    for word in words:
        for key in wanted:
            cut = re.split(r"[-.](?:train|dev|test|validation|valid|fewshot|raw)\b", word, maxsplit=1)[0]
            if fnmatch.fnmatch(cut.lower(), key.lower()):
                return cut, key
    return None, None
