"""Which files an lm-evaluation-harness command wrote, in every layout since 0.4.0.

In: a directory, a results file, or a file of samples. Out: one ``LmEvalOutput`` per command, the oldest
first. Knows nothing of what the files' tasks and lines mean.

Layouts: ``results_<time>.json`` with ``samples_<task>_<time>.jsonl`` (0.4.3 and later);
``<name>_<time>.json`` (``--output_path name.json``); ``results.json`` or ``<name>.json`` with
``<model args>_<task>.jsonl``, which holds a JSON list (0.4.0 to 0.4.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.files import read_json
from kmmlu_fast.core.reading import MAX_JSON_BYTES

_TIME = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:[.\-]\d+)?)$")
# Keys that stand beside "results" in files of lm-eval, and are needed to tell files of other names.
_SIGNS = ("n-shot", "n-samples", "versions", "configs", "group_subtasks", "higher_is_better")
_HEAD_BYTES = 1 << 16


@dataclass(slots=True, kw_only=True)
class LmEvalOutput:
    """The files of one command: a results document, samples by task, or both."""

    folder: Path
    stamp: str  # when it was written, as the names say; "" before 0.4.3
    results_file: Path | None = None
    document: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, Path] = field(default_factory=dict)  # by task


def is_lm_eval_path(path: Path) -> bool:
    """Whether a file is lm-eval's, or a directory holds such files."""
    if path.is_file():
        return _is_samples_file(path) or _is_results_file(path)
    return any(_is_samples_file(file) or _is_results_file(file) for file in _candidate_files(path))


def find_lm_eval_outputs(path: Path) -> list[LmEvalOutput]:
    """The outputs in or below a directory; or of a results file, or of one file of samples."""
    if path.is_file() and _is_samples_file(path):
        return _group_files([], [path])
    if path.is_file():
        outputs = _group_files([path], [file for file in path.parent.iterdir() if _is_samples_file(file)])
        return [output for output in outputs if output.results_file == path]
    files = _candidate_files(path)
    for file in files:
        if file.is_symlink() and not file.exists():
            raise DataError(f"{path}: holds a broken link ({file}); remove it or restore its target")
    samples = [file for file in files if _is_samples_file(file)]
    return _group_files([file for file in files if _is_results_file(file)], samples)


def _candidate_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.json*") if file.suffix in (".json", ".jsonl"))


def _is_samples_file(file: Path) -> bool:
    if file.suffix != ".jsonl":
        return False
    if file.name.startswith("samples_"):
        return True
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except OSError:
        return False
    return b'"doc_id"' in head and b'resps"' in head


def _is_results_file(file: Path) -> bool:
    """By its name, or by what it holds."""
    if file.suffix != ".json":
        return False
    by_name = file.name.startswith("results_")
    try:
        if not by_name and file.stat().st_size > MAX_JSON_BYTES:
            return False
        document = read_json(file, DataError)
    except (DataError, OSError):
        return by_name
    return is_lm_eval_document(document, by_name)


def is_lm_eval_document(document: dict[str, Any], named_results: bool = False) -> bool:
    """Whether a JSON object is a results file of lm-eval. lighteval's files have the same names."""
    if "config_general" in document or "config_tasks" in document:
        return False
    if named_results and not isinstance(document.get("results"), (dict, list)):
        return True  # refused when it is read, by name
    return isinstance(document.get("results"), dict) and (
        named_results or any(sign in document for sign in _SIGNS)
    )


def _group_files(results: list[Path], samples: list[Path]) -> list[LmEvalOutput]:
    outputs: dict[tuple[Path, str], LmEvalOutput] = {}
    for file in results:
        document = read_json(file, DataError)
        if not isinstance(document.get("results"), dict):
            raise DataError(f"{file}: has no 'results'; give a results_*.json of lm-eval")
        place = (file.parent, _stamp_of_results(file))
        if place in outputs:
            raise DataError(
                f"{file}: was written at the same time as {outputs[place].results_file}; keep one of them"
            )
        outputs[place] = LmEvalOutput(folder=place[0], stamp=place[1], results_file=file, document=document)
    for file in sorted(samples):
        stamp = _stamp_of_samples(file)
        output = outputs.setdefault((file.parent, stamp), LmEvalOutput(folder=file.parent, stamp=stamp))
        output.samples[_task_of_samples(file, output.document)] = file
    return sorted(outputs.values(), key=lambda output: (output.stamp, str(output.folder)))


def _stamp_of_results(file: Path) -> str:
    found = _TIME.search(file.stem)
    if found:
        return found[1]
    return file.stem.removeprefix("results_") if file.stem.startswith("results_") else ""


def _stamp_of_samples(file: Path) -> str:
    found = _TIME.search(file.stem)
    if found:
        return found[1]
    return file.stem.rsplit("_", 1)[1] if file.stem.startswith("samples_") else ""


def _task_of_samples(file: Path, document: dict[str, Any]) -> str:
    if file.stem.startswith("samples_"):
        name = file.stem.removeprefix("samples_")
        return _TIME.sub("", name) if _TIME.search(name) else name.rsplit("_", 1)[0]
    known = [str(task) for task in document.get("results", {}) if file.stem.endswith(f"_{task}")]
    if known:
        return max(known, key=len)
    place = file.stem.rfind("kmmlu")  # "<model args>_kmmlu_law"
    return file.stem[max(place, 0) :]
