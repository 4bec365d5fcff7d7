"""--chat-template and --chat-template-kwargs: what they accept, and what they say of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_tokenizer

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.prompting.chat_template import BUILT_IN
from kmmlu_fast.prompting.template_options import (
    choose_template_options,
    kwargs_as_texts,
    parse_template_kwargs,
)


def test_values_have_their_types() -> None:
    given = ["thinking=false", "effort=low", "depth=3", "share=0.5", "none=null", 'text="3"', "on=True", "e="]
    assert parse_template_kwargs(given) == {
        "thinking": False,
        "effort": "low",
        "depth": 3,
        "share": 0.5,
        "none": None,
        "text": "3",
        "on": True,
        "e": "",
    }
    mapping = {"thinking": False, "effort": "low", "n": 3, "date": "26 Jul"}
    assert parse_template_kwargs(kwargs_as_texts(mapping)) == mapping


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["thinking"], "NAME=VALUE"),
        (["=1"], "NAME=VALUE"),
        (["a b=1"], "NAME=VALUE"),
        (["messages=1"], "set by the program"),
        (["a=1", "a=2"], "given twice"),
    ],
)
def test_other_forms_are_refused(given: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_template_kwargs(given)


def test_a_template_is_a_file_or_a_name(tmp_path: Path) -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages[0].content }}", encoding="utf-8")
    assert choose_template_options(str(path), [], tokenizer).source == "{{ messages[0].content }}"
    assert choose_template_options("plain", [], tokenizer).source == BUILT_IN["plain"]
    several: Any = make_tiny_tokenizer()
    several.chat_template = {"default": "{{ 1 }}", "rag": "{{ 2 }}"}
    assert choose_template_options("rag", [], several).source == "{{ 2 }}"
    assert choose_template_options(None, ["a=1"], tokenizer).fingerprint_parts() == {
        "chat_template_kwargs": {"a": 1}
    }
    with pytest.raises(
        ConfigError, match="no such file, and no template of that name; names are plain, chatml"
    ):
        choose_template_options(str(tmp_path / "absent.jinja"), [], tokenizer)
    (tmp_path / "latin.jinja").write_bytes(b"\xff\xfe{{ 1 }}")
    with pytest.raises(ConfigError, match="not UTF-8"):
        choose_template_options(str(tmp_path / "latin.jinja"), [], tokenizer)
