"""Rows that are too long: whole exchanges leave from the front, answers stay whole, documents are split."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from tiny import make_tiny_tokenizer

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.data.chat_turns import Turn
from kmmlu_fast.data.training_rows import TrainingRow
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.conversations import decode_trained_runs, encode_conversations
from kmmlu_fast.training.encoded import MASKED
from kmmlu_fast.training.encoding import encode_training_set
from kmmlu_fast.training.row_length import describe_too_long
from kmmlu_fast.training.shorten import drop_first_exchanges

REWRITING = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def chat(exchanges: int, number: int = 1, system: bool = True, **last: Any) -> TrainingRow:
    turns = [Turn("system", "짧게.")] if system else []
    for i in range(exchanges):
        extra = last if i == exchanges - 1 else {}
        turns += [Turn("user", f"물음 {i}은 무엇입니까?"), Turn("assistant", f"대답 {i}입니다.", **extra)]
    return TrainingRow(turns=tuple(turns), source="chat.jsonl", number=number, form="messages")


def document(text: str) -> TrainingRow:
    return TrainingRow(turns=(), source="text.jsonl", number=1, form="text", document=text)


def config(**settings: Any) -> TrainConfig:
    return TrainConfig.model_validate({"data": ["x"], "held_out": 0, "keep": "last", **settings})


def trained_text(row: Any, tokenizer: Any) -> str:
    return "|".join(text for text, trained in decode_trained_runs(row, tokenizer) if trained)


def test_as_few_exchanges_as_needed_leave_from_the_front_and_the_system_text_stays() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    ((whole,),) = encode_conversations([chat(4)], tokenizer)
    two = encode_conversations(
        [TrainingRow(turns=drop_first_exchanges(chat(4).turns, 2), source="x", number=1, form="messages")],
        tokenizer,
    )[0][0]
    limit = len(two.input_ids) + 1  # two exchanges fit, three do not
    data = encode_training_set(config(max_seq_length=limit), [chat(4), chat(1, 2)], [], tokenizer)
    shown = tokenizer.decode(data.rows[0].input_ids)
    assert len(whole.input_ids) > limit and len(data.rows) == 2
    assert "짧게." in shown and "물음 1" not in shown and "물음 2" in shown
    assert trained_text(data.rows[0], tokenizer) == "대답 2입니다.<|im_end|>|대답 3입니다.<|im_end|>"
    assert data.rows[0].cut_tokens == len(whole.input_ids) - len(two.input_ids)
    assert (data.too_long["rows_too_long"], data.too_long["rows_left_out"]) == (1, 0)


def test_what_still_does_not_fit_is_left_out_and_counted_also_held_out(caplog: Any) -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    long = TrainingRow(
        turns=(Turn("user", "가?"), Turn("assistant", "긴 답 " * 200)), source="a", number=3, form="messages"
    )
    settings = config(max_seq_length=120, held_out=1)
    with caplog.at_level(logging.INFO, logger="kmmlu_fast"):
        data = encode_training_set(settings, [chat(1), long], [chat(1, 7), long, chat(9, 8)], tokenizer)
    assert len(data.rows) == 1 and len(data.held_out) == 2
    assert data.too_long["rows_left_out"] == 1
    assert describe_too_long(data.too_long).startswith(
        "1 of 2 rows are over --max-seq-length 120: 1 left out"
    )
    assert data.too_long["held_out"] == {"rows_too_long": 2, "rows_left_out": 1}
    assert "1 of 2 rows are over --max-seq-length 120: 1 left out (a row 3)" in caplog.text
    assert "2 of 3 held-out rows are over --max-seq-length 120: 1 shortened by whole exchanges" in caplog.text
    for row in (*data.rows, *data.held_out):
        assert row.labels[-1] != MASKED or trained_text(row, tokenizer).endswith("<|im_end|>")
    with pytest.raises(TrainError, match="no row is within --max-seq-length 120"):
        encode_training_set(settings, [long], [], tokenizer)


def test_a_turn_of_a_rewriting_template_is_shortened_on_its_own(caplog: Any) -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    tokenizer.chat_template = REWRITING
    (pieces,) = encode_conversations([chat(4)], tokenizer)
    assert len(pieces) == 4
    limit = len(pieces[2].input_ids)
    with caplog.at_level(logging.INFO, logger="kmmlu_fast"):
        data = encode_training_set(config(max_seq_length=limit), [chat(4)], [], tokenizer)
    texts = [trained_text(row, tokenizer) for row in data.rows]
    assert [f"대답 {i}입니다." in text for i, text in enumerate(texts)] == [True] * 4
    assert "물음 0" not in tokenizer.decode(data.rows[3].input_ids)
    before, after = len(pieces[-1].input_ids), sum(len(piece.input_ids) for piece in pieces)
    assert f"1 rows ({before:,} tokens) become 4 ({after:,} tokens); --turns last" in caplog.text


def test_a_row_whose_learned_turn_would_be_dropped_is_left_out() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    ((whole,),) = encode_conversations([chat(2)], tokenizer)
    first_only = chat(2, trained=False)
    settings = config(max_seq_length=len(whole.input_ids) - 1)
    data = encode_training_set(settings, [first_only, chat(1, 2)], [], tokenizer)
    assert [row.question_id for row in data.rows] == ["chat.jsonl row 2"]


def test_a_document_is_split_and_every_token_but_the_first_is_learned_once() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    text = "옛날 옛적에 한 나그네가 살았습니다. " * 9
    ((whole,),) = encode_conversations([document(text)], tokenizer)
    assert whole.labels == [MASKED, *whole.input_ids[1:]] and whole.input_ids[-1] == tokenizer.eos_token_id
    data = encode_training_set(config(max_seq_length=40, num_train_epochs=1), [document(text)], [], tokenizer)
    learned = [label for row in data.rows for label in row.labels if label != MASKED]
    assert learned == list(whole.input_ids[1:]) and all(len(row.input_ids) <= 40 for row in data.rows)
    assert data.rows[1].question_id == "text.jsonl row 1 part 2" and data.too_long["rows_left_out"] == 0
