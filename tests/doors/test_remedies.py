"""Every flag that a message names exists where the message appears, and takes the value that is named.

The messages are collected from the package's source, so that a new one is checked too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.help_text import CONFIGS, load_config_class, negated_flag
from kmmlu_fast.core.errors import ConfigError

PACKAGE = Path(__file__).parents[2] / "kmmlu_fast"
_FLAG = re.compile(r"(?<![\w(-])--[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
# The verbs whose users can see a wing's messages; a message that names a verb itself is of that one too.
_EVERY = tuple(CONFIGS)
VERBS = {
    "training": ("train",),
    "train": ("train",),
    "sampling": ("sample",),
    "evaluation": ("eval",),
    "engines": ("eval",),
    "engines/warm": ("eval", "serve-engine"),
    "contamination": ("leakage", "train"),
    "reporting": ("compare", "report", "plan", "eval"),
    "compare": ("compare",),
    "report": ("report",),
    "shipping": ("export", "check", "push", "verify"),
}
# Flags of other programs, by the words that stand before them in the message.
OTHER_PROGRAMS = (
    "pip install",
    "ray start",
    "mlx_lm fuse",
    "start it with",
    "start the server with",
    "the container with",
    "log them (",
    "kmmlu_fast.exams",
    "llama.cpp's",
)
# Modules whose strings are not messages: command lines of other programs, styles, help of hand-made parsers.
OTHER_MODULES = {
    "install.py",
    "doctor.py",
    "exams.py",
    "cli.py",
    "api.py",
    "machine/environment.py",
    "machine/gpus.py",
    "machine/preflight.py",
    "shipping/eval_yaml.py",
    "shipping/llama_tools.py",
    "reporting/charts/drawing.py",
    "command/flags.py",
    "command/help_text.py",
}
_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*|\{\}.*|NAME=.*|OUR=.*|FILE.*|\.\.\.|DIR.*")


@dataclass(frozen=True)
class Message:
    """A string of the package that names a flag; values that are filled in later are ``{}``."""

    place: str
    text: str

    @property
    def verbs(self) -> tuple[str, ...]:
        top = self.place.split("/")[0].split(".py")[0]
        named = re.findall(r"(?:kmmlu_fast\.|kmmlu-fast |\brun )(\w+)", self.text)
        named += re.findall(r"\b([a-z]+) --", self.text)
        own = VERBS.get("/".join(self.place.split("/")[:2]), VERBS.get(top, _EVERY))
        return tuple(dict.fromkeys([*own, *(verb for verb in named if verb in CONFIGS)]))


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The strings that are no docstrings; the values of an f-string as ``{}``."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in ast.walk(node)}
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Expr):
            skipped.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


@cache
def collect_messages() -> tuple[Message, ...]:
    """All messages of the package that name a flag."""
    messages = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        if module in OTHER_MODULES:
            continue
        for line, text in _strings(ast.parse(path.read_text(encoding="utf-8"))):
            if _FLAG.search(text) and " " in text:
                messages.append(Message(f"{module}:{line}", " ".join(text.split())))
    return tuple(messages)


@cache
def flags_of(verb: str) -> dict[str, str]:
    """A verb's flags with their fields."""
    fields = load_config_class(verb).model_fields
    positional = load_config_class(verb).positional
    flags = {"--" + name.replace("_", "-"): name for name in fields if name != positional}
    flags |= {negated_flag(name): name for name, field in fields.items() if field.annotation is bool}
    return flags | {"--config": "", "--help": ""}


def named_flags(message: Message) -> list[tuple[str, str]]:
    """(flag, the words behind it) for every flag that is one of this package's."""
    found = []
    for match in _FLAG.finditer(message.text):
        clause = re.split(r"[;:]", message.text[: match.start()])[-1]
        if not any(program in clause for program in OTHER_PROGRAMS):
            found.append((match[0], message.text[match.end() :]))
    return found


def test_there_are_messages_of_every_wing() -> None:
    tops = {message.place.split("/")[0] for message in collect_messages()}
    assert {"training", "evaluation", "engines", "data", "models", "runs", "prompting", "sampling"} <= tops
    assert len(collect_messages()) > 250


@pytest.mark.parametrize("message", collect_messages(), ids=lambda message: message.place)
def test_flags_of_a_message_exist(message: Message) -> None:
    for flag, _ in named_flags(message):
        verbs = [verb for verb in message.verbs if flag in flags_of(verb)]
        assert verbs, f"{message.place}: no verb of {message.verbs} has {flag}: {message.text}"


def choices_of(verb: str, flag: str) -> set[str] | None:
    """What a flag of few words takes; None for a free text or a number."""
    annotation: Any = load_config_class(verb).model_fields[flags_of(verb)[flag]].annotation
    text = str(annotation)
    words = re.findall(r"'([^']*)'", text) if "Literal" in text else []
    return set(words) or None


# Words that follow a flag in a sentence about it, and are no value.
_PROSE_TEXT = """
    a above also and are as behind by can cannot chooses computes continues contradict did does excludes for
    from give given go goes has have here holds if in instead is kept leads leaves may must names needs of
    off on only or out said says should stands than that the there to too uses was were with words wrote
"""
PROSE = frozenset(_PROSE_TEXT.split())


@pytest.mark.parametrize("message", collect_messages(), ids=lambda message: message.place)
def test_values_that_a_message_names_are_taken(message: Message) -> None:
    for flag, rest in named_flags(message):
        match = re.match(r"[ =]'?([^\s,;:)'`]+)", rest)
        verbs = [verb for verb in message.verbs if flag in flags_of(verb) and flags_of(verb)[flag]]
        if not match or not verbs or _PLACEHOLDER.fullmatch(match[1]):
            continue
        value, verb = match[1].rstrip("."), verbs[0]
        choices = choices_of(verb, flag)
        if load_config_class(verb).model_fields[flags_of(verb)[flag]].annotation is bool:
            continue
        if choices is not None:
            assert value in choices | PROSE or value.isdigit(), f"{message.place}: {flag} {value}: {choices}"
        if value in PROSE - (choices or set()):
            continue
        fault = _fault_of(verb, flag, value)
        assert fault is None, f"{message.place}: {flag} {value} is refused: {fault}"


def _fault_of(verb: str, flag: str, value: str) -> str | None:
    """What the verb's own parser says against the flag and its value; None if nothing."""
    try:
        parse_config(load_config_class(verb), [flag, value], verb)
    except ConfigError as error:
        faults = [part for part in str(error).split("; ") if part.startswith((flag + " '", "unknown"))]
        return "; ".join(faults) or None
    return None


def test_the_parsers_do_refuse_what_does_not_exist() -> None:
    """The two tests above could pass on anything: these could not."""
    assert _fault_of("train", "--too-long", "shorten") is not None
    assert _fault_of("train", "--held-out", "few") is not None
    assert _fault_of("eval", "--shorter", "1") is not None
    assert _fault_of("train", "--too-long", "drop") is None
    assert "--permute-options" not in flags_of("train")
