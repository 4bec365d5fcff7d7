"""Limits on what a chat template may compute: steps, written and held text, seconds.

In: values and calls of a template that is being rendered. Out: ``TemplateRenderingError`` if a limit is
passed. ``bounded_rendering`` starts the count. Knows nothing of Jinja.
"""

from __future__ import annotations

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

MAX_STEPS = 200_000  # two seconds; a conversation of a thousand turns takes some ten thousand
MAX_CHARS = 20_000_000  # written by one rendering, or held in one text
MAX_SECONDS = 10.0  # for what steps and characters do not count
_MAX_INT_BITS = 4096
_MAX_ITEMS = 1_000_000
_CLOCK_EVERY = 256


class TemplateRenderingError(Exception):
    """A template that does not compile, refuses its messages or goes over a limit."""


@dataclass(slots=True)
class _Budget:
    steps: int = MAX_STEPS
    chars: int = MAX_CHARS
    until_sec: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)

    def spend_steps(self, count: int = 1) -> None:
        before = self.steps
        self.steps -= count
        if self.steps < 0:
            raise TemplateRenderingError(f"takes more than {MAX_STEPS:,} steps")
        if before // _CLOCK_EVERY != self.steps // _CLOCK_EVERY and time.monotonic() > self.until_sec:
            raise TemplateRenderingError(f"takes more than {MAX_SECONDS:.0f} seconds")

    def spend_chars(self, count: int) -> None:
        self.chars -= count
        if self.chars < 0:
            raise TemplateRenderingError(f"writes more than {MAX_CHARS:,} characters")


_budget: ContextVar[_Budget] = ContextVar("template_budget")


@contextlib.contextmanager
def bounded_rendering() -> Iterator[None]:
    """Counts anew what is computed within."""
    token = _budget.set(_Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def spend_step() -> None:
    """Count one step; outside of a rendering nothing is counted."""
    budget = _budget.get(None)
    if budget is not None:
        budget.spend_steps()


def check_value_size(value: Any) -> Any:
    """The value, if it is not too large to be worked with."""
    if isinstance(value, str) and len(value) > MAX_CHARS:
        raise TemplateRenderingError(f"holds a text of more than {MAX_CHARS:,} characters")
    if isinstance(value, (list, tuple, dict)) and len(value) > _MAX_ITEMS:
        raise TemplateRenderingError(f"holds a list of more than {_MAX_ITEMS:,} items")
    if type(value) is int and value.bit_length() > _MAX_INT_BITS:
        raise TemplateRenderingError("computes with a number that is too large")
    return value


def check_product(left: Any, right: Any) -> None:
    for text, count in ((left, right), (right, left)):
        if isinstance(text, (str, list, tuple)) and isinstance(count, int):
            limit = MAX_CHARS if isinstance(text, str) else _MAX_ITEMS
            if len(text) * max(count, 0) > limit:
                raise TemplateRenderingError("repeats a text or a list too often")


def check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MAX_INT_BITS:
        raise TemplateRenderingError("computes with a number that is too large")


def check_call_arguments(arguments: Sequence[Any]) -> None:
    """A width or a count of millions makes a text of as many characters in one call."""
    for argument in arguments:
        if type(argument) is int and abs(argument) > _MAX_ITEMS:
            raise TemplateRenderingError(f"calls a function with the number {argument:.3g}")


def count_filter_steps(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, with a step for every item that it goes through."""

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        budget = _budget.get(None) or _Budget()
        for argument in args[:2]:
            if isinstance(argument, (list, tuple, dict)):
                budget.spend_steps(count_items(argument, budget.steps))
            elif isinstance(argument, range):
                budget.spend_steps(len(argument))
            elif isinstance(argument, str):
                budget.spend_steps(1 + len(argument) // 1000)
        check_call_arguments([*args, *kwargs.values()])
        return check_value_size(function(*args, **kwargs))

    return counted


def measure_output(value: Any) -> Any:
    """Counts what ``{{ }}`` writes; constants are written while compiling, when nothing is counted yet."""
    budget = _budget.get(None)
    if budget is not None:
        if isinstance(value, (list, tuple, dict)):
            budget.spend_steps(count_items(value, budget.steps))
        budget.spend_chars(len(value) if isinstance(value, str) else 1)
    return value


def count_items(value: Any, most: int) -> int:
    """Items in a nested value, or more than ``most``: a list that holds itself twice, forty times over, is
    small in memory and endless as text.
    """
    count, pending = 0, [value]
    while pending and count <= most:
        item = pending.pop()
        count += 1
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)
        elif isinstance(item, str):
            count += len(item) // 100
    return count


def apply_percent_format(form: str, values: Any) -> str:
    """``"%s" % x`` without widths of millions."""
    if "*" in form:
        raise TemplateRenderingError("formats a text with a width that is not in the text")
    _check_widths(form)
    return str(check_value_size(form % values))


def check_format_method(function: Any) -> None:
    """``"{}".format(x)`` likewise."""
    bound = getattr(function, "__wrapped__", function)  # the sandbox wraps both
    form = getattr(bound, "__self__", None)
    if isinstance(form, str) and getattr(bound, "__name__", "") in ("format", "format_map"):
        _check_widths(form)


def _check_widths(form: str) -> None:
    if re.search(r"\d{7}", form):
        raise TemplateRenderingError("formats a text with a width that is too large")
