"""Which chat template is used, and with which variables: ``--chat-template``, ``--chat-template-kwargs``.

In: flags, a tokenizer, and what an adapter was trained with. Out: ``TemplateOptions``; ConfigError for a file
or a value that cannot be used. Knows nothing of rendering.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.reading import expand_path, read_text
from kmmlu_fast.prompting.chat_template import BUILT_IN, TemplateOptions, open_chat_template

# What a template is given by the program; a user's value would break the rendering.
_RESERVED = frozenset({"messages", "add_generation_prompt", "tools", "documents", "strftime_now"})
_NAME = re.compile(r"[A-Za-z_]\w*\Z")


def parse_template_kwargs(texts: Sequence[str]) -> dict[str, Any]:
    """The variables of ``NAME=VALUE`` texts. true, false, null, numbers and JSON are read as such, all else
    is text. ConfigError for a text of another form.
    """
    variables: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not _NAME.match(name):
            raise ConfigError(f"--chat-template-kwargs {text!r}: must be NAME=VALUE, such as thinking=false")
        if name in _RESERVED:
            raise ConfigError(f"--chat-template-kwargs {name}: is set by the program; leave it out")
        if name in variables:
            raise ConfigError(f"--chat-template-kwargs {name}: is given twice")
        variables[name] = _parse_value(value.strip())
    return variables


def template_kwargs_faults(texts: Sequence[str]) -> list[str]:
    """What is wrong with ``NAME=VALUE`` texts; [] if nothing is."""
    try:
        parse_template_kwargs(texts)
    except ConfigError as error:
        return [str(error)]
    return []


def _parse_value(text: str) -> Any:
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    try:
        return json.loads(text)
    except ValueError:
        return text


def kwargs_as_texts(value: Any) -> Any:
    """A mapping (from YAML or Python) as ``NAME=VALUE`` texts; anything else unchanged."""
    if isinstance(value, Mapping):
        return [f"{name}={json.dumps(item, ensure_ascii=False)}" for name, item in value.items()]
    return value


def choose_template_options(template: str | None, kwargs: Sequence[str], tokenizer: Any) -> TemplateOptions:
    """The options of the flags. ``template``: a file, the name of one of the tokenizer's own templates, or
    ``plain`` or ``chatml``.
    """
    variables = parse_template_kwargs(kwargs)
    if template is None:
        return TemplateOptions(variables=variables)
    origin = f"--chat-template {template}"
    return TemplateOptions(source=_find_source(template, tokenizer), origin=origin, variables=variables)


@dataclass(frozen=True, slots=True)
class _AnyTokenizer:
    """What a template needs of a tokenizer that is not loaded yet."""

    chat_template: None = None
    special_tokens_map: Mapping[str, str] = field(
        default_factory=lambda: {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
        }
    )


def check_template_file(template: str, kwargs: Sequence[str]) -> None:
    """ConfigError for a file that is missing or cannot be used as a template, before a tokenizer is loaded.
    Names of the tokenizer's own templates pass.
    """
    source = _read_template_file(template)
    if source is None:
        if "/" in template or template.endswith((".jinja", ".jinja2", ".j2", ".txt", ".json")):
            raise ConfigError(f"--chat-template {template}: no such file; names are {', '.join(BUILT_IN)}")
        return
    variables = parse_template_kwargs(kwargs)
    options = TemplateOptions(source=source, origin=f"--chat-template {template}", variables=variables)
    open_chat_template(_AnyTokenizer(), options)


def _read_template_file(template: str) -> str | None:
    path = expand_path(template, "--chat-template")
    return read_text(path, ConfigError) if path.is_file() else None


def _find_source(template: str, tokenizer: Any) -> str:
    own = getattr(tokenizer, "chat_template", None)
    named: dict[str, str] = {**BUILT_IN, **(own if isinstance(own, Mapping) else {})}
    source = _read_template_file(template)
    if source is not None:
        return source
    if template in named:
        return named[template]
    raise ConfigError(
        f"--chat-template {template}: no such file, and no template of that name; names are"
        f" {', '.join(named)}"
    )
