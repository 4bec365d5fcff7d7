"""Every trained answer holds its text and a token at which generation stops, under every template."""

from __future__ import annotations

import pytest
from template_cases import OWN, SHIPPED, UNUSABLE, tokenizer_with
from tiny import make_tiny_tokenizer

from kmmlu_fast.core.errors import ConfigError, TrainError
from kmmlu_fast.data.training_rows import TrainingRow, Turn
from kmmlu_fast.prompting.chat_template import find_chat_template
from kmmlu_fast.training.conversations import decode_trained_runs, encode_conversations
from kmmlu_fast.training.stop_tokens import as_training_tokenizer, choose_stop_tokens

ONE = (Turn("user", "하늘은 왜 파란가?"), Turn("assistant", "빛이 흩어진다."))
MANY = (Turn("system", "짧게."), *ONE, Turn("user", "노을은?"), Turn("assistant", "붉은빛이 남는다."))
ALL = {**SHIPPED, **OWN}


def row(turns: tuple[Turn, ...]) -> TrainingRow:
    return TrainingRow(turns=turns, source="chats.jsonl", number=3, form="messages")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("turns", [ONE, MANY], ids=["one answer", "two answers"])
def test_answer_and_stop_are_trained_and_nothing_before_them(name: str, turns: tuple[Turn, ...]) -> None:
    tokenizer = as_training_tokenizer(tokenizer_with(ALL[name]))
    chat, stops = find_chat_template(tokenizer), tokenizer.stops
    encoded = encode_conversations([row(turns)], tokenizer)[0]
    answers = [turn.content for turn in turns if turn.role == "assistant"]
    trained = [
        text for one in encoded for text, is_trained in decode_trained_runs(one, tokenizer) if is_trained
    ]
    assert len(trained) == len(answers)
    for text, answer in zip(trained, answers, strict=True):
        assert text.lstrip(" ").startswith(answer)
        assert tokenizer.encode(text, add_special_tokens=False)[-1] in stops.ids
        assert not text.removeprefix(answer).rstrip().endswith("assistant")
    for one in encoded:
        labels = [label for label in one.labels if label >= 0]
        assert labels[-1] in stops.ids
    # The last answer stands after the very tokens that evaluation would send.
    messages = [{"role": turn.role, "content": turn.content} for turn in turns[:-1]]
    prompt = tokenizer(chat.render_answer_prompt(messages), add_special_tokens=False)["input_ids"]
    last = encoded[-1]
    assert list(last.input_ids[: _starts_of_runs(last.labels)[-1]]) == prompt


def _starts_of_runs(labels: list[int]) -> list[int]:
    return [i for i, label in enumerate(labels) if label >= 0 and (i == 0 or labels[i - 1] < 0)]


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_template_trains_nothing(name: str) -> None:
    with pytest.raises(ConfigError, match="chat template"):
        encode_conversations([row(ONE)], tokenizer_with(UNUSABLE[name]))


def test_a_template_that_drops_answers_is_refused_with_the_row() -> None:
    source = "{% for m in messages if m.role != 'assistant' %}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(TrainError, match=r"chats\.jsonl row 3: .*does not show the answer of turn 2"):
        encode_conversations([row(ONE)], tokenizer_with(source))


def test_an_answer_that_shares_a_token_with_the_prompt_is_trained_whole() -> None:
    """``" A"`` is one token here, and the prompt ends in a space."""
    tokenizer = tokenizer_with(OWN["no_stop"])
    ((encoded,),) = encode_conversations([row((Turn("user", "어느 것?"), Turn("assistant", "A")))], tokenizer)
    assert decode_trained_runs(encoded, tokenizer)[-1] == ("A<|eos|>", True)
    assert decode_trained_runs(encoded, tokenizer)[0][0].endswith("[assistant] ")


def test_the_end_that_the_base_does_not_know_is_said_and_added() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    im_end, eos = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|eos|>"])
    stops = choose_stop_tokens(tokenizer)
    assert (stops.turn_end, stops.end, stops.new) == (im_end, eos, (im_end,))
    assert set(stops.ids) == {im_end, eos}
    (warning,) = stops.chat_warnings(find_chat_template(tokenizer), tokenizer)
    assert "<|im_end|> (4), where the base does not stop" in warning
    known = choose_stop_tokens(tokenizer, (eos, im_end))
    assert known.new == () and known.chat_warnings(find_chat_template(tokenizer), tokenizer) == []


def test_an_end_is_added_where_the_template_writes_none() -> None:
    tokenizer = tokenizer_with(OWN["no_stop"])
    (warning,) = choose_stop_tokens(tokenizer).chat_warnings(find_chat_template(tokenizer), tokenizer)
    assert "<|eos|> (2) is added to every trained answer" in warning


def test_a_model_without_any_end_is_refused() -> None:
    tokenizer = tokenizer_with(OWN["no_stop"])
    tokenizer.eos_token = None
    with pytest.raises(TrainError, match="no end token"):
        choose_stop_tokens(tokenizer)
    assert choose_stop_tokens(tokenizer, (5,)).turn_end == 5
