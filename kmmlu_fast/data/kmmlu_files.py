"""Where KMMLU's subjects lie on disk, in every layout that the hub and ``datasets`` write.

In: a directory, a split, subjects. Out: files by subject, shards in order. Knows nothing of rows.

Layouts: ``data/<Subject>-<split>.csv`` (the hub's repository); otherwise CSV, Parquet or Arrow files below a
folder that is called like the subject: ``Law/test/0000.parquet`` and ``Law/kmmlu-test.parquet`` (the hub's
Parquet copies), ``Law/test/data-00000-of-00001.arrow`` (``save_to_disk``),
``Law/0.0.0/<hash>/kmmlu-test.arrow`` (the cache of ``datasets``), ``Law/test-00000-of-00001.parquet``
(``push_to_hub``). Or all subjects in one table, told by its column Category: such a file itself, or
``test.csv``, ``test/data-00000-of-00001.arrow``, ``data/test-00000-of-00001.parquet`` in a directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.subjects import Subject

SPLITS = ("train", "dev", "test")
TABLE_ENDINGS = (".csv", ".parquet", ".arrow")
_SHARD = re.compile(r"(?:-?\d+(?:-of-\d+)?)$")
_MOST_FILES = 20_000


def find_kmmlu_files(root: Path, split: str, subjects: list[Subject]) -> dict[str, tuple[Path, ...]]:
    """Subject's name -> its files; DataError if a subject has files in two places."""
    folder = root / "data" if (root / "data").is_dir() else root
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(f"*-{split}.csv")):
        by_stem.setdefault(path.name.removesuffix(f"-{split}.csv").lower(), []).append(path)
    if not by_stem:
        by_stem = _find_by_folder(root, split, {subject.stem.lower() for subject in subjects})
    found = {}
    for subject in subjects:
        paths = by_stem.get(subject.stem.lower(), [])
        if len({_series(path) for path in paths}) > 1:
            other = next(path for path in paths if _series(path) != _series(paths[0]))
            raise DataError(f"{other}: a second file for {subject.name} besides {paths[0].name}; keep one")
        if paths:
            found[subject.name] = tuple(paths)
    return found


def find_whole_files(root: Path, split: str) -> tuple[Path, ...]:
    """The shards of a table that holds all subjects; () if there is none. DataError if there are several.

    A file that names no split is the test split.
    """
    if root.is_file():
        named = next((name for name in SPLITS if _names_split(root.stem.lower(), name)), "test")
        return (root,) if named == split else ()
    paths = [path for path, folders in _table_files(root) if _is_of_split(path, folders, split)]
    if len({_series(path) for path in paths}) > 1:
        raise DataError(
            f"{root}: {paths[0].name} and {paths[-1].name} both look like its {split} split; keep one"
        )
    return tuple(sorted(paths))


def _is_of_split(path: Path, folders: list[str], split: str) -> bool:
    return split in folders or _names_split(path.stem.lower(), split)


def _table_files(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every table below the folder, with the folders it lies in, in lower case."""
    for number, path in enumerate(root.rglob("*")):
        if number >= _MOST_FILES:
            raise DataError(f"{root}: holds more than {_MOST_FILES:,} files; give the folder of KMMLU itself")
        if path.suffix.lower() in TABLE_ENDINGS and not path.name.startswith("cache-"):
            yield path, [part.lower() for part in path.relative_to(root).parts[:-1]]


def _series(path: Path) -> tuple[str, str]:
    """What the shards of one table share."""
    return str(path.parent), _SHARD.sub("", path.stem)


def _find_by_folder(root: Path, split: str, stems: set[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path, folders in _table_files(root):
        stem = path.stem.lower()
        by_name = stem.removesuffix(f"-{split}")
        subject = next((part for part in reversed(folders) if part in stems), None)
        if subject is None and by_name in stems and by_name != stem:
            found.setdefault(by_name, []).append(path)
        elif subject is not None and _is_of_split(path, folders, split):
            found.setdefault(subject, []).append(path)
    return {subject: sorted(paths) for subject, paths in found.items()}


def _names_split(stem: str, split: str) -> bool:
    """``test``, ``kmmlu-test``, ``test-00000-of-00001``: whether a file's name is of the split."""
    return split in _SHARD.sub("", stem).split("-")
