"""The tables of an exam's split: configs on the hub, or files of a directory that are named after them.

In: an ``Exam``, its data set's name for the split, a source. Out: (config, its key in the declaration,
``ExamTable``) per table. Knows nothing of the rows' contents.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.file_formats import NumberedRow, is_row_file, iter_file_rows
from kmmlu_fast.data.hub_rows import is_hub_id, iter_hub_rows, list_hub_configs


class ExamTable:
    """A source's name and its rows."""

    def __init__(self, name: str, rows: Iterator[NumberedRow]) -> None:
        self.name, self.rows = name, rows


def exam_split_name(exam: Exam, split: str) -> str:
    """The data set's own name for our ``split``; ConfigError if the declaration has none."""
    names = {str(ours): name for ours, name in exam.splits.items()}
    if split not in names:
        raise ConfigError(f"{exam.label} has no {split} split; its declaration has {', '.join(names)}")
    return names[split]


def iter_exam_tables(
    exam: Exam, split_name: str, source: str, revision: str | None
) -> Iterator[tuple[str | None, str | None, ExamTable]]:
    """(config, its key in the declaration, table) for all configs that the declaration names or matches."""
    wanted = exam.config_names()
    if is_hub_id(source):
        chosen: list[tuple[str | None, str | None]] = [(name, name) for name in wanted] or [(None, None)]
        if any("*" in name for name in wanted):
            chosen = _expand_configs(wanted, list_hub_configs(source, revision), source)
        for config, key in chosen:
            name = f"{source} ({config}) {split_name}" if config else f"{source} {split_name}"
            yield config, key, ExamTable(name, iter_hub_rows(source, config, split_name, revision))
        return
    files = _data_files(expand_path(source, "--dataset"), exam)
    only_file = len(exam.splits) == 1 and len(files) == 1
    has_match = False
    for path, folder in files:
        words = _path_words(path, folder)
        config, key = _config_from_path(words, wanted)
        if (key is not None or not wanted) and (only_file or _matches_split(words, split_name)):
            has_match = True
            yield config, key, ExamTable(str(path), iter_file_rows(path))
    if not has_match:
        names = ", ".join(path.name for path, _ in files[:5]) or "no files"
        of_config = f" of config {' or '.join(wanted)}" if wanted else ""
        raise DataError(
            f"{source}: no file{of_config} for split {split_name!r} among {names}; the file's name or its"
            " folder's must contain both"
        )


def _expand_configs(
    patterns: list[str], names: list[str], source: str
) -> list[tuple[str | None, str | None]]:
    """(config, the first pattern that matches it) for each config that any pattern matches."""
    configs: list[tuple[str | None, str | None]] = []
    for name in names:
        pattern = next((pattern for pattern in patterns if fnmatch.fnmatch(name, pattern)), None)
        if pattern:
            configs.append((name, pattern))
    if not configs:
        raise DataError(f"{source}: no config matches {', '.join(patterns)}; it has {', '.join(names[:8])}")
    return configs


def _data_files(path: Path, exam: Exam) -> list[tuple[Path, Path]]:
    """Data files, each with the folder that its name is relative to."""
    if path.is_file():
        return [(path, path.parent)]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or directory; give where {exam.label}'s rows are")
    return [(file, path) for file in sorted(path.rglob("*")) if is_row_file(file)]


def _path_words(path: Path, folder: Path) -> list[str]:
    """The folder names and the file's name without its extension: where a config may be named."""
    return [*path.relative_to(folder).parts[:-1], path.stem]


def _matches_split(words: list[str], split: str) -> bool:
    return any(split.lower() in re.split(r"[^a-z0-9]+", word.lower()) for word in words)


def _config_from_path(words: list[str], wanted: list[str]) -> tuple[str | None, str | None]:
    """(config, key) of the first word that, up to the split's name, matches a wanted config:
    "boolq-test.csv", "boolq/test.parquet"."""
    for word in words:
        config = re.split(r"[-.](?:train|dev|test|validation|valid|fewshot|raw)\b", word, maxsplit=1)[0]
        for key in wanted:
            if fnmatch.fnmatch(config.lower(), key.lower()):
                return config, key
    return None, None
