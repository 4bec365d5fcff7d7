"""Protocols as data: everything that decides a number besides the model, under one name, with its source.

In: ``--protocol NAME|FILE`` (a YAML declaration). Out: a ``Protocol``: the settings it fixes and, if it has a
wording of its own, a prompt style under the protocol's name. ConfigError if a declaration is faulty or a flag
contradicts it. Knows nothing of models, engines or runs.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.reading import expand_path, read_yaml
from kmmlu_fast.prompting.prompt_styles import PromptStyle, add_prompt_style

SHIPPED_PROTOCOLS = Path(__file__).with_name("protocols")
_SETTINGS = ("prompt_style", "output_type", "num_fewshot", "letter_form")
_SAMPLING = ("max_tokens", "temperature", "top_p", "num_samples")


class ProtocolWording(BaseModel):
    """A protocol's own wording, byte for byte."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chat: bool = False
    system: str = ""  # "": no system turn
    template: str  # with {question}, {options}, {letters}
    option: str  # a line of {options}, with {letter} and {text}
    strip_question: bool = True
    strip_options: bool = False
    delimiter: str = ""  # between the prompt and a letter that is scored

    @model_validator(mode="after")
    def _check_placeholders(self) -> ProtocolWording:
        for name, text in (("question", self.template), ("options", self.template), ("text", self.option)):
            if f"{{{name}}}" not in text:
                raise ValueError(f"wording: leaves out {{{name}}}: the model would be asked without it")
        return self


class AnswerRule(BaseModel):
    """How a letter is read from a generated text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str  # a regular expression; the first group of its first match is the letter
    remove: tuple[str, ...] = ()  # taken out before
    stop: tuple[str, ...] = ()

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression ({error})") from error
        if groups < 1:
            raise ValueError(f"{value!r} has no group for the letter, such as ([A-D])")
        return value


class Protocol(BaseModel):
    """A declaration. Fields that are left out are not fixed: flags may set them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    source: str  # where the wording is published
    note: str = ""  # how it differs from its source, if it does
    metric: Literal["micro", "macro"] = "micro"  # the number that its source publishes
    prompt_style: Literal["lm-eval", "qa", "chat"] | None = None
    output_type: Literal["multiple_choice", "generate_until", "cot"] = "multiple_choice"
    num_fewshot: int = Field(0, ge=0, le=5)
    letter_form: Literal["lm-eval", "bare", "either"] | None = None
    max_tokens: int | None = Field(None, gt=0)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    num_samples: int | None = Field(None, gt=0)
    wording: ProtocolWording | None = None
    lm_eval_tasks: str | None = (
        None  # wording and exemplars as in this folder of an installed lm-eval's tasks
    )
    answer: AnswerRule | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> Protocol:
        given = (self.wording, self.prompt_style, self.lm_eval_tasks)
        if sum(each is not None for each in given) != 1:
            raise ValueError("give either prompt_style or wording (or lm_eval_tasks)")
        if self.answer is not None and self.output_type != "generate_until":
            raise ValueError("answer goes with output_type generate_until")
        if self.prompt_style is None and self.output_type == "cot":
            raise ValueError("output_type cot has a wording of its own: give generate_until and answer")
        if self.answer is not None and self.num_fewshot:
            raise ValueError("answer with num_fewshot above 0: exemplars have letters only, not solutions")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of an evaluation that it fixes."""
        values = {name: getattr(self, name) for name in (*_SETTINGS, *_SAMPLING)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def style(self) -> str:
        """The name of its prompt style."""
        return self.prompt_style or self.name


@cache
def shipped_protocol_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in SHIPPED_PROTOCOLS.glob("*.yaml")))


def find_protocol(name_or_file: str) -> Protocol:
    """A shipped protocol by name, or a declaration by its file; ConfigError if there is none."""
    path = expand_path(name_or_file, "--protocol")
    if path.suffix in (".yaml", ".yml"):
        return read_protocol(path)
    key = name_or_file.strip().lower().replace("_", "-")
    names = shipped_protocol_names()
    if key in names:
        return _read_shipped(key)
    near = difflib.get_close_matches(key, names, n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"unknown protocol {name_or_file!r}{hint}: give one of {', '.join(names)}, or a declaration"
        " (FILE.yaml)"
    )


@cache
def _read_shipped(name: str) -> Protocol:
    return read_protocol(SHIPPED_PROTOCOLS / f"{name}.yaml")


def read_protocol(path: Path) -> Protocol:
    """The declaration in a file, its wording registered as a prompt style; ConfigError if it is faulty."""
    content = read_yaml(path, str(path))
    try:
        protocol = Protocol.model_validate(content)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc']))} {each['msg']}".strip() for each in error.errors()]
        raise ConfigError(f"{path}: {'; '.join(faults)} (see docs/howto/protocols.md)") from error
    if protocol.wording is not None:
        _register_wording(protocol.name, protocol.wording)
    if protocol.lm_eval_tasks is not None:
        tasks = protocol.lm_eval_tasks
        add_prompt_style(
            PromptStyle(name=protocol.name, prefix="", cue="", delimiter=" ", lm_eval_tasks=tasks)
        )
    return protocol


def _register_wording(name: str, wording: ProtocolWording) -> None:
    style = PromptStyle(
        name=name,
        prefix="",
        cue="",
        delimiter=wording.delimiter,
        chat=wording.chat,
        template=wording.template,
        option=wording.option,
        strips_question=wording.strip_question,
        strips_options=wording.strip_options,
        system=wording.system,
    )
    add_prompt_style(style)


def apply_protocol(values: dict[str, Any]) -> dict[str, Any]:
    """The given settings with those of their ``protocol``; ConfigError if one contradicts it."""
    protocol = find_protocol(str(values["protocol"]))
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in protocol.settings.items():
        if name in given and str(given[name]) != str(value):
            flag = name.replace("_", "-")
            raise ConfigError(
                f"--protocol {protocol.name} fixes --{flag} {value}, not {given[name]}: leave --{flag} out,"
                " or declare a protocol of your own (FILE.yaml)"
            )
    if protocol.prompt_style is None and given.get("prompt_style") is not None:
        raise ConfigError(f"--protocol {protocol.name} has a wording of its own: leave --prompt-style out")
    return {**values, **protocol.settings}
