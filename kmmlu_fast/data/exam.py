"""An exam's declaration, at most 15 lines of YAML: where its rows are, what its columns mean, and its terms.

In: a YAML file. Out: an ``Exam``. Knows nothing of rows (``exam_rows`` reads them) or of prompts.

A declaration::

    title: CLIcK
    hub: EunsuKim/CLIcK            # or  path: my.jsonl  (beside the YAML file)
    configs: [ko]                  # names, patterns ("bar_*"), or name -> its own settings; default: all
    question: question             # a column, or a template: "{premise} ... {question}?"
    context: paragraph             # optional: put before the question, with a blank line between
    options: choices               # a list; or [A, B, C]: columns; {fixed: [..]}; {inside: question}
    answer: answer
    coding: from 1                 # from 0, from 1, letter, or text (the right option's)
    subject: subject               # optional: a column, or {column: id, pattern: ...}; default: the config
    group: subject_category        # optional, likewise
    splits: {test: test, dev: dev} # our name: the data set's; test is measured, dev has the few-shot examples
    licence: none stated
    training: forbidden            # allowed, forbidden, or ask (shows the licence)
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.reading import read_yaml
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.data.default_exam import DEFAULT_EXAM

Coding = Literal["from 0", "from 1", "letter", "text"]
Split = Literal["train", "dev", "test"]


class _ExamModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnPattern(_ExamModel):
    """A column's value: all of it, or the first group of ``pattern`` if that matches."""

    column: str
    pattern: str | None = None

    @model_validator(mode="after")
    def _check_pattern(self) -> ColumnPattern:
        try:
            groups = re.compile(self.pattern).groups if self.pattern else 1
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is not a regular expression ({error})") from error
        if groups != 1:
            raise ValueError(
                f"pattern {self.pattern!r} must have exactly one group in parentheses, the part to use"
            )
        return self


class FixedOptions(_ExamModel):
    """The same options for every row."""

    fixed: list[str] = Field(min_length=2, max_length=len(OPTION_LETTERS))


class InlineOptions(_ExamModel):
    """Options inside a column's text as "A. ...", "(A) ..." or "A: ..."; the question is the text before."""

    inside: str


class ColumnMapping(_ExamModel):
    """What the columns of a table mean; a config may have its own."""

    question: str | None = None
    context: str | None = None
    options: list[str] | str | FixedOptions | InlineOptions | None = None
    answer: str | None = None
    coding: Coding | None = None
    subject: str | ColumnPattern | None = None
    group: str | ColumnPattern | None = None
    explanation: str | None = None


class Exam(ColumnMapping):
    """One exam. ``name`` is the declaration's file name; ``path`` is relative to ``folder``."""

    name: str
    title: str = ""
    title_ko: str = ""
    hub: str | None = None
    path: str | None = None
    configs: list[str] | dict[str, ColumnMapping | None] = []
    splits: dict[Split, str] = {"test": "test"}
    licence: str = "none stated"
    gated: bool = False
    training: Literal["allowed", "forbidden", "ask"] = "ask"
    rows: int | None = None  # questions in test, if known
    options_count: str = ""  # as shown in the list: "5", "4-5"
    subjects: Literal["own", "kmmlu"] = "own"  # kmmlu: KMMLU's 45 subjects and four supercategories
    faulty_rows: Literal["refuse", "skip"] = "refuse"  # skip: leave them out, with a note that counts them
    lm_eval: str | None = None  # the lm-eval task that asks the same questions
    note: str = ""
    korean: dict[str, str] = {}  # Korean names of subjects and groups
    folder: Path | None = None
    declaration: str = ""  # the shipped name, or the file's absolute path

    @model_validator(mode="after")
    def _check_complete(self) -> Exam:
        if (self.hub is None) == (self.path is None):
            raise ValueError("needs either hub (owner/name) or path (a file or directory), and not both")
        for name in (*self.config_names(),) or (None,):
            reading = self.column_mapping(name)
            where = f" (config {name})" if name else ""
            missing = [part for part in ("options", "answer", "coding") if getattr(reading, part) is None]
            if reading.question is None and not isinstance(reading.options, InlineOptions):
                missing.insert(0, "question")
            if missing:
                raise ValueError(f"lacks {', '.join(missing)}{where}")
            if isinstance(reading.options, list) and not 2 <= len(reading.options) <= len(OPTION_LETTERS):
                raise ValueError(
                    f"options names {len(reading.options)} columns{where}; 2 to {len(OPTION_LETTERS)} are"
                    " possible"
                )
        return self

    def config_names(self) -> list[str]:
        """Names or patterns of configs, in the declaration's order; [] = there is only one."""
        return list(self.configs)

    def column_mapping(self, config: str | None) -> ColumnMapping:
        """What the columns mean in that config: its own settings override the exam's."""
        settings = {name: getattr(self, name) for name in ColumnMapping.model_fields}
        own = self.configs.get(config) if isinstance(self.configs, dict) and config is not None else None
        if own:
            settings |= {name: getattr(own, name) for name in own.model_fields_set}
        return ColumnMapping(**settings)

    @property
    def is_kmmlu(self) -> bool:
        """KMMLU's files have their own layout and reader (``dataset``)."""
        return self.name == DEFAULT_EXAM

    @property
    def fingerprint_parts(self) -> dict[str, str]:
        """What a run's fingerprint says of the exam. Nothing for KMMLU: its runs keep the fingerprint they
        had before there were other exams."""
        return {} if self.is_kmmlu else {"exam": self.name}

    @property
    def label(self) -> str:
        return self.title or self.name

    def to_metadata(self) -> dict[str, Any]:
        """What runs and data cards record of the exam."""
        return {
            "name": self.name,
            "title": self.label,
            "source": self.hub or self.path,
            "licence": self.licence,
            "training": self.training,
            "declaration": self.declaration,
        }

    def refuse_training(self, purpose: str) -> None:
        """ConfigError if the declaration forbids training."""
        if self.training == "forbidden":
            note = f"; {self.note}" if self.note else ""
            raise ConfigError(
                f"{purpose}: {self.label} must not be trained on: its declaration says 'training: forbidden'"
                f" (licence: {self.licence}){note}"
            )


def read_exam(path: Path) -> Exam:
    """The exam of a declaration file; ConfigError names all faults on one line."""
    loaded = read_yaml(path, str(path))
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: must be a mapping such as 'hub: owner/name', 'question: question', ...")
    known = {str(key).replace("-", "_"): value for key, value in loaded.items()}
    try:
        return Exam(**{**known, "name": path.stem, "folder": path.parent})
    except ValidationError as error:
        faults = [_describe_fault(detail) for detail in error.errors()]
        raise ConfigError(f"{path}: {'; '.join(dict.fromkeys(faults))}") from error
    except TypeError as error:
        raise ConfigError(f"{path}: {error}") from error


def _describe_fault(detail: Any) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    place = ".".join(str(part) for part in detail["loc"][:1])
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place, Exam.model_fields, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        return f"unknown key {place!r}{hint}"
    return f"{place}: {message[0].lower()}{message[1:]}" if place else str(message)
