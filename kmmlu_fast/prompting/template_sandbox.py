"""Chat templates as bounded programs: compiled once, rendered with limits on steps, text and time.

In: a Jinja template, messages and variables. Out: the text, byte for byte what transformers renders, or a
``TemplateRenderingError`` that says why there is none. A template comes from the internet: a loop of 10^10
steps or a text that doubles itself must end in a message, not in a hang. Every loop round, call and filter is
counted, every text that is written or joined is measured (``template_limits``). Knows nothing of tokenizers
or questions.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.prompting.template_limits import (
    TemplateRenderingError,
    apply_percent_format,
    bounded_rendering,
    check_call_arguments,
    check_format_method,
    check_power,
    check_product,
    check_value_size,
    count_filter_steps,
    measure_output,
    spend_step,
)

# The date that every template is given as today's, so that runs of two days have the same prompts. It is the
# one that Llama's own template falls back on.
TEMPLATE_DATE = datetime.datetime(2024, 7, 26, 12, 0, 0)
MAX_SOURCE_CHARS = 1_000_000


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
        """The text; TemplateRenderingError if the template refuses these messages or goes over a limit."""
        given = {"tools": None, "documents": None, **variables}
        copies = [dict(message) for message in messages]
        try:
            with bounded_rendering():
                return str(
                    self._template.render(
                        messages=copies, add_generation_prompt=add_generation_prompt, **given
                    )
                )
        except TemplateRenderingError:
            raise
        except RecursionError as error:
            raise TemplateRenderingError("calls itself without an end") from error
        except MemoryError as error:
            raise TemplateRenderingError("needs more memory than there is") from error
        except Exception as error:  # a template's own raise_exception, and any fault of its code
            raise TemplateRenderingError(one_line(str(error) or type(error).__name__, 200)) from error


@functools.lru_cache(maxsize=64)
def compile_template(source: str) -> CompiledTemplate:
    """The template; TemplateRenderingError with the line if it is not valid Jinja."""
    from jinja2 import TemplateSyntaxError, meta

    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateRenderingError(
            f"is longer than {MAX_SOURCE_CHARS:,} characters, so it is not a chat template"
        )
    environment = _make_environment()
    try:
        template = environment.from_string(source)
        variables = meta.find_undeclared_variables(environment.parse(source))
    except TemplateSyntaxError as error:
        raise TemplateRenderingError(
            f"is not valid Jinja: line {error.lineno}: {one_line(str(error.message), 200)}"
        ) from error
    except Exception as error:  # constant expressions are computed while compiling
        raise TemplateRenderingError(f"does not compile ({one_line(str(error), 200)})") from error
    return CompiledTemplate(source, frozenset(variables), template)


@functools.cache
def _make_environment() -> Any:
    """transformers' environment for chat templates, counted: the same options, filters and functions."""
    from jinja2.ext import loopcontrols

    environment = _counted_environment_class()(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_generation_block(), loopcontrols],
        finalize=measure_output,
    )
    environment.filters["tojson"] = _tojson
    filters = environment.filters.items()
    environment.filters = {name: count_filter_steps(function) for name, function in filters}
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _generation_block() -> Any:
    from jinja2 import nodes
    from jinja2.ext import Extension

    class GenerationBlock(Extension):
        """``{% generation %}`` marks what an assistant wrote; it changes no text."""

        tags = {"generation"}  # noqa: RUF012 - jinja's own form

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

        def _write(self, caller: Callable[[], str]) -> str:
            return caller()

    return GenerationBlock


def _step_counter() -> Any:
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    class StepCounter(NodeTransformer):
        """A step at the start of every loop round, and joined texts through a function that measures."""

        def __init__(self, environment: Any) -> None:
            self._environment = environment

        def _call(self, name: str, arguments: list[Any], line: int) -> Any:
            function = nodes.EnvironmentAttribute(name)
            call = nodes.Call(function, arguments, [], None, None)
            return call.set_lineno(line).set_environment(self._environment)

        def visit_For(self, node: Any) -> Any:  # noqa: N802 - jinja's own form
            self.generic_visit(node)
            step = nodes.ExprStmt(self._call("count_step", [], node.lineno)).set_lineno(node.lineno)
            node.body.insert(0, step.set_environment(self._environment))
            return node

        def visit_Concat(self, node: Any) -> Any:  # noqa: N802 - jinja's own form
            self.generic_visit(node)
            return self._call("join_texts", list(node.nodes), node.lineno)

    return StepCounter


def _counted_environment_class() -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    step_counter = _step_counter()

    class CountedEnvironment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})
        count_step = staticmethod(spend_step)

        def _generate(self, source: Any, *args: Any, **kwargs: Any) -> Any:
            return super()._generate(step_counter(self).visit(source), *args, **kwargs)

        def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
            spend_step()
            if obj is spend_step:  # a loop's round
                return ""
            check_call_arguments([*args, *kwargs.values()])
            check_format_method(obj)
            return check_value_size(super().call(context, obj, *args, **kwargs))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "*":
                check_product(left, right)
            elif operator == "**":
                check_power(left, right)
            elif operator == "%" and isinstance(left, str):
                return apply_percent_format(left, right)
            return check_value_size(super().call_binop(context, operator, left, right))

        def join_texts(self, *parts: Any) -> str:
            return "".join(map(str, parts))

    return CountedEnvironment


def _raise_exception(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return TEMPLATE_DATE.strftime(str(form)[:1000])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
