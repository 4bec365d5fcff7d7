"""Marks of thinking: what is open at the end of a text, and which switch a template reads."""

from __future__ import annotations

import pytest

from kmmlu_fast.prompting.thoughts import THOUGHTS, find_open_thought, find_switch, thinking_values


@pytest.mark.parametrize("thought", THOUGHTS)
def test_each_mark_is_open_until_it_is_closed(thought: object) -> None:
    opener, closer = getattr(thought, "opener"), getattr(thought, "closer")  # noqa: B009
    assert find_open_thought(f"질문\n{opener}\n") == thought
    assert find_open_thought(f"질문\n{opener}\n\n{closer}\n\n") is None
    assert find_open_thought(f"{opener}생각{closer}답 {opener}") == thought


def test_a_tag_of_another_name_opens_a_thought_if_only_the_prompt_has_it() -> None:
    found = find_open_thought("질문<assistant>\n<muse>\n", "질문<assistant>\n")
    assert found is not None and (found.opener, found.closer) == ("<muse>", "</muse>")
    assert find_open_thought("질문<assistant>\n", "질문<assistant>\n") is None
    assert find_open_thought("질문\n", "질문\n") is None


def test_switches_are_told_by_name_and_turned_the_right_way() -> None:
    assert find_switch({"messages", "skip_think"}) == "skip_think"
    assert find_switch({"thinking"}, given=["thinking"]) is None
    assert thinking_values({"thinking", "skip_think"}, {}, True) == {"thinking": True, "skip_think": False}
    assert thinking_values({"thinking", "skip_think"}, {"thinking": 1}, False) == {"skip_think": True}
