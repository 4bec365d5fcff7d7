"""Which exam is meant, and where its rows are: a shipped name, a declaration's file, or a table of one's own.

In: what a user typed after ``--exam`` and ``--dataset``. Out: an ``Exam``, and the place of its rows. Knows
nothing of how rows become
questions.
"""

from __future__ import annotations

import difflib
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.data.dataset import DEFAULT_DATASET as KMMLU_SOURCE
from kmmlu_fast.data.exam import DEFAULT_EXAM, Coding, Exam, read_exam
from kmmlu_fast.data.row_files import READERS, is_hub_id, iter_source_rows

SHIPPED = Path(__file__).with_name("exams")
_OPTION_LISTS = ("options", "choices")
_OWN_ROWS = 1000  # rows of one's own table that are looked at to tell how its answers are coded


@cache
def shipped_exam_names() -> tuple[str, ...]:
    """Names of the declarations that come with the package; KMMLU first."""
    names = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    return tuple(sorted(names, key=lambda name: name != DEFAULT_EXAM))


def find_exam(name_or_file: str) -> Exam:
    """A shipped exam by name, a declaration by its YAML file, or one's own table (JSONL, CSV, ...) with
    default column names."""
    exam = _resolve_exam(name_or_file)
    file = name_or_file.strip().lower().replace("_", "-") not in shipped_exam_names()
    return exam.model_copy(
        update={"declaration": str(expand_path(name_or_file, "--exam").resolve()) if file else exam.name}
    )


def find_exam_by_hub_id(source: str) -> Exam | None:
    """The shipped exam whose data set on the hub that is; None for any other."""
    exams = (find_exam(name) for name in shipped_exam_names())
    return next((exam for exam in exams if (exam.hub or "").lower() == source.lower()), None)


def _resolve_exam(name_or_file: str) -> Exam:
    path = expand_path(name_or_file, "--exam")
    if path.suffix in (".yaml", ".yml"):
        return read_exam(path)
    if path.suffix.lower() in READERS:
        return exam_from_table(path)
    key = name_or_file.strip().lower().replace("_", "-")
    if key in shipped_exam_names():
        return read_exam(SHIPPED / f"{key}.yaml")
    near = difflib.get_close_matches(key, shipped_exam_names(), n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"unknown exam {name_or_file!r}{hint}: give one of {', '.join(shipped_exam_names())}, a declaration (FILE.yaml),"
        " or a table of your own"
    )


def exam_from_table(path: Path) -> Exam:
    """An exam out of a table with the default column names, how its answers are coded read from its rows;
    ConfigError where it cannot be.

    Columns: question; options or choices (a list), or A, B, ...; answer; perhaps subject, group, context,
    explanation.
    """
    if not path.is_file():
        raise ConfigError(
            f"--exam {path}: no such file; give a shipped name ({', '.join(shipped_exam_names())}), a FILE.yaml, or a"
            " table of your own"
        )
    rows = [row for (_, row), _ in zip(iter_source_rows(str(path)), range(_OWN_ROWS), strict=False)]
    columns = list(rows[0])
    lettered = [letter for letter in OPTION_LETTERS if letter in columns]
    in_list = next((name for name in _OPTION_LISTS if name in columns), None)
    missing = [name for name in ("question", "answer") if name not in columns] + (
        [] if in_list or len(lettered) > 1 else ["options"]
    )
    if missing:
        raise ConfigError(
            f"{path}: lacks column {', '.join(missing)}; an exam without a declaration has question, options "
            "(a list) or A, B, ..., "
            f"and answer (has {', '.join(map(str, columns))}); for other names write a declaration: python "
            "-m kmmlu_fast.exams --help"
        )
    optional = {name: name for name in ("context", "subject", "group", "explanation") if name in columns}
    options = in_list or lettered
    return Exam(
        name=re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-").lower() or "own",
        title=path.stem,
        path=str(path),
        question="question",
        options=options,
        answer="answer",
        coding=_detect_coding(path, rows, options),
        training="allowed",
        licence="your own",
        **optional,
    )


