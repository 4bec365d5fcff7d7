"""Finds an exam and its rows from a shipped name, a declaration file, or the user's own table.

In: the values of ``--exam`` and ``--dataset``. Out: an ``Exam``, and where its rows are. Knows nothing of
how rows become questions.
"""

from __future__ import annotations

import difflib
import os
from functools import cache
from pathlib import Path

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.data.default_exam import DEFAULT_DATASET as KMMLU_SOURCE
from kmmlu_fast.data.default_exam import DEFAULT_EXAM
from kmmlu_fast.data.exam import Exam, read_exam
from kmmlu_fast.data.file_formats import is_row_file
from kmmlu_fast.data.hub_rows import is_hub_id

SHIPPED = Path(__file__).with_name("exams")


@cache
def shipped_exam_names() -> tuple[str, ...]:
    """Names of the shipped declarations; KMMLU first."""
    names = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    return tuple(sorted(names, key=lambda name: name != DEFAULT_EXAM))


def find_exam(name_or_file: str) -> Exam:
    """A shipped exam by name, a declaration by its YAML file, or the user's own table (JSONL, CSV, ...) with
    default column names."""
    exam = _resolve_exam(name_or_file)
    declaration = exam.name
    if _shipped_key(name_or_file) not in shipped_exam_names():
        declaration = str(expand_path(name_or_file, "--exam").resolve())
    return exam.model_copy(update={"declaration": declaration})


def _shipped_key(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def find_exam_by_hub_id(source: str) -> Exam | None:
    """The shipped exam with that data set on the hub, or None."""
    exams = (find_exam(name) for name in shipped_exam_names())
    return next((exam for exam in exams if (exam.hub or "").lower() == source.lower()), None)


def _resolve_exam(name_or_file: str) -> Exam:
    path = expand_path(name_or_file, "--exam")
    if path.suffix in (".yaml", ".yml"):
        return read_exam(path)
    if is_row_file(path):
        from kmmlu_fast.data.table_exam import exam_from_table  # brings the readers of foreign rows along

        if not path.is_file():
            raise ConfigError(
                f"--exam {path}: no such file; give a shipped name ({', '.join(shipped_exam_names())}), a"
                " FILE.yaml, or a table of your own"
            )
        return exam_from_table(path)
    key = _shipped_key(name_or_file)
    if key in shipped_exam_names():
        return read_exam(SHIPPED / f"{key}.yaml")
    near = difflib.get_close_matches(key, shipped_exam_names(), n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"unknown exam {name_or_file!r}{hint}: give one of {', '.join(shipped_exam_names())}, a declaration"
        " (FILE.yaml), or a table of your own"
    )


def resolve_exam_source(exam: Exam, dataset: str | None) -> str:
    """Where the rows are: ``--dataset`` if given, else the declaration's hub id or path."""
    if dataset is not None:
        if not is_hub_id(dataset) and not expand_path(dataset, "--dataset").exists():
            raise ConfigError(
                f"--dataset {dataset}: no such file or directory; give {exam.label}'s files, or omit it to"
                " use the hub"
            )
        return dataset
    if exam.hub is not None:
        return exam.hub
    path = expand_path(exam.path or "", "path")
    return str(path if path.is_absolute() or exam.folder is None else exam.folder / path)


def find_exams(names: list[str]) -> list[Exam]:
    """The exams of ``--exam``, in order; ConfigError if two have the same name."""
    exams: dict[str, Exam] = {}
    for exam in map(find_exam, names):
        if exam.name in exams:
            raise ConfigError(f"--exam {exam.name}: is given twice; name each exam once")
        exams[exam.name] = exam
    return list(exams.values())


def dataset_for_exam(dataset: str, exam: Exam, exams: list[Exam]) -> str | None:
    """That exam's rows as ``--dataset`` gives them: ``PATH``, or ``NAME=PATH,...`` for several exams. None:
    as its declaration says.

    With several exams, a plain ``PATH`` is KMMLU's.
    """
    if "=" in dataset and not Path(dataset).exists():
        pairs = dict(part.partition("=")[::2] for part in dataset.split(","))
        names = [one.name for one in exams]
        unknown = [name for name in pairs if name not in names]
        if unknown:
            raise ConfigError(f"--dataset {unknown[0]}=...: is not one of the exams {', '.join(names)}")
        return pairs.get(exam.name) or None
    if exam.is_kmmlu:
        return dataset
    return dataset if len(exams) == 1 and dataset != KMMLU_SOURCE else None


def is_exam_cached(exam: Exam) -> bool:
    """Whether this machine's hub cache has a copy, possibly of some files only."""
    if exam.hub is None:
        return False
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    snapshots = hub / f"datasets--{exam.hub.replace('/', '--')}" / "snapshots"
    return snapshots.is_dir() and any(snapshots.iterdir())
