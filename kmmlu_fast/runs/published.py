"""What others published, shipped as data: the answers of some runs, and figures of models without answers.

In: ``published:NAME``. Out: ``PublishedRun``s, whose answers ``readers.published_answers`` reads, or
``PublishedFigure``s; ConfigError, with what there is, if the name is of neither. Knows nothing of statistics
or words.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from kmmlu_fast.core.errors import ConfigError

PUBLISHED_PREFIX = "published:"
PUBLISHED_EXAM, PUBLISHED_QUESTIONS = "KMMLU", 35_030  # its test questions
ANSWERS_TABLE = Path(__file__).with_name("published_answers.parquet")
_EVERY = "*"  # published:*, as in a table's FILE:*


class PublishedFigure(BaseModel):
    """One published number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    figure: float = Field(gt=0, lt=100)  # %
    protocol: str = Field(min_length=1)
    metric: Literal["micro", "macro", "unknown"]
    source: str = Field(pattern=r"^https://")
    date: date


class PublishedRun(BaseModel):
    """One run whose answers ship."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w.-]+$")  # its column in ANSWERS_TABLE
    model: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    num_fewshot: int = Field(ge=0)
    column: str  # in the table that it was taken from
    correct: int
    unread: int  # questions without a letter


class PublishedAnswers(BaseModel):
    """The runs whose answers ship, and how they were asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(pattern=r"^https://")
    date: date
    licence: str
    prompt_style: str
    output_type: str
    runs: tuple[PublishedRun, ...]


@cache
def load_published_figures() -> tuple[PublishedFigure, ...]:
    """All shipped figures."""
    import yaml

    content = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    return tuple(TypeAdapter(list[PublishedFigure]).validate_python(content))


@cache
def load_published_answers() -> PublishedAnswers:
    """What the shipped answers are."""
    import yaml

    content = yaml.safe_load(ANSWERS_TABLE.with_suffix(".yaml").read_text(encoding="utf-8"))
    return PublishedAnswers.model_validate(content)


def is_published_argument(argument: str) -> bool:
    return argument.startswith(PUBLISHED_PREFIX)


def find_published_runs(argument: str) -> list[PublishedRun]:
    """The runs of ``published:NAME``, by name or model in any case, or of ``published:*``; [] if only a
    figure has the name. ConfigError for a name of nothing, and for a model that several runs are of.
    """
    wanted = _published_name(argument)
    runs = load_published_answers().runs
    if wanted == _EVERY:
        return list(runs)
    named = [each for each in runs if each.name.lower() == wanted] or _of_model(wanted, runs)
    if len(named) > 1:
        names = ", ".join(PUBLISHED_PREFIX + each.name for each in named)
        raise ConfigError(f"{argument}: {len(named)} published runs are of this model; name one of {names}")
    if not named and not _of_model(wanted, load_published_figures()):
        raise ConfigError(_unknown_name_message(argument))
    return named


def find_published_figures(argument: str) -> list[PublishedFigure]:
    """The figures of ``published:MODEL``, by its id or the part after the slash, in any case; [] if the name
    is of runs with answers. ConfigError for a name of nothing.
    """
    if find_published_runs(argument):
        return []
    return _of_model(_published_name(argument), load_published_figures())


def _published_name(argument: str) -> str:
    return argument.removeprefix(PUBLISHED_PREFIX).strip().lower()


_Entry = TypeVar("_Entry", PublishedFigure, PublishedRun)


def _of_model(wanted: str, entries: Sequence[_Entry]) -> list[_Entry]:
    return [each for each in entries if wanted in (each.model.lower(), _short_name(each.model))]


def _short_name(model: str) -> str:
    return model.lower().split("/")[1]


def _unknown_name_message(argument: str) -> str:
    """The nearest name, and all of them."""
    runs = [each.name for each in load_published_answers().runs]
    models = sorted({each.model for each in load_published_figures()})
    known = {name.lower(): name for name in runs} | {_short_name(model): model for model in models}
    wanted = _published_name(argument)
    near = difflib.get_close_matches(wanted.rpartition("/")[2], known, n=1)
    hint = f", did you mean {PUBLISHED_PREFIX}{known[near[0]]}?" if near else ""
    told = f"{argument}: nothing published has this name{hint}" if wanted else f"{argument} names nothing"
    return f"{told}; runs with answers are {', '.join(runs)}; figures alone, {', '.join(models)}"
