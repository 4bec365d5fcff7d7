"""Writing files atomically, never overwriting silently; readable file names; the cache's location.

In: paths and contents. Out: files, each written under a temporary name beside its target, synced and renamed.
Knows nothing of the contents.

Every command calls ``claim_outputs`` for all its output files before it starts work: existing files are
replaced only with ``--overwrite``, inputs never; parents are created, and unwritable places are refused at
once. It then writes each with ``write_bytes_atomically``. Links are replaced, never followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmmlu_fast.core.errors import ConfigError, KmmluError
from kmmlu_fast.core.partials import PARTIAL as PARTIAL
from kmmlu_fast.core.partials import open_partial, sweep_partials
from kmmlu_fast.core.partials import partial_name as partial_name
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.core.reading import read_json as read_json

if TYPE_CHECKING:
    import polars as pl

_SLUG_LENGTH = 80
_SLUG_BYTES = 160
# Errors of file systems that cannot sync a folder.
_UNSYNCABLE = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


def cache_root() -> Path:
    """``$KMMLU_FAST_CACHE``, else ``$XDG_CACHE_HOME/kmmlu_fast``, else ``~/.cache/kmmlu_fast``."""
    explicit = os.environ.get("KMMLU_FAST_CACHE")
    if explicit:
        return expand_path(explicit, "KMMLU_FAST_CACHE")
    return expand_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "XDG_CACHE_HOME") / "kmmlu_fast"


def claim_outputs(
    targets: Iterable[Path], inputs: Iterable[Path] = (), *, overwrite: bool = False, flag: str = "--output"
) -> None:
    """Refuse outputs that cannot or must not be written. ConfigError names the file and what to do.

    ``inputs``: files that are read (``files_in`` lists a directory's); none may be a target, even with
    ``overwrite``.
    """
    wanted = list(targets)
    for folder in {path.parent for path in wanted}:
        sweep_partials(folder)  # also where the command is then refused
    read = [path for path in inputs if path.is_file()]
    taken: dict[Path, Path] = {}
    for path in wanted:
        if path.name in ("", ".."):
            raise ConfigError(f"{flag} {path}: names no file; give a file's name")
        real = path.parent.resolve() / path.name
        if real in taken:
            raise ConfigError(f"{flag} {path}: would be written twice; give another name")
        taken[real] = path
        if any(_is_same_file(path, source) for source in read):
            raise ConfigError(
                f"{flag} {path}: is an input of this command, which is never replaced; give another name"
            )
        if path.is_dir():
            raise ConfigError(f"{flag} {path}: is a directory; give a file's name")
        if os.path.lexists(path) and not overwrite and not _is_left_by_killed_run(path, wanted[0]):
            raise ConfigError(f"{flag} {path}: exists; give another name, or --overwrite to replace it")
    for folder in dict.fromkeys(path.parent for path in wanted):
        _check_writable(folder, flag)


def _check_writable(folder: Path, flag: str) -> None:
    """Create the folder and write to it: permissions do not show everything (read-only mounts, quotas)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open_partial(folder / "try"):
            pass
    except OSError as error:
        raise ConfigError(
            f"{flag} {folder}: cannot be written ({error.strerror}); give another place"
        ) from error


def _is_same_file(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return path.parent.resolve() / path.name == source.parent.resolve() / source.name


def files_in(path: Path, *patterns: str) -> Iterator[Path]:
    """The path itself, or a directory's files that match these patterns."""
    if path.is_dir():
        for pattern in patterns:
            yield from path.glob(pattern)
    else:
        yield path


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write a temporary file, sync, rename, sync the folder. A link at ``path`` is replaced, not followed."""
    with _written_partial(path, data) as partial, _name_target_in_errors(path, partial):
        partial.replace(path)
    sync_folder(path.parent)
    sweep_partials(path.parent)


def write_files_together(files: dict[Path, bytes], journal: Path | None = None) -> None:
    """Write several files that belong together. ``journal``: named after the first file, unless that has
    another name every time; then the next writing would not find it.

    All are written to temporary files before any is renamed; a journal lists their digests until the last
    rename. After a kill in between, ``claim_outputs`` uses it to recognise our files, so that the same
    command can run again.
    """
    journal = journal or _journal_path(next(iter(files)))
    with contextlib.ExitStack() as stack:
        partials = {path: stack.enter_context(_written_partial(path, data)) for path, data in files.items()}
        digests = {path.name: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        write_json_atomically(journal, digests)
        for path, partial in reversed(partials.items()):  # the first one last: if it exists, all do
            partial.replace(path)
    for folder in {path.parent for path in files}:
        sync_folder(folder)
        sweep_partials(folder)
    journal.unlink(missing_ok=True)


@contextlib.contextmanager
def _written_partial(path: Path, data: bytes) -> Iterator[Path]:
    """The data in a temporary file beside ``path``, synced; removed if the block does not rename it."""
    with _name_target_in_errors(path, None), open_partial(path) as (file, partial):
        with _name_target_in_errors(path, partial):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield partial


def _journal_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.journal")


def _is_left_by_killed_run(path: Path, first: Path) -> bool:
    """Whether ``write_files_together`` wrote exactly this file before it was killed."""
    journal = _journal_path(first)
    try:
        if not journal.is_file():
            return False
        return bool(read_json(journal).get(path.name) == hashlib.sha256(path.read_bytes()).hexdigest())
    except (OSError, KmmluError):
        return False


@contextlib.contextmanager
def _name_target_in_errors(path: Path, partial: Path | None) -> Iterator[None]:
    """Make errors name the target instead of the temporary file (any, if it has no name yet)."""
    try:
        yield
    except OSError as error:
        name = str(error.filename or "")
        if error.filename in (None, str(partial)) or (partial is None and name.endswith(PARTIAL)):
            error.filename, error.filename2 = str(path), None
        raise


def write_json_atomically(path: Path, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n"
    # A lone surrogate (of a file name) becomes JSON's own escape.
    write_bytes_atomically(path, text.encode("utf-8", "backslashreplace"))


def write_parquet_atomically(path: Path, frame: pl.DataFrame) -> None:
    write_bytes_atomically(path, parquet_bytes(frame))


def parquet_bytes(frame: pl.DataFrame) -> bytes:
    data = io.BytesIO()
    frame.write_parquet(data, compression="zstd")
    return data.getvalue()


def sync_folder(folder: Path) -> None:
    """Sync a folder: without it, a rename may not survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSYNCABLE:
            raise
    finally:
        os.close(descriptor)


def swap_directory(fresh: Path, place: Path) -> None:
    """Move a complete directory to ``place``, replacing any that exists.

    The old one is moved aside first and removed last; ``finish_directory_swap`` recovers after a kill.
    """
    aside = _backup_path(place)
    if place.exists():
        remove_tree(aside)
        place.rename(aside)
    fresh.rename(place)
    sync_folder(place.parent)
    remove_tree(aside)


def finish_directory_swap(fresh: Path, place: Path, complete: bool) -> None:
    """After a kill in ``swap_directory``: move the new directory in if complete, else the old one back."""
    aside = _backup_path(place)
    if aside.exists() and not place.exists():
        (fresh if complete else aside).rename(place)
    if place.exists():
        remove_tree(aside)


def _backup_path(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def remove_tree(folder: Path) -> None:
    """Remove a directory; of a link, the link itself and never its target."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def remove_partials(folder: Path) -> None:
    """Remove what killed processes left half-written, in a folder that only this process writes to."""
    for path in folder.glob(f"*{PARTIAL}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def shorten_name(name: str, most: int) -> str:
    """The name if it has at most ``most`` bytes in UTF-8, else its beginning and a digest of all of it."""
    data = name.encode("utf-8", "surrogatepass")
    if len(data) <= most:
        return name
    digest = hashlib.sha256(data).hexdigest()[:8]
    return f"{data[: most - 9].decode('utf-8', 'ignore')}-{digest}"


def make_slug(text: str) -> str:
    """A readable part of a directory name: letters of any script that the file system's encoding has."""
    encoding = sys.getfilesystemencoding()
    encodable = unicodedata.normalize("NFC", text).encode(encoding, "replace").decode(encoding)
    return re.sub(r"(?:[^\w.]|_)+", "-", encodable).strip("-.") or "x"


def make_ascii_slug(text: str) -> str:
    """The slug that run directories had before they kept other letters than English ones."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "x"


def distinct_slugs(names: Iterable[str]) -> list[str]:
    """A directory name for each, all distinct even if case is ignored.

    Letters of any script are kept (Korean names have no others), except those that the file system's encoding
    lacks (the C locale).
    """
    slugs: list[str] = []
    taken: set[str] = set()
    encoding = sys.getfilesystemencoding()
    for name in names:
        encodable = name.encode(encoding, "replace").decode(encoding)
        base = slug = re.sub(r"[^\w.]+", "-", encodable).strip("-.")[:_SLUG_LENGTH] or "x"
        base = slug = shorten_name(slug, _SLUG_BYTES)
        number = 1
        while slug.casefold() in taken:
            number += 1
            slug = f"{base}-{number}"
        slugs.append(slug)
        taken.add(slug.casefold())
    return slugs
