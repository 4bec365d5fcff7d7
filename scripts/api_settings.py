"""kmmlu_fast/api_settings.py out of the configs: python scripts/api_settings.py > kmmlu_fast/api_settings.py
(a test holds the two together).

In: the configs' fields. Out: a module of TypedDicts on stdout: what editors complete, and mypy checks.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

from kmmlu_fast.command.help_text import load_config_class

HEAD = '''"""Keyword arguments of the public functions, by name and type; made by ``scripts/api_settings.py``.

What each one means: ``kmmlu-fast help VERB``, or docs/reference.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

Text = str | Path
Texts = str | Path | Sequence[str | Path]
'''
# Verb, name of the TypedDict, fields that the function has by other means, fields of its own.
SETTINGS: tuple[tuple[str, str, tuple[str, ...], dict[str, str]], ...] = (
    ("eval", "EvalSettings", (), {}),
    ("sample", "SampleSettings", ("from",), {"source": "Any"}),
    ("train", "TrainSettings", (), {}),
    ("export", "ExportSettings", ("adapter", "out"), {}),
    ("check", "CheckSettings", ("artefacts",), {}),
)


def type_text(annotation: Any) -> str:
    """How a field's type is written; what is read from text also takes text."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(arguments[0])
    if origin is list:
        return "Texts" if type_text(arguments[0]) == "str" else "Sequence[int | str]"
    if origin is typing.Literal:
        return f"Literal[{', '.join(repr(each).replace(chr(39), chr(34)) for each in arguments)}]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join("None" if each is type(None) else type_text(each) for each in arguments)
    if annotation is Path:
        return "Text"
    names = {str: "str", int: "int", float: "float", bool: "bool"}
    return names[annotation]


def class_text(verb: str, name: str, left_out: tuple[str, ...], own: dict[str, str]) -> str:
    """One TypedDict."""
    config = load_config_class(verb)
    fields = {
        field: type_text(info.annotation)
        for field, info in config.model_fields.items()
        if field not in left_out
    }
    # A model's and an adapter's name may be a path.
    fields = {
        field: "Text" if text == "str" and field in ("model", "dataset") else text
        for field, text in fields.items()
    }
    lines = [f"    {field}: {text}" for field, text in {**fields, **own}.items()]
    doc = f'    """Fields of ``{config.__name__}``."""'
    return "\n".join([f"class {name}(TypedDict, total=False):", doc, "", *lines])


def module_text() -> str:
    """The whole module."""
    return "\n\n".join([HEAD, *(class_text(*each) + "\n" for each in SETTINGS)])


if __name__ == "__main__":
    print(module_text(), end="")
