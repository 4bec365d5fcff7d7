"""The record of a watched training: its answers before the first step, and how they were asked.

In: the trainer's output directory, how questions are asked now. Out: the ``CurveRecord`` of an earlier part
of the training, what differs from it, its file. A resumed training continues the curve only if it asks the
same model the same questions in the same way. Knows nothing of trainers or looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kmmlu_fast.core.digests import compute_fingerprint, describe_differences
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.files import read_json, write_json_atomically

_PROMPTS = "prompts"  # the key of ``asked`` that holds a digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRecord:
    """The curve up to a step."""

    training: str  # tells trainings apart in the log of comparisons
    looks: int  # after the first
    step: int  # of the last look
    start: dict[str, str | None]  # predictions before the first step by question id: the first so many asked
    # name of a setting -> its value; {} in records from before it was kept
    asked: dict[str, Any] = field(default_factory=dict)


def model_label(name_or_path: str, output_dir: Path) -> str | None:
    """The last part of a model's name or directory, which stays if files move; None for a model without one,
    or from a directory in the output directory, as this training's checkpoints are.
    """
    if not name_or_path:
        return None
    path = Path(name_or_path).absolute()  # links are not followed: the cache's lead to digests
    if path.is_dir() and path.resolve().is_relative_to(output_dir.resolve()):
        return None
    cached = next((part for part in path.parts if part.startswith("models--")), None)  # of the hub's client
    return cached.rpartition("--")[2] if cached else path.name


def curve_record_path(folder: Path, exam: str) -> Path:
    """In the trainer's output directory, one for each exam that it is watched on."""
    return folder / f"{exam}_watch.json"


def write_curve_record(path: Path, record: CurveRecord) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomically(path, {each: getattr(record, each) for each in CurveRecord.__slots__})


def read_curve_record(path: Path) -> CurveRecord:
    """RunError if there is none, or if it is damaged."""
    values = {"step": 0, "asked": {}, **read_json(path)}
    kinds = {"training": str, "looks": int, "step": int, "start": dict, "asked": dict}
    whole = all(isinstance(values.get(name), kind) for name, kind in kinds.items())
    if not whole or not values["start"] or values["looks"] < 0:
        raise RunError(f"{path}: is not a whole record of watch")
    if not all(isinstance(letter, str | None) for letter in values["start"].values()):
        raise RunError(f"{path}: holds answers that are not letters")
    return CurveRecord(**{name: values[name] for name in kinds})


def find_differences(record: CurveRecord, asked: dict[str, Any], question_ids: Sequence[str]) -> list[str]:
    """What is asked otherwise now, each with both values; [] if the curve goes on. ``question_ids``: as they
    are asked now. A value that is not known, there or here, differs from none.
    """
    known = [name for name, value in record.asked.items() if None not in (value, asked.get(name))]
    there, here = ({name: values[name] for name in known} for values in (record.asked, asked))
    digests = there.pop(_PROMPTS, None), here.pop(_PROMPTS, None)
    named = describe_differences(there, here)
    if named:
        return named
    if set(record.start) != set(question_ids[: len(record.start)]):
        return ["other questions"]
    return ["other prompts for the same questions"] if digests[0] != digests[1] else []


def keep_curve_record(path: Path, record: CurveRecord) -> str:
    """Copy a record that a new curve will replace. Returns the copy's name."""
    digest = compute_fingerprint({"training": record.training, "asked": record.asked}, 8)
    copy = path.with_name(f"{path.stem}-until-{record.step}-{digest}.json")
    write_curve_record(copy, record)
    return copy.name
