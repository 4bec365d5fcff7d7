"""Finds an adapter's files: a directory, a repository on the hub, parts of a large file, a trainer's folder.

In: ``PATH`` or ``ORG/NAME[@REVISION]``. Out: a directory with adapter_config.json and one
adapter_model.safetensors, and their contents' names and shapes; AdapterError in one line otherwise. Only
safetensors are read: pickled files can run code. Knows nothing of bases.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.core.files import cache_root, remove_tree, swap_directory
from kmmlu_fast.core.locks import acquire_lock
from kmmlu_fast.core.reading import expand_path, read_json
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line
from kmmlu_fast.machine.hub import describe_hub_failure, hub_problem

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER_CARD = "kmmlu_fast.json"  # train writes it beside the weights
STATE = "training.json"  # train writes it before the first step; without a card, training is unfinished
_INDEX = WEIGHTS + ".index.json"
_LFS = b"version https://git-lfs"
_HUB_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_HUB_FILES = [CONFIG, WEIGHTS, _INDEX, "adapter_model-*.safetensors", ADAPTER_CARD]
_JOIN_WAIT_SEC = 600.0
_MIB = 1 << 20

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFiles:
    """An adapter directory: its settings, and the shape of each tensor by name."""

    folder: Path
    config: dict[str, Any]
    shapes: Shapes
    digest: str  # of every byte of weights and settings


def split_adapter_spec(spec: str) -> tuple[str, str]:
    """Name ("" if none is given) and path of ``[NAME=]PATH``. A path may hold "=" (``out/lr=1e-4``): the name
    ends at the first one, and has no "/".
    """
    name, equals, path = spec.partition("=")
    if not equals or "/" in name or expand_path(spec, "--adapter").exists():
        return "", spec
    return name, path


def find_adapter_folder(path: str) -> tuple[Path, str]:
    """The directory for ``PATH`` or ``ORG/NAME[@REVISION]`` and the name to call it by; a hub repository is
    downloaded. AdapterError if there is neither."""
    folder = expand_path(path, "--adapter")
    match = _HUB_NAME.fullmatch(path)
    if folder.exists() or match is None or path.startswith((".", "/", "~")):
        return folder, folder.resolve().name
    return _download_adapter(match["repository"], match["revision"]), match["repository"].rpartition("/")[2]


def require_adapter_folder(path: str) -> None:
    """AdapterError for a directory that does not exist, unless it has the form of a hub name."""
    folder = expand_path(path, "--adapter")
    is_hub_name = _HUB_NAME.fullmatch(path) is not None and not path.startswith((".", "/", "~"))
    if not folder.exists() and not is_hub_name:
        _check_folder(folder, f"--adapter {path}")


def _download_adapter(repository: str, revision: str | None) -> Path:
    where = f"--adapter {repository}" + (f"@{revision}" if revision else "")
    why = hub_problem()
    from huggingface_hub import HfApi, snapshot_download

    try:
        if not why:
            info = HfApi().model_info(repository, revision=revision, files_metadata=True)
            sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
            _check_repository(where, list(sizes))
            revision = info.sha
            total = sum(size for name, size in sizes.items() if re.fullmatch(r"adapter_.*", name))
            log_note(
                f"{where}: {total / _MIB:,.1f} MiB on the hub (what is in its cache is not fetched again)"
            )
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_HUB_FILES))
    except AdapterError:
        raise
    except Exception as error:  # the hub client raises a dozen kinds; all mean the same to a user
        raise AdapterError(
            f"{where}: no such directory, and {describe_hub_failure(why, error)}; give the directory that"
            f" holds {CONFIG}, or check the name and the network"
        ) from error


def _check_repository(where: str, names: list[str]) -> None:
    """Refuse before the download what would be refused after it."""
    if CONFIG not in names:
        raise AdapterError(f"{where}: the repository has no {CONFIG}: it is not a PEFT adapter; give one")
    if WEIGHTS not in names and _INDEX not in names:
        raise AdapterError(f"{where}: {_only_safetensors(names)}")


def _only_safetensors(names: list[str]) -> str:
    other = next((name for name in sorted(names) if name.endswith((".bin", ".pt", ".pth"))), None)
    found = f", only {one_line(other, 60)}" if other else ""
    return (
        f"has no {WEIGHTS}{found}; only safetensors are loaded (pickled .bin files can run code): save the"
        " adapter again with PEFT"
    )


def read_adapter_files(folder: Path, where: str) -> AdapterFiles:
    """Settings, names and shapes. AdapterError if the directory is not a finished adapter."""
    _check_folder(folder, where)
    config_file = folder / CONFIG
    _refuse_pointer(config_file, where)
    config = read_json(config_file, AdapterError)
    _refuse_other_trainers(folder, config, where)
    weights = folder / WEIGHTS
    if not weights.exists() and (folder / _INDEX).is_file():
        folder = _join_parts(folder, where)
        weights = folder / WEIGHTS
    if not weights.exists():
        raise AdapterError(f"{where}: {_only_safetensors([path.name for path in folder.iterdir()])}")
    _refuse_pointer(weights, where)
    shapes = read_tensor_shapes(weights, where)
    return AdapterFiles(folder=folder.resolve(), config=config, shapes=shapes, digest=digest_adapter(folder))


def digest_adapter(folder: Path) -> str:
    """sha256 (16 hex digits) of every byte of weights and settings. OSError if one cannot be read."""
    state = hashlib.sha256()
    for name in (WEIGHTS, CONFIG):
        with (folder / name).open("rb") as file:
            while block := file.read(_MIB):
                state.update(block)
    return state.hexdigest()[:16]


def _check_folder(folder: Path, where: str) -> None:
    if not folder.is_dir():
        raise AdapterError(f"{where}: no such directory; give the directory that holds {CONFIG}")
    is_finished = (folder / ADAPTER_CARD).exists() and (folder / CONFIG).exists()
    if (folder / STATE).exists() and not is_finished:
        raise AdapterError(
            f"{where}: its training is not finished; continue it with python -m kmmlu_fast.train --resume"
        )
    if (folder / CONFIG).is_file():
        return
    checkpoint, why = _choose_checkpoint(folder)
    if checkpoint:
        raise AdapterError(f"{where}: is a trainer's folder; give one checkpoint of it: {checkpoint} ({why})")
    raise AdapterError(f"{where}: has no readable {CONFIG}, so it is not a PEFT adapter")


def _choose_checkpoint(folder: Path) -> tuple[Path | None, str]:
    """The best checkpoint in a trainer's folder by its own state, else the last one."""
    steps = {}
    for path in folder.glob("checkpoint-*"):
        digits = path.name.removeprefix("checkpoint-")
        if digits.isdigit() and (path / CONFIG).is_file():
            steps[int(digits[:12])] = path
    if not steps:
        return None, ""
    last = steps[max(steps)]
    for state in (folder / "trainer_state.json", last / "trainer_state.json"):
        try:
            best = read_json(state, AdapterError).get("best_model_checkpoint")
        except AdapterError:
            continue
        named = folder / Path(str(best)).name if best else None
        if named in steps.values():
            return named, f"its best, by {state.name}; the last is {last.name}"
    return last, "the last"


