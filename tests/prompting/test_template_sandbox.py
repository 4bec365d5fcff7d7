"""Templates render as in transformers, with a fixed date and the faults told."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from template_cases import OWN, SHIPPED
from tiny import make_tiny_tokenizer

from kmmlu_fast.prompting.template_limits import TemplateRenderingError
from kmmlu_fast.prompting.template_sandbox import TEMPLATE_DATE, compile_template

ASK = {"role": "user", "content": "질문"}
SAY = {"role": "assistant", "content": "답"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "system", "content": "지시"}, ASK],
    [ASK, SAY, ASK, SAY],
    [{"role": "user", "content": [{"type": "text", "text": "질문"}]}],
    [ASK, SAY | {"reasoning_content": "생각", "tool_calls": [CALL]}, {"role": "tool", "content": "1"}, SAY],
]


@pytest.mark.parametrize("name", [*SHIPPED, *OWN])
def test_the_text_is_that_of_transformers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import chat_template_utils

    class FixedDate(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return TEMPLATE_DATE

    monkeypatch.setattr(chat_template_utils, "datetime", FixedDate)
    source = {**SHIPPED, **OWN}[name]
    tokenizer = make_tiny_tokenizer(bos=True)
    compiled = compile_template(source)
    for turns in CONVERSATIONS:
        for cue in (False, True):
            for switches in ({}, {"enable_thinking": False}, {"enable_thinking": True}):
                settings: dict[str, Any] = {"add_generation_prompt": cue, **switches}
                try:
                    theirs = tokenizer.apply_chat_template(
                        turns, chat_template=source, tokenize=False, **settings
                    )
                except Exception:
                    with pytest.raises(TemplateRenderingError):
                        compiled.render(
                            turns, tokenizer.special_tokens_map | switches, add_generation_prompt=cue
                        )
                    continue
                variables = tokenizer.special_tokens_map | switches
                assert compiled.render(turns, variables, add_generation_prompt=cue) == theirs


def test_a_long_conversation_is_within_the_limits() -> None:
    chatml = OWN["stripping"]
    text = compile_template(chatml).render([ASK, SAY] * 2000, {})
    assert text.count("답") == 2000


def test_faults_are_said_with_their_line() -> None:
    with pytest.raises(TemplateRenderingError, match="line 2"):
        compile_template("{{ 1 }}\n{% for %}")
    with pytest.raises(TemplateRenderingError, match="such a turn"):
        compile_template("{{ raise_exception('such a turn') }}").render([ASK], {})
    with pytest.raises(TemplateRenderingError):
        compile_template("{{ messages.__class__.__mro__ }}").render([ASK], {})


def test_the_variables_that_a_template_reads_are_known() -> None:
    source = "{% set mine = 1 %}{{ mine }}{% if thinking is defined %}{{ depth }}{% endif %}"
    assert compile_template(source).variables == {"thinking", "depth"}
