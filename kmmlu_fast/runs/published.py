"""Published figures, shipped as data: what a model scored, under which protocol, and where that is written.

In: ``published:MODEL``, as an argument of compare. Out: ``PublishedFigure``s; ConfigError if there are none.
Knows nothing of statistics or words.
"""

from __future__ import annotations

import difflib
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from kmmlu_fast.core.errors import ConfigError

PUBLISHED_PREFIX = "published:"
PUBLISHED_EXAM, PUBLISHED_QUESTIONS = "KMMLU", 35_030  # its test questions


class PublishedFigure(BaseModel):
    """One published number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    figure: float = Field(gt=0, lt=100)  # %
    protocol: str = Field(min_length=1)
    metric: Literal["micro", "macro", "unknown"]
    source: str = Field(pattern=r"^https://")
    date: date


@cache
def load_published_figures() -> tuple[PublishedFigure, ...]:
    """All shipped figures."""
    import yaml

    content = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    return tuple(TypeAdapter(list[PublishedFigure]).validate_python(content))


def is_published_argument(argument: str) -> bool:
    return argument.startswith(PUBLISHED_PREFIX)


def find_published_figures(argument: str) -> list[PublishedFigure]:
    """The figures of ``published:MODEL``; the model by its id or the part after the slash, in any case."""
    wanted = argument.removeprefix(PUBLISHED_PREFIX).strip().lower()
    figures = load_published_figures()
    found = [each for each in figures if wanted in (each.model.lower(), each.model.lower().split("/")[1])]
    if not found:
        names = sorted({each.model for each in figures})
        short = {name.lower().split("/")[1]: name for name in names}
        near = difflib.get_close_matches(wanted.rpartition("/")[2], short, n=1)
        hint = f", did you mean {short[near[0]]}?" if near else ""
        raise ConfigError(f"{argument}: no published figure{hint}; known are {', '.join(names)}")
    return found
