"""Chat templates as bounded programs: compiled once, rendered with limits on steps, text and time.

In: a Jinja template, messages and variables. Out: the text, byte for byte what transformers renders, or a
``TemplateFailure`` that says why there is none. A template comes from the internet: a loop of 10^10 steps or
a text that doubles itself must end in a message, not in a hang. Every loop round, call and filter is counted,
every text that is written or joined is measured. Knows nothing of tokenizers or questions.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from kmmlu_fast.core.untrusted_text import one_line

# The date that every template is given as today's, so that runs of two days have the same prompts. It is the
# one that Llama's own template falls back on.
TEMPLATE_DATE = datetime.datetime(2024, 7, 26, 12, 0, 0)
MAX_SOURCE_CHARS = 1_000_000
MAX_STEPS = 200_000  # two seconds; a conversation of a thousand turns takes some ten thousand
MAX_CHARS = 20_000_000  # written by one rendering, or held in one text
MAX_SECONDS = 10.0  # for what steps and characters do not count
_MAX_INT_BITS = 4096
_MAX_ITEMS = 1_000_000
_CLOCK_EVERY = 256


class TemplateFailure(Exception):
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
            raise TemplateFailure(f"takes more than {MAX_STEPS:,} steps")
        if before // _CLOCK_EVERY != self.steps // _CLOCK_EVERY and time.monotonic() > self.until_sec:
            raise TemplateFailure(f"takes more than {MAX_SECONDS:.0f} seconds")

    def spend_chars(self, count: int) -> None:
        self.chars -= count
        if self.chars < 0:
            raise TemplateFailure(f"writes more than {MAX_CHARS:,} characters")


_budget: ContextVar[_Budget] = ContextVar("template_budget")


@dataclass(frozen=True, slots=True)
class CompiledTemplate:
    """A template that can be rendered, and the names of the variables that it reads."""

    source: str
    variables: frozenset[str]
    _template: Any

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any],
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """The text of these messages; TemplateFailure if the template refuses them or goes over a limit."""
        given = {"tools": None, "documents": None, **variables}
        token = _budget.set(_Budget())
        try:
            return str(
                self._template.render(
                    messages=[dict(message) for message in messages],
                    add_generation_prompt=add_generation_prompt,
                    **given,
                )
            )
        except TemplateFailure:
            raise
        except RecursionError as error:
            raise TemplateFailure("calls itself without an end") from error
        except MemoryError as error:
            raise TemplateFailure("needs more memory than there is") from error
        except Exception as error:  # a template's own raise_exception, and any fault of its code
            raise TemplateFailure(one_line(str(error) or type(error).__name__, 200)) from error
        finally:
            _budget.reset(token)


@functools.lru_cache(maxsize=64)
def compile_template(source: str) -> CompiledTemplate:
    """The template; TemplateFailure with the line if it is not valid Jinja."""
    from jinja2 import TemplateSyntaxError, meta

    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateFailure(f"is longer than {MAX_SOURCE_CHARS:,} characters, so it is not a chat template")
    environment = _make_environment()
    try:
        template = environment.from_string(source)
        variables = meta.find_undeclared_variables(environment.parse(source))
    except TemplateSyntaxError as error:
        raise TemplateFailure(
            f"is not valid Jinja: line {error.lineno}: {one_line(str(error.message), 200)}"
        ) from error
    except Exception as error:  # constant expressions are computed while compiling
        raise TemplateFailure(f"does not compile ({one_line(str(error), 200)})") from error
    return CompiledTemplate(source, frozenset(variables), template)


def _check_size(value: Any) -> Any:
    """The value, if it is not too large to be worked with."""
    if isinstance(value, str) and len(value) > MAX_CHARS:
        raise TemplateFailure(f"holds a text of more than {MAX_CHARS:,} characters")
    if isinstance(value, (list, tuple, dict)) and len(value) > _MAX_ITEMS:
        raise TemplateFailure(f"holds a list of more than {_MAX_ITEMS:,} items")
    if type(value) is int and value.bit_length() > _MAX_INT_BITS:
        raise TemplateFailure("computes with a number that is too large")
    return value


def _check_product(left: Any, right: Any) -> None:
    for text, count in ((left, right), (right, left)):
        if isinstance(text, (str, list, tuple)) and isinstance(count, int):
            limit = MAX_CHARS if isinstance(text, str) else _MAX_ITEMS
            if len(text) * max(count, 0) > limit:
                raise TemplateFailure("repeats a text or a list too often")


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MAX_INT_BITS:
        raise TemplateFailure("computes with a number that is too large")


def _check_arguments(arguments: Sequence[Any]) -> None:
    """A width or a count of millions makes a text of as many characters in one call."""
    for argument in arguments:
        if type(argument) is int and abs(argument) > _MAX_ITEMS:
            raise TemplateFailure(f"calls a function with the number {argument:.3g}")


def _count_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, with a step for every item that it goes through."""

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        budget = _budget.get(None) or _Budget()
        for argument in args[:2]:
            if isinstance(argument, (list, tuple, dict)):
                budget.spend_steps(_count_items(argument, budget.steps))
            elif isinstance(argument, range):
                budget.spend_steps(len(argument))
            elif isinstance(argument, str):
                budget.spend_steps(1 + len(argument) // 1000)
        _check_arguments([*args, *kwargs.values()])
        return _check_size(function(*args, **kwargs))

    return counted


@functools.cache
def _make_environment() -> Any:
    """transformers' environment for chat templates, counted: the same options, filters and functions."""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.visitor import NodeTransformer

    class GenerationBlock(Extension):
        """``{% generation %}`` marks what an assistant wrote; it changes no text."""

        tags = {"generation"}  # noqa: RUF012 - jinja's own form

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

        def _write(self, caller: Callable[[], str]) -> str:
            return caller()

    class CountSteps(NodeTransformer):
        """A step at the start of every loop round, and joined texts through a function that measures."""

        def __init__(self, environment: Any) -> None:
            self._environment = environment

        def _call(self, name: str, arguments: list[Any], line: int) -> Any:
            function = nodes.EnvironmentAttribute(name)
            call = nodes.Call(function, arguments, [], None, None)
            return call.set_lineno(line).set_environment(self._environment)

        def visit_For(self, node: Any) -> Any:
            self.generic_visit(node)
            step = nodes.ExprStmt(self._call("count_step", [], node.lineno)).set_lineno(node.lineno)
            node.body.insert(0, step.set_environment(self._environment))
            return node

        def visit_Concat(self, node: Any) -> Any:
            self.generic_visit(node)
            return self._call("join_texts", list(node.nodes), node.lineno)

    class CountedEnvironment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})

        def _generate(self, source: Any, *args: Any, **kwargs: Any) -> Any:
            return super()._generate(CountSteps(self).visit(source), *args, **kwargs)

        def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
            _budget.get().spend_steps()
            _check_arguments([*args, *kwargs.values()])
            _check_format_method(obj)
            return _check_size(super().call(context, obj, *args, **kwargs))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "*":
                _check_product(left, right)
            elif operator == "**":
                _check_power(left, right)
            elif operator == "%" and isinstance(left, str):
                return _format_percent(left, right)
            return _check_size(super().call_binop(context, operator, left, right))

        def count_step(self) -> str:
            return ""  # counted by ``call``

        def join_texts(self, *parts: Any) -> str:
            return "".join(map(str, parts))

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def strftime_now(form: str) -> str:
        return TEMPLATE_DATE.strftime(str(form)[:1000])

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    environment = CountedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[GenerationBlock, loopcontrols],
        finalize=_measure_output,
    )
    environment.filters["tojson"] = tojson
    environment.filters = {name: _count_filter(function) for name, function in environment.filters.items()}
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def _measure_output(value: Any) -> Any:
    """Counts what ``{{ }}`` writes; constants are written while compiling, when nothing is counted yet."""
    budget = _budget.get(None)
    if budget is not None:
        if isinstance(value, (list, tuple, dict)):
            budget.spend_steps(_count_items(value, budget.steps))
        budget.spend_chars(len(value) if isinstance(value, str) else 1)
    return value


def _count_items(value: Any, most: int) -> int:
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


def _format_percent(form: str, values: Any) -> str:
    """``"%s" % x`` without widths of millions."""
    if "*" in form:
        raise TemplateFailure("formats a text with a width that is not in the text")
    _check_widths(form)
    return str(_check_size(form % values))


def _check_format_method(function: Any) -> None:
    """``"{}".format(x)`` likewise."""
    bound = getattr(function, "__wrapped__", function)  # the sandbox wraps both
    form = getattr(bound, "__self__", None)
    if isinstance(form, str) and getattr(bound, "__name__", "") in ("format", "format_map"):
        _check_widths(form)


def _check_widths(form: str) -> None:
    if re.search(r"\d{7}", form):
        raise TemplateFailure("formats a text with a width that is too large")