def _detect_coding(path: Path, rows: list[dict[str, Any]], options: str | list[str]) -> Coding:
    """How the answers are written, where the rows leave no doubt: letters, option texts, or numbers of which
    one gives the origin away."""
    answers = [str(row["answer"]).strip() for row in rows if row.get("answer") is not None]
    texts = [
        [
            str(o).strip()
            for o in (row.get(options) or [] if isinstance(options, str) else [row.get(c) for c in options])
        ]
        for row in rows
    ]
    if not answers:
        raise DataError(
            f"{path}: column answer is empty; it must hold each question's letter, or the right option's text"
        )
    if all(re.fullmatch(r"[(\[]?[A-Za-z][)\].]?", answer) for answer in answers):
        return "letter"
    if all(re.fullmatch(r"\d{1,2}", answer) for answer in answers):
        if "0" in answers:
            return "from 0"
        if any(
            answer == str(len([o for o in found if o not in ("", "None")]))
            for answer, found in zip(answers, texts, strict=False)
        ):
            return "from 1"
    elif sum(answer in found for answer, found in zip(answers, texts, strict=False)) >= 0.9 * len(answers):
        return "text"  # the few that are not among their options are faults, named as such
    raise ConfigError(
        f"{path}: column answer ({', '.join(sorted(set(answers))[:5])}) does not say how it counts; write a "
        "declaration with "
        "'coding: from 0', 'from 1', 'letter' or 'text'"
    )


def resolve_exam_source(exam: Exam, dataset: str | None) -> str:
    """Where the rows are: ``--dataset`` where given, else the declaration's hub id, or its path beside the
    declaration."""
    if dataset is not None:
        if not is_hub_id(dataset) and not expand_path(dataset, "--dataset").exists():
            raise ConfigError(
                f"--dataset {dataset}: no such file or directory; give {exam.label}'s files, or leave it out"
                " to use the hub"
            )
        return dataset
    if exam.hub is not None:
        return exam.hub
    path = expand_path(exam.path or "", "path")
    return str(path if path.is_absolute() or exam.folder is None else exam.folder / path)


def find_exams(names: list[str]) -> list[Exam]:
    """The exams of ``--exam``, in order; ConfigError where two have the same name."""
    exams = [find_exam(name) for name in names]
    twice = [
        exam.name for place, exam in enumerate(exams) if exam.name in [other.name for other in exams[:place]]
    ]
    if twice:
        raise ConfigError(f"--exam {twice[0]}: is given twice; name each exam once")
    return exams


def dataset_for_exam(dataset: str, exam: Exam, exams: list[Exam]) -> str | None:
    """Where ``--dataset`` puts that exam's rows: ``PATH``, or ``NAME=PATH`` for each of several; None: where
    its declaration says.

    A plain value that is not for a single exam is KMMLU's, as it was before there were others.
    """
    if "=" in dataset and not Path(dataset).exists():
        pairs = dict(part.partition("=")[::2] for part in dataset.split(","))
        unknown = [name for name in pairs if name not in [one.name for one in exams]]
        if unknown:
            raise ConfigError(
                f"--dataset {unknown[0]}=...: is none of the exams {', '.join(one.name for one in exams)}"
            )
        return pairs.get(exam.name) or None
    if exam.is_kmmlu:
        return dataset
    return dataset if len(exams) == 1 and dataset != KMMLU_SOURCE else None


def is_exam_cached(exam: Exam) -> bool:
    """Whether the hub's cache on this machine holds a copy (perhaps of some files only)."""
    if exam.hub is None:
        return False
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    snapshots = hub / f"datasets--{exam.hub.replace('/', '--')}" / "snapshots"
    return snapshots.is_dir() and any(snapshots.iterdir())
