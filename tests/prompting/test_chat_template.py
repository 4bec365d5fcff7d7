"""What is asked by every template that TRL ships and by awkward ones of our own: whole, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from template_cases import OWN, SHIPPED, UNUSABLE, tokenizer_with
from tiny import make_tiny_tokenizer

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.prompting.chat_template import (
    BUILT_IN,
    ChatTokenizer,
    TemplateOptions,
    find_chat_template,
    is_same_rendering,
    open_chat_template,
)
from kmmlu_fast.prompting.cot_tokens import build_chain_of_thought
from kmmlu_fast.prompting.prompt_styles import find_prompt_style
from kmmlu_fast.prompting.prompts import (
    answer_delimiter,
    chat_instruction,
    encode_prompts,
    format_question,
    letter_tokens,
    render_prompt,
    template_digest,
)
from kmmlu_fast.prompting.thoughts import DEFAULT_THOUGHT, find_open_thought

QUESTION = Question(
    question_id="Law/test/0",
    subject="Law",
    supercategory="HUMSS",
    split="test",
    row=0,
    question="종이의 원료는?",
    options=("나무 <섬유>", "모래 & 물", "{{ 쇠 }}", "'유리'"),
    answer="A",
)
ALL = {**SHIPPED, **OWN}


@pytest.mark.parametrize("name", ALL)
def test_the_letter_stands_where_the_template_writes_an_answer(name: str) -> None:
    tokenizer = tokenizer_with(ALL[name])
    chat = find_chat_template(tokenizer)
    prompt = render_prompt(QUESTION, [QUESTION], "chat", tokenizer)
    for piece in (chat_instruction(LETTERS), QUESTION.question, *QUESTION.options):
        assert piece in prompt.text
    after_question = prompt.text[prompt.text.rindex(QUESTION.options[-1]) :]
    assert find_open_thought(after_question) is None
    style = find_prompt_style("chat")
    turns = [
        {"role": "system", "content": chat_instruction(LETTERS)},
        {"role": "user", "content": format_question(QUESTION, style)},
        {"role": "assistant", "content": "A"},
    ]
    alone = render_prompt(QUESTION, [], "chat", tokenizer)
    own = chat.render(turns)
    delimiter = answer_delimiter("chat", tokenizer)
    if own.startswith(alone.text):
        assert own[len(alone.text) :].startswith(f"{delimiter}A")
    else:  # only a thought that the template writes after a question and never in an answer's turn
        assert alone.text.startswith(own[: own.rindex("A")].rstrip("\n"))
        assert alone.text.endswith(f"{(chat.thought or DEFAULT_THOUGHT).closer}\n\n")
    ids = letter_tokens(tokenizer, [alone], encode_prompts(tokenizer, [alone]), "chat").ids
    if ids is not None:
        assert [tokenizer.decode([token]) for token in ids] == [delimiter + letter for letter in LETTERS]
    else:
        assert name == "no_stop"  # its prompt ends in a space, which belongs to the letter's token


@pytest.mark.parametrize("name", ALL)
def test_a_thought_is_read_as_one_where_the_prompt_opens_it(name: str) -> None:
    tokenizer = tokenizer_with(ALL[name])
    method = build_chain_of_thought("chat", tokenizer)
    text = method.reasoning_prompt(QUESTION, [], tokenizer).text
    thought = find_chat_template(tokenizer).thought
    is_open = thought is not None and text.rstrip().endswith(thought.opener)
    assert method.thinking == (is_open or method.parser.always)
    assert is_open == (
        name.startswith("deepseek") or name in ("thought_left_open", "thought_of_another_name")
    )
    if thought is not None:
        assert method.parser.closers[0] == thought.closer
        assert tokenizer.decode(method.think_end_ids).strip() == thought.closer


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_template_that_does_not_show_the_question_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"chat template .*--chat-template"):
        render_prompt(QUESTION, [], "chat", tokenizer_with(UNUSABLE[name]))


def test_what_a_template_leaves_out_of_one_question_is_named() -> None:
    cut = OWN["stripping"].replace(" | trim", "[:46]")
    with pytest.raises(ConfigError, match=r"Law/test/0: .*leaves out or changes option D"):
        render_prompt(QUESTION, [], "chat", tokenizer_with(cut))
    escaped = OWN["stripping"].replace("| trim", "| e")
    with pytest.raises(ConfigError, match="changes option A, option B, option D"):
        render_prompt(QUESTION, [], "chat", tokenizer_with(escaped))


def test_examples_without_their_answers_are_refused() -> None:
    forgetful = "{% for m in messages if m.role != 'assistant' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    tokenizer = tokenizer_with(forgetful)
    assert render_prompt(QUESTION, [], "chat", tokenizer).text
    with pytest.raises(ConfigError, match="--num-fewshot 0"):
        render_prompt(QUESTION, [QUESTION], "chat", tokenizer)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("refuses_system", "start of the first user turn"),
        ("drops_system", "start of the first user turn"),
        ("content_parts", "content as parts"),
        ("date", "it is always given 2024-07-26"),
        ("thought_left_open", "closed without a thought"),
        ("no_generation_branch", "continued before the answer"),
    ],
)
def test_what_is_done_to_the_turns_is_said(name: str, note: str) -> None:
    (said,) = find_chat_template(tokenizer_with(OWN[name])).notes()
    assert note in said


@pytest.mark.parametrize("name", ["no_generation_branch", "always_generating"])
def test_a_chain_of_thought_is_written_in_the_assistants_turn(name: str) -> None:
    chat = find_chat_template(tokenizer_with(OWN[name]))
    assert chat.render_reasoning_prompt([{"role": "user", "content": "가"}]).endswith(
        "<|im_start|>assistant\n"
    )
    assert chat.notes(reasoning=True) == chat.notes() != []


def test_a_chain_of_thought_may_begin_with_an_open_thought_or_a_channel() -> None:
    turns = [{"role": "user", "content": "가"}]
    for template in (OWN["thought_left_open"], SHIPPED["gptoss"]):
        chat = find_chat_template(tokenizer_with(template))
        assert chat.lead and chat.render_reasoning_prompt(turns) == chat.render_prompt(turns)


def test_a_closed_thought_is_not_said_of_a_prompt_that_leaves_it_open() -> None:
    chat = find_chat_template(tokenizer_with(OWN["thought_left_open"]))
    assert chat.notes() and chat.notes(reasoning=True) == []


def test_a_date_that_only_stands_without_a_system_turn_is_not_evaluations() -> None:
    dated = "{% if messages[0].role != 'system' %}{{ strftime_now('%Y') }}{% endif %}" + OWN["stripping"]
    assert not find_chat_template(tokenizer_with(dated)).reads_date
    assert find_chat_template(tokenizer_with(OWN["date"])).facts() == {"date": "2024-07-26"}


def test_nothing_is_said_or_changed_for_a_plain_template() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    chat = find_chat_template(tokenizer)
    assert chat.notes() == [] and chat.facts() == {}
    assert TemplateOptions().fingerprint_parts() == {}
    turns = [{"role": "system", "content": "가"}, {"role": "user", "content": "나"}]
    theirs = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert chat.render_answer_prompt(turns) == theirs


def test_the_switch_of_any_name_is_found_and_given() -> None:
    tokenizer = tokenizer_with(OWN["thought_by_switch"])
    assert find_chat_template(tokenizer).thought is None  # switched off where it opens one
    thinking = open_chat_template(tokenizer, thinking=True)
    assert thinking.thought is not None and thinking.variables["skip_think"] is False
    given = open_chat_template(tokenizer, TemplateOptions(variables={"skip_think": False}))
    assert given.is_thinking and given.lead == "\n</think>\n\n"
    with pytest.raises(ConfigError, match="contradict"):
        open_chat_template(tokenizer, TemplateOptions(variables={"skip_think": True}), thinking=True)
    with pytest.raises(ConfigError, match="reads no variable of that name; it reads skip_think"):
        open_chat_template(tokenizer, TemplateOptions(variables={"thinking": True}))
    with pytest.raises(ConfigError, match="--thinking needs a chat template with a switch"):
        open_chat_template(make_tiny_tokenizer(chat=True), thinking=True)


def test_texts_keep_their_special_tokens_if_these_end_a_thought() -> None:
    tokenizer = tokenizer_with(OWN["thought_left_open"])
    assert not build_chain_of_thought("chat", tokenizer).special_texts
    tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    method = build_chain_of_thought("chat", tokenizer)
    assert "</think>" in method.special_texts
    assert method.find_answer("아마 A.</think>정답: B" + tokenizer.eos_token) == "정답: B"
    assert method.decoding([])["reasoning_parser"] == "deepseek_r1"
    unaware = tokenizer_with(OWN["stripping"])  # its vocabulary has the token, its template never thinks
    unaware.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    plain = build_chain_of_thought("chat", unaware)
    assert not plain.thinking and not plain.special_texts and "reasoning_parser" not in plain.decoding([])


def test_the_chosen_template_replaces_the_tokenizers_own() -> None:
    own = make_tiny_tokenizer(chat=True)
    plain = TemplateOptions(source=BUILT_IN["plain"], origin="--chat-template plain")
    chosen: Any = ChatTokenizer(own, plain)
    assert len(chosen) == len(own) and chosen.eos_token == "<|eos|>"
    assert render_prompt(QUESTION, [], "chat", chosen).text.endswith("### 답변\n")
    assert template_digest("chat", chosen) != template_digest("chat", own)
    assert template_digest("lm-eval", chosen) == template_digest("lm-eval", own)
    assert plain.fingerprint_parts().keys() == {"chat_template"}


def test_templates_are_compared_by_what_they_write() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    own = TemplateOptions()
    marked = BUILT_IN["chatml"].replace("{% for", "{# the same text #}{% for")
    assert is_same_rendering(tokenizer, own, TemplateOptions(source=marked))
    assert not is_same_rendering(tokenizer, own, TemplateOptions(source=BUILT_IN["plain"]))
    assert not is_same_rendering(tokenizer, own, TemplateOptions(source=UNUSABLE["always_refuses"]))
