"""Which files of a model's directory decide an answer, and one digest over every byte of them.

In: a directory. Out: its files by relative name; a digest that changes with any byte, name or place of them.
Everything counts that is not known to be irrelevant: weights of every format, tokenizer files, templates,
code, in subdirectories too. Left out are hidden files, documents, a trainer's own state, and what other
programs keep in the same directory (adapters, run directories, checkpoints). Knows nothing of model hubs.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from kmmlu_fast.core.content_digests import content_digests, newest_change_ns
from kmmlu_fast.core.errors import KmmluError, ModelError
from kmmlu_fast.core.reading import read_json

_MOST_FILES = 20_000
_MIB = 1 << 20
_WEIGHTS = re.compile(r".*\.(safetensors|bin|gguf|pt|pth|ckpt|h5|msgpack|npz|tensors|onnx)", re.IGNORECASE)
_IRRELEVANT_KINDS = re.compile(
    r".*\.(md|rst|html|css|pdf|png|jpe?g|gif|svg|webp|ipynb|csv|tsv|parquet|jsonl|xlsx|log|lock|partial|tmp"
    r"|pyc)",
    re.IGNORECASE,
)
_IRRELEVANT_NAMES = re.compile(
    r"(licen[sc]e|notice|readme|use_policy|citation).*|kmmlu_fast\.json|complete"
    r"|(optimizer|scheduler|scaler)\.(pt|bin)|rng_state.*\.pth|training_args\.bin|events\.out\.tfevents.*"
    r"|(trainer_state|train_results|eval_results|all_results)\.json",
    re.IGNORECASE,
)
_IRRELEVANT_FOLDERS = re.compile(r"checkpoint-\d+|checkpoints|__pycache__")


def decisive_files(folder: Path) -> dict[str, Path]:
    """The files by their names relative to the directory, sorted. ModelError if there are too many, or one
    cannot be looked at.
    """
    files: dict[str, Path] = {}
    try:
        for path in _walk_model(folder):
            files[path.relative_to(folder).as_posix()] = path
            if len(files) > _MOST_FILES:
                raise ModelError(
                    f"model {folder}: holds more than {_MOST_FILES:,} files; give the directory of one model"
                )
    except OSError as error:
        raise _unreadable(folder, error) from error
    return dict(sorted(files.items()))


def model_content_digest(folder: Path, *, weights: bool = True) -> str:
    """sha256 (16 hex digits) over names and every byte. Hashed once, then remembered by the files' states."""
    files = decisive_files(folder)
    if not weights:
        files = {name: path for name, path in files.items() if not _WEIGHTS.fullmatch(path.name)}
    try:
        digests = content_digests(files.values(), f"model {folder.name}: reading every byte once")
    except OSError as error:
        raise _unreadable(folder, error) from error
    state = hashlib.sha256()
    for name, path in files.items():
        state.update(f"{name}\x1f{digests[path]}\x1f".encode("utf-8", "surrogatepass"))
    return state.hexdigest()[:16]


def edge_digest(folder: Path) -> str:
    """What identified a local model until November 2026: names, sizes, and the first and last MiB of some
    files. It misses changes in between; runs of that time are found by it.
    """
    state = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".json", ".safetensors", ".bin", ".model", ".jinja"):
            continue
        size = path.stat().st_size
        state.update(f"{path.name}\x1f{size}\x1f".encode())
        with path.open("rb") as file:
            state.update(file.read(_MIB))
            if size > _MIB:
                file.seek(max(_MIB, size - _MIB))
                state.update(file.read(_MIB))
    return state.hexdigest()[:16]


def model_changed_ns(folder: Path) -> int:
    """When any of the files was last changed, or one was added or removed."""
    files = decisive_files(folder)
    folders = {folder, *(path.parent for path in files.values())}
    return max(newest_change_ns(files.values()), *(path.stat().st_mtime_ns for path in folders))


def _walk_model(folder: Path) -> Iterator[Path]:
    """Links are followed, each directory once. Pipes and devices are left out."""
    visited = set()
    for place, inner, names in os.walk(folder, followlinks=True, onerror=_raise_error):
        real = Path(place).resolve()
        if real in visited:
            inner.clear()
            continue
        visited.add(real)
        inner[:] = sorted(name for name in inner if not _is_other_folder(Path(place, name)))
        for name in names:
            path = Path(place, name)
            irrelevant = _IRRELEVANT_NAMES.fullmatch(name) or _IRRELEVANT_KINDS.fullmatch(name)
            if not name.startswith(".") and not irrelevant and path.is_file():
                yield path


def _raise_error(error: OSError) -> None:
    raise error


def _is_other_folder(folder: Path) -> bool:
    """Whether it is hidden, a trainer's checkpoints, an adapter, or a run of this program."""
    if folder.name.startswith(".") or _IRRELEVANT_FOLDERS.fullmatch(folder.name):
        return True
    if (folder / "adapter_config.json").exists():
        return True
    config = folder / "config.json"
    try:
        return config.is_file() and "fingerprint_parts" in read_json(config)
    except KmmluError:
        return False


def _unreadable(folder: Path, error: OSError) -> ModelError:
    return ModelError(
        f"model {folder}: {error.filename}: {error.strerror or error}; give a readable directory"
    )
