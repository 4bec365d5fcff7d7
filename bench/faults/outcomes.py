"""What a command left, whole or cut short: read so that it can be compared, and looked at for what only seems
whole.

In: the folder that a command wrote to. Out: plain values that compare equal where the work is the same; or
what is wrong, in words.
Knows nothing of how the command was stopped.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kmmlu_fast.core.errors import KmmluError

_TIMES = ("speed", "engine", "reasoning")  # of metrics.json: other every time


def _run_folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in (folder / "runs").glob("*") if path.is_dir() and not path.name.startswith(".")
    )


def run_outcome(folder: Path) -> dict[str, Any]:
    from kmmlu_fast.runs.store import load_run_directory

    found = {}
    for path in _run_folders(folder):
        run = load_run_directory(path)
        metrics = {name: value for name, value in run.metrics.to_json().items() if name not in _TIMES}
        found[path.name] = (run.frame.to_dicts(), json.dumps(metrics, sort_keys=True, default=str))
    return found


def whole_run(folder: Path, wanted: dict[str, Any]) -> str | None:
    from kmmlu_fast.runs.store import load_run_directory

    for path in _run_folders(folder):
        try:
            run = load_run_directory(path)
        except KmmluError:
            continue  # refused: that is what an unfinished run must be
        if run.frame.to_dicts() != wanted[path.name][0]:
            return f"{path.name} looks whole and is not"
    return None


def old_or_new(folder: Path, wanted: dict[str, Any]) -> str | None:
    from kmmlu_fast.runs.store import load_run_directory

    (name,) = wanted
    place = folder / "runs" / name
    try:
        run = load_run_directory(place)
    except KmmluError as error:
        aside, fresh = place.with_name(f".{name}.old"), place.with_name(f".{name}.new")
        return None if aside.is_dir() and fresh.is_dir() else f"the finished run is lost: {error}"
    return None if run.frame.to_dicts() == wanted[name][0] else "the finished run was changed"


def digests(folder: Path) -> dict[str, str]:
    """Digests of what a command leaves, by name. Hidden files are nobody's business but its own, unless they
    stay.
    """
    found = {}
    for path in sorted((folder / "out").rglob("*")):
        if path.is_file() and not path.name.endswith(".partial"):
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def litter(folder: Path) -> list[str]:
    """What a killed command left and the same command, run to its end, did not remove."""
    left = [path for path in folder.rglob("*") if _is_temporary(path.name)]
    left += [parts for parts in folder.rglob("predictions") if (parts.parent / "metrics.json").exists()]
    return sorted(str(path.relative_to(folder)) for path in left)


def _is_temporary(name: str) -> bool:
    """Lock files stay (``core/locks.py`` says why), and what an evaluation notes to be quicker next time."""
    if name.endswith((".partial", ".journal", ".owner", ".old", ".new", ".merge")):
        return True
    return name.startswith(".") and not name.endswith(".lock") and not name.startswith(".asked-")


def nothing(folder: Path) -> dict[str, Any]:
    """Of a verb that only reads."""
    return {str(path.relative_to(folder)): "written" for path in folder.rglob("*")}


def untouched(folder: Path, wanted: dict[str, Any]) -> str | None:
    return None if nothing(folder) == wanted else f"something was written: {list(nothing(folder))[:3]}"


def staged(folder: Path) -> dict[str, str]:
    """A repository as it would be pushed: its bundles hold the time, which their JSON files are not compared
    by.
    """
    return {
        name: digest
        if "/evaluation/" not in name or not name.endswith(".json")
        else str(_parses(folder / name))
        for name, digest in digests(folder).items()
    }


def whole_staging(folder: Path, wanted: dict[str, str]) -> str | None:
    found = {name: value for name, value in staged(folder).items() if name.startswith("out/push/")}
    missing = [name for name in wanted if found and name.startswith("out/push/") and name not in found]
    changed = [name for name, value in found.items() if value != wanted.get(name)]
    return f"{[*missing, *changed][0]} is there and is not whole" if missing or changed else None


def file_names(folder: Path) -> list[str]:
    """Of files that hold times: their names, if each is whole."""
    return sorted(name for name in digests(folder) if _is_document(folder / name))


def whole_documents(folder: Path, wanted: list[str]) -> str | None:
    for name in digests(folder):
        if not _is_document(folder / name):
            return f"{name} is there and is not whole"
    return None


def _is_document(path: Path) -> bool:
    if path.suffix == ".xml":
        try:
            return ElementTree.parse(path).getroot() is not None
        except ElementTree.ParseError:
            return False
    return _parses(path)


def same_or_absent(folder: Path, wanted: dict[str, str]) -> str | None:
    for name, digest in digests(folder).items():
        if name in wanted and digest != wanted[name]:
            return f"{name} is there and is not whole"
    return None


def exports(folder: Path) -> dict[str, Any]:
    """CSV and figures by digest, JSON and XLSX by content; the page and PDFs by their ends."""
    from zipfile import ZipFile

    found: dict[str, Any] = {}
    for path in sorted((folder / "out").rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.suffix == ".xlsx":
            with ZipFile(path) as book:
                found[name] = {
                    entry: book.read(entry) for entry in book.namelist() if entry.startswith("xl/worksheets")
                }
        elif path.suffix == ".html":
            found[name] = path.read_text(encoding="utf-8").rstrip().endswith("</html>")
        elif path.suffix == ".pdf":  # holds the time it was made
            data = path.read_bytes()
            found[name] = data.startswith(b"%PDF") and data.rstrip().endswith(b"%%EOF")
        elif "lm-eval" in name:
            task = path.name.split("_2")[0]
            found[f"lm-eval/{path.parent.name}/{task}"] = "whole" if _parses(path) else "cut"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _parses(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8")
        _ = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        return text.endswith("\n")
    except ValueError:
        return False


def whole_exports(folder: Path, wanted: dict[str, Any]) -> str | None:
    for name, content in exports(folder).items():
        if content != wanted.get(name):
            return f"{name} is there and is not whole"
    return None


def merged(folder: Path) -> dict[str, Any]:
    tensors = {}
    for path in sorted((folder / "cache" / "merged").glob("*/model*.safetensors")):
        tensors[path.parent.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {**tensors, **run_outcome(folder)}


def whole_merge(folder: Path, wanted: dict[str, Any]) -> str | None:
    for path in (folder / "cache" / "merged").glob("*"):
        if path.name.startswith(".") or path.name.endswith(".partial") or not (path / "config.json").exists():
            continue
        weights = path / "model.safetensors"
        if not weights.exists() or hashlib.sha256(weights.read_bytes()).hexdigest() != wanted.get(path.name):
            return f"{path.name} looks whole and is not"
        if not (path / "tokenizer.json").exists():
            return f"{path.name} has no tokenizer"
    return whole_run(folder, wanted)


def adapter_outcome(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    card = json.loads((folder / "lora" / "kmmlu_fast.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "lora" / "adapter_model.safetensors")
    digest = hashlib.sha256((folder / "lora" / "adapter_model.safetensors").read_bytes()).hexdigest()
    log = [json.loads(line) for line in (folder / "lora" / "train_log.jsonl").read_text().splitlines()]
    rounded = {
        name: [round(float(x), 4) for x in tensor.reshape(-1)[:8]] for name, tensor in sorted(weights.items())
    }
    steps = [(entry["kind"], entry["step"]) for entry in log]
    if card["adapter_digest"] != digest:
        raise RuntimeError("the card names other weights")
    kept = card["metrics"]["kept"]["loss"]
    if abs(kept - min(e["loss"] for e in log if e["kind"] == "held_out" and e["step"])) > 1e-6:
        raise RuntimeError("the card names another step than the best")
    return {
        "kept_step": card["metrics"]["kept_step"],
        "weights": rounded,
        "log": steps,
        "left": (folder / "lora" / "checkpoints").exists(),
    }


def whole_adapter(folder: Path, wanted: Any) -> str | None:
    from kmmlu_fast.models.adapters import load_adapters
    from kmmlu_fast.models.model import Model

    lora = folder / "lora"
    try:
        load_adapters([str(lora)], Model("tiny", str(lora), None, "x"), "merge")
    except KmmluError:
        return None
    except FileNotFoundError:
        pass  # it got as far as the base's config, which this model has not: the adapter was taken
    try:
        found = adapter_outcome(folder)
    except (OSError, ValueError, RuntimeError) as error:
        return f"the adapter looks whole and is not ({error})"
    return None if {**found, "left": False} == wanted else "the adapter looks whole and is another"
