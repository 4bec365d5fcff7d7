"""Rows of any source: a file, a folder or pattern of files, or a split on the hub.

In: a path, a pattern (``parts/*.jsonl``), a folder, or ``owner/name[:config[:split]][@revision]``. Out: rows
as plain dicts with the file and number that they came from (``file_formats``, ``hub_rows``). Knows nothing of
what the columns mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.data.file_formats import FORMATS, Row, is_row_file, iter_file_rows
from kmmlu_fast.data.file_text import note_once
from kmmlu_fast.data.hub_rows import is_hub_id, iter_hub_rows, parse_hub_source

_SPLIT_WORDS = frozenset({"train", "training", "test", "dev", "validation", "valid", "val", "eval"})
_METADATA = frozenset({"dataset_info.json", "state.json", "dataset_dict.json", "package.json", "config.json"})


def iter_source_rows(
    source: str, config: str | None = None, split: str = "train", revision: str | None = None
) -> Iterator[tuple[int, Row]]:
    """Rows of a source. DataError names file and row of the first that cannot be read."""
    if is_hub_id(source) and config is not None:
        yield from iter_hub_rows(source, config, split, revision)
        return
    for _, number, row in iter_located_rows(source, split, revision):
        if isinstance(row, DataError):
            raise row
        yield number, row


def iter_located_rows(
    source: str, split: str = "train", revision: str | None = None
) -> Iterator[tuple[str, int, Row | DataError]]:
    """(file or hub id, number, row) of every row of a source; a row that cannot be read comes as the
    DataError that names it. DataError is raised for a source that cannot be read at all."""
    hub = parse_hub_source(source)
    if hub is not None:
        rows = iter_hub_rows(hub.hub_id, hub.config, hub.split or split, hub.revision or revision)
        for number, row in rows:
            yield source, number, row
        return
    files = source_files(source, split)
    is_one_file = expand_path(source, "--data").is_file()
    for path in files:
        for number, numbered_row in iter_file_rows(path):
            yield source if is_one_file else str(path), number, numbered_row


def require_source(source: str) -> None:
    """DataError if a source is neither files nor a hub id's form; reads nothing."""
    if parse_hub_source(source) is None:
        source_files(source)


def source_files(source: str, split: str = "train") -> list[Path]:
    """The files that a path, pattern or folder stands for, in the order of their names. DataError if there
    are none. In a folder with files of several splits, those of ``split``, with a note on the others."""
    path = expand_path(source, "--data")
    if path.is_file():
        return [path]
    if path.is_dir():
        return _folder_files(path, split)
    if any(letter in source for letter in "*?["):
        matches = (
            sorted(file for file in Path().glob(source) if file.is_file())
            if not path.is_absolute()
            else (
                sorted(
                    file
                    for file in Path(path.anchor).glob(str(path.relative_to(path.anchor)))
                    if file.is_file()
                )
            )
        )
        if not matches:
            raise DataError(f"{source}: no file matches; give {FORMATS}, a folder of them, or a hub id")
        return matches
    raise DataError(
        f"{source}: no such file or folder; give {FORMATS}, a folder or pattern of them, or a hub id"
        " (owner/name[:config[:split]][@revision])"
    )


def _folder_files(folder: Path, split: str) -> list[Path]:
    inside = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    names = sorted(
        name
        for name in inside
        if is_row_file(name)
        and name.name not in _METADATA
        and not any(part.startswith((".", "_")) for part in name.parts)
    )
    if not names:
        raise DataError(f"{folder}: is a folder without data files; give {FORMATS}, or a folder of them")
    splits = {name: _split_of(name) for name in names}
    present = {found for found in splits.values() if found is not None}
    if len(present) <= 1 and (None in splits.values() or present <= {split}):
        return [folder / name for name in names]
    chosen = [name for name in names if splits[name] == split]
    if not chosen:
        raise DataError(
            f"{folder}: has files of {', '.join(sorted(present))}, none of {split}; give the files to read by"
            " name or pattern"
        )
    left_out = [str(name) for name in names if splits[name] != split]
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        counts = f"{len(chosen)} of {len(names)} files are read ({split})"
        note_once(folder, f"{counts}; not read: {', '.join(left_out[:3])}{more}")
    return [folder / name for name in chosen]


def _split_of(name: Path) -> str | None:
    """The split that a file's name or folder names: train of "train-00000-of-00002.parquet"."""
    for part in reversed([*name.parts[:-1], name.stem]):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLIT_WORDS:
                return "train" if word == "training" else word
    return None
