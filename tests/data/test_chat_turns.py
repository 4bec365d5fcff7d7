"""Turns of every tool's messages: masks, thoughts, tool calls, parts; nothing dropped in silence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.chat_turns import Turn, check_turns, learn_last_turn_only, parse_tools, parse_turns

ASK = {"role": "user", "content": "몇 시예요?"}
TELL = {"role": "assistant", "content": "세 시예요."}
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "KST"}'}}


def turns(*messages: Any) -> tuple[Turn, ...]:
    return tuple(parse_turns(list(messages), "x").turns)


@pytest.mark.parametrize(
    ("keys", "trained"),
    [
        ({}, True),
        ({"weight": 0}, False),
        ({"weight": 1.0}, True),
        ({"weight": None}, True),
        ({"train": False}, False),
        ({"training": "false"}, False),
        ({"loss": True}, True),
        ({"loss_weight": 0.0}, False),
    ],
)
def test_masks_mean_what_their_tools_mean(keys: dict[str, Any], trained: bool) -> None:
    assert turns(ASK, {**TELL, **keys})[1].trained is trained


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({**TELL, "weight": 0.5}, "message 2 has weight 0.5; only 0 and 1"),
        ({**TELL, "weight": 0, "train": True}, "says both"),
        ({**TELL, "train_detail": [{"begin_offset": 0}]}, "has train_detail, which changes what is trained"),
        ({**TELL, "images": ["a.png"]}, "has images, which changes what is trained"),
        (
            {"role": "assistant", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "type 'image_url'",
        ),
        ({"role": "assistant", "content": {"text": "x"}}, "message 2 is dict, not text"),
        ({"role": "assistant", "content": [{"type": "text", "text": " "}]}, "message 2 is empty"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"function": {}}]},
            "has a tool call that is not",
        ),
        ({"role": "narrator", "content": "x"}, "message 2 has role 'narrator'"),
        ({"text": "x"}, "message 2 is an object with text"),
        ("세 시", "message 2 is str"),
    ],
)
def test_what_is_not_read_is_refused_by_name(message: Any, fault: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_turns([ASK, message], "rows.jsonl row 4")
    assert str(caught.value).startswith("rows.jsonl row 4: ") and fault in str(caught.value)


def test_a_users_turn_is_not_trained_whatever_it_says() -> None:
    assert turns({**ASK, "weight": 1}, TELL)[0].role == "user"  # OpenAI's weight is the assistant's alone
    with pytest.raises(DataError, match="message 1 is the user's and is marked as learned"):
        turns({**ASK, "train": True}, TELL)


def test_thoughts_calls_and_names_reach_the_template() -> None:
    said = turns(
        ASK,
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "시계를 본다."},
        {"role": "tool", "content": "15:00", "tool_call_id": "c1", "name": "clock"},
        {**TELL, "reasoning_content": None, "tool_calls": []},
    )
    assert [turn.to_message() for turn in said[1:]] == [
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "시계를 본다.",
            "tool_calls": [
                {"type": "function", "id": "c1", "function": {"name": "clock", "arguments": {"zone": "KST"}}}
            ],
        },
        {"role": "tool", "content": "15:00", "name": "clock", "tool_call_id": "c1"},
        TELL,
    ]
    assert check_turns(said, "x") == said and "시계를 본다." in said[1].texts and "clock" in said[1].texts[-1]


def test_sharegpts_tools_are_the_same_turns() -> None:
    said = turns(
        {"from": "human", "value": "몇 시예요?"},
        {"from": "function_call", "value": json.dumps({"name": "clock", "arguments": {"zone": "KST"}})},
        {"from": "observation", "value": "15:00"},
        {"from": "gpt", "value": "세 시예요."},
    )
    assert [turn.role for turn in said] == ["user", "assistant", "tool", "assistant"]
    assert said[1].tool_calls[0]["function"] == {"name": "clock", "arguments": {"zone": "KST"}}
    check_turns(said, "x")


def test_parts_exchanges_and_texts_that_are_json() -> None:
    parts = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "음."}, {"type": "text", "text": "세"}, "시"],
    }
    assert turns(ASK, parts)[1] == Turn("assistant", "세\n시", reasoning="음.")
    assert turns(["가?", "나."], {"system": "짧게.", "input": "다?", "output": "라."})[2:] == (
        Turn("system", "짧게."),
        Turn("user", "다?"),
        Turn("assistant", "라."),
    )
    assert parse_turns(json.dumps([ASK, TELL]), "x").turns == list(turns(ASK, TELL))
    assert parse_turns(str([ASK, TELL]), "x").turns == list(turns(ASK, TELL))  # a Python literal, as in a CSV


def test_keys_that_nobody_reads_are_named() -> None:
    parsed = parse_turns([{**ASK, "mood": "calm", "id": 3}, {**TELL, "emotion": None}], "x")
    assert parsed.unread == {"messages.mood"}


def test_a_conversation_that_teaches_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="none of its assistant's turns is learned"):
        check_turns(turns(ASK, {**TELL, "weight": 0}), "x")


def test_the_last_learned_turn_alone() -> None:
    said = turns(ASK, TELL, ASK, TELL, ASK, {**TELL, "weight": 0})
    assert [turn.trained for turn in learn_last_turn_only(said) if turn.role == "assistant"] == [
        False,
        True,
        False,
    ]


def test_tools_as_text_or_objects() -> None:
    tools = [{"type": "function", "function": {"name": "clock"}}]
    assert parse_tools(json.dumps(tools), "x") == parse_tools(tools, "x") == tuple(tools)
    assert parse_tools([json.dumps(tools[0])], "x") == tuple(tools)
    with pytest.raises(DataError, match="tools is str, not a list"):
        parse_tools("clock", "x")
