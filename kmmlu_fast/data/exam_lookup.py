"""Finds an exam and its rows from a shipped name, a declaration file, or the user's own table.

In: the values of ``--exam`` and ``--dataset``. Out: an ``Exam``, and where its rows are. Knows nothing of
how rows become questions.
"""

from __future__ import annotations

import difflib
import os
import re
from functools import cache
from itertools import islice
from pathlib import Path

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.data.answer_coding import CodingEvidence
from kmmlu_fast.data.default_exam import DEFAULT_DATASET as KMMLU_SOURCE
from kmmlu_fast.data.default_exam import DEFAULT_EXAM
from kmmlu_fast.data.exam import Coding, ColumnMapping, Exam, read_exam
from kmmlu_fast.data.file_formats import is_row_file
from kmmlu_fast.data.hub_rows import is_hub_id
from kmmlu_fast.data.question_cells import read_options
from kmmlu_fast.data.records import OPTION_LIST_COLUMNS
from kmmlu_fast.data.row_files import iter_source_rows

SHIPPED = Path(__file__).with_name("exams")
_COLUMN_ROWS = 1000  # rows of a user's table that are read to find its columns


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


def exam_from_table(path: Path) -> Exam:
    """An exam from a table with default column names; ConfigError if it cannot be one.

    Columns: question; options or choices (a list), or A, B, ...; answer; optionally subject, group, context,
    explanation. The answers' coding is detected from the rows.
    """
    if not path.is_file():
        raise ConfigError(
            f"--exam {path}: no such file; give a shipped name ({', '.join(shipped_exam_names())}), a"
            " FILE.yaml, or a table of your own"
        )
    head = [row for _, row in islice(iter_source_rows(str(path)), _COLUMN_ROWS)]
    columns = list(dict.fromkeys(name for row in head for name in row))
    lettered = [letter for letter in OPTION_LETTERS if letter in columns]
    list_column = next((name for name in OPTION_LIST_COLUMNS if name in columns), None)
    missing = [name for name in ("question", "answer") if name not in columns]
    if list_column is None and len(lettered) < 2:
        missing.append("options")
    if missing:
        raise ConfigError(
            f"{path}: lacks column {', '.join(missing)}; an exam without a declaration has question, options"
            f" (a list) or A, B, ..., and answer (has {', '.join(map(str, columns))}); for other names write"
            " a declaration: python -m kmmlu_fast.exams --help"
        )
    optional = {name: name for name in ("context", "subject", "group", "explanation") if name in columns}
    options = list_column or lettered
    return Exam(
        name=re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-").lower() or "own",
        title=path.stem,
        path=str(path),
        question="question",
        options=options,
        answer="answer",
        coding=_detect_table_coding(path, options),
        training="allowed",
        licence="your own",
        **optional,
    )


def _detect_table_coding(path: Path, options: str | list[str]) -> Coding:
    """How the table's answers are coded. ConfigError says which line settles it if the rows leave doubt."""
    evidence = CodingEvidence()
    reading = ColumnMapping(question="question", options=options, answer="answer")
    for number, row in iter_source_rows(str(path)):
        try:
            cells, _ = read_options(row, reading, f"{path} row {number}")
        except DataError as error:  # a fault of the row, which reading the exam names
            evidence.fault = evidence.fault or error
            continue
        evidence.add_row(row.get("answer"), cells, row)
        if evidence.is_settled():
            break
    listed = options if isinstance(options, str) else f"[{', '.join(options)}]"
    return evidence.decide(
        str(path),
        f"write a declaration, {path.stem}.yaml beside it: 'path: {path.name}', 'question: question',"
        f" 'options: {listed}', 'answer: answer', and 'coding: from 1' (or from 0, letter, text)",
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