def _refuse_other_trainers(folder: Path, config: dict[str, Any], where: str) -> None:
    if "peft_type" not in config and (
        "lora_parameters" in config or (folder / "adapters.safetensors").exists()
    ):
        raise AdapterError(
            f"{where}: is an adapter in MLX's layout; fuse it into its base (python -m mlx_lm fuse --model"
            " BASE --adapter-path DIR --save-path OUT) and give OUT with --model"
        )


def _refuse_pointer(path: Path, where: str) -> None:
    """A repository cloned without Git LFS holds a few lines of text in place of each large file."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS))
    except OSError as error:
        raise AdapterError(f"{where}: {path.name} cannot be read ({error.strerror})") from error
    if start == _LFS:
        raise AdapterError(
            f"{where}: {path.name} is a Git LFS pointer, not the file itself; run git lfs pull in that"
            " directory, or give ORG/NAME"
        )


def read_tensor_shapes(weights: Path, where: str) -> Shapes:
    """Each tensor's shape. AdapterError if it is not a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise AdapterError(
            f"{where}: {weights.name} is not a safetensors file ({one_line(str(error), 200)})"
        ) from error


def _join_parts(folder: Path, where: str) -> Path:
    """The adapter in one file, in the cache: neither PEFT nor vLLM reads several."""
    index = read_json(folder / _INDEX, AdapterError).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
        raise AdapterError(f"{where}: {_INDEX} has no weight_map; save the adapter again with PEFT")
    parts = [folder / name for name in sorted(set(index.values()))]
    state = hashlib.sha256((folder / CONFIG).read_bytes())
    for part in parts:
        if part.parent != folder or not part.is_file():
            raise AdapterError(
                f"{where}: {_INDEX} names {bounded_repr(part.name)}, which is not there; copy the adapter"
                f" again"
            )
        _refuse_pointer(part, where)
        state.update(part.read_bytes())
    target = cache_root() / "adapters" / state.hexdigest()[:16]
    late = AdapterError(f"{target}: another process has been writing it for ten minutes; end that one")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with acquire_lock(target.parent / f".{target.name}.lock", late, wait_sec=_JOIN_WAIT_SEC):
            if not (target / CONFIG).is_file():
                _write_joined(folder, parts, index, where, target)
    except OSError as error:
        raise AdapterError(
            f"{where}: its {len(parts)} parts cannot be joined in {target} ({error}); free disk space or set"
            " KMMLU_FAST_CACHE"
        ) from error
    return target


def _write_joined(folder: Path, parts: list[Path], index: dict[str, Any], where: str, target: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        tensors = {key: tensor for part in parts for key, tensor in load_file(part).items()}
    except SafetensorError as error:
        raise AdapterError(f"{where}: a part is damaged ({one_line(str(error), 200)})") from error
    if set(tensors) != set(index):
        missing = sorted(set(tensors) ^ set(index))[0]
        raise AdapterError(
            f"{where}: {_INDEX} and its parts disagree on {one_line(missing, 120)}; copy it again"
        )
    fresh = target.with_name(f".{target.name}.fresh")
    remove_tree(fresh)
    fresh.mkdir(parents=True)
    save_file(tensors, fresh / WEIGHTS)
    for name in (ADAPTER_CARD, CONFIG):
        if (folder / name).is_file():
            (fresh / name).write_bytes((folder / name).read_bytes())
    swap_directory(fresh, target)


def read_base_reference(folder: Path, where: str) -> tuple[str | None, str | None]:
    """The name and revision of the base that the adapter records. The card knows the demo model by name and
    the revision; PEFT's settings hold the path or the hub id. (None, None) if there is none."""
    settings = read_json(folder / CONFIG, AdapterError) if (folder / CONFIG).is_file() else {}
    card = read_json(folder / ADAPTER_CARD, AdapterError) if (folder / ADAPTER_CARD).is_file() else {}
    base = card.get("base_model")
    if not isinstance(base, dict):
        base = {}
    if base.get("name") == "demo":
        return "demo", None
    name, revision = settings.get("base_model_name_or_path"), base.get("revision")
    if not isinstance(name, str) or not name:
        return None, None
    return name, revision if isinstance(revision, str) else None
