"""Conversations as tokens: what is trained on is the assistant's turns, token for token, whatever the
template."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exam_files import write_jsonl
from tiny import make_tiny_tokenizer

from kmmlu_fast.core.errors import ConfigError, TrainError
from kmmlu_fast.data.chat_turns import ToolUse
from kmmlu_fast.data.training_rows import TrainingRow, Turn, read_training_rows
from kmmlu_fast.prompting.chat_template import BUILT_IN, PLAIN_NAME
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.conversations import (
    decode_trained_runs,
    encode_conversations,
)
from kmmlu_fast.training.encoded import MASKED, EncodedRow
from kmmlu_fast.training.encoding import encode_training_set
from kmmlu_fast.training.row_length import fit_length
from kmmlu_fast.training.stop_tokens import as_training_tokenizer

TURNS = (
    Turn("system", "짧게 답하세요."),
    Turn("user", "하나?"),
    Turn("assistant", "둘."),
    Turn("user", "셋?"),
    Turn("assistant", "넷, 다섯."),
)


def row(*turns: Turn) -> TrainingRow:
    return TrainingRow(turns=turns or TURNS, source="chat.jsonl", number=7, form="messages")


def one(tokenizer: Any, style: str | None = None, *turns: Turn) -> EncodedRow:
    ((found,),) = encode_conversations([row(*turns)], tokenizer, style)
    return found


def trained_texts(encoded: EncodedRow, tokenizer: Any) -> list[str]:
    return [text for text, trained in decode_trained_runs(encoded, tokenizer) if trained]


TOOLED = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}({{ c.function.name }}"
    " {{ c.function.arguments | tojson }}){% endfor %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CALL = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "KST"}}}


def test_a_masked_turn_is_read_and_not_trained() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    draft = Turn("assistant", "틀린 초안.", trained=False)
    found = one(
        tokenizer, None, Turn("user", "하나?"), draft, Turn("user", "다시?"), Turn("assistant", "둘.")
    )
    assert trained_texts(found, tokenizer) == ["둘.<|im_end|>"]
    assert "틀린 초안." in tokenizer.decode(found.input_ids)


def test_thoughts_tools_and_calls_are_trained_as_the_template_writes_them() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    turns = (
        Turn("user", "몇 시?"),
        Turn("assistant", "", reasoning="시계를 본다.", tool_use=ToolUse((CALL,))),
        Turn("tool", "15:00", tool_use=ToolUse((), "clock")),
        Turn("assistant", "세 시."),
    )
    told = replace(row(*turns), tools=({"type": "function", "function": {"name": "clock"}},))
    for name in ("tools", "tool_calls", "reasoning_content"):
        tokenizer.chat_template = make_tiny_tokenizer(chat=True).chat_template
        parts = {
            "tools": replace(told, turns=(turns[0], turns[3])),
            "tool_calls": row(turns[0], replace(turns[1], reasoning=None)),
            "reasoning_content": row(turns[0], Turn("assistant", "세 시.", reasoning="시계를 본다.")),
        }
        with pytest.raises(TrainError, match=rf"chat\.jsonl row 7: has {name}, which the chat template"):
            encode_conversations([parts[name]], tokenizer)
    with pytest.raises(TrainError, match="has reasoning_content"):
        encode_conversations([parts["reasoning_content"]], tokenizer, "qa")
    tokenizer.chat_template = TOOLED
    ((found,),) = encode_conversations([told], tokenizer)
    call = '<think>시계를 본다.</think>(clock {"zone": "KST"})'
    assert tokenizer.decode(found.input_ids).startswith("[clock]<user>몇 시?")
    assert [text.replace(tokenizer.eos_token, "") for text in trained_texts(found, tokenizer)] == [
        call,
        "세 시.",
    ]


def test_all_assistant_turns_and_their_ends_are_trained_and_nothing_else() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    found = one(tokenizer)
    assert trained_texts(found, tokenizer) == ["둘.<|im_end|>", "넷, 다섯.<|im_end|>"]
    everything = "".join(text for text, _ in decode_trained_runs(found, tokenizer))
    messages = [{"role": turn.role, "content": turn.content} for turn in TURNS]
    assert everything == tokenizer.apply_chat_template(messages, tokenize=False)
    assert found.labels.count(MASKED) == len(found.input_ids) - sum(found.mask or ())
    assert all(label in (MASKED, token) for label, token in zip(found.labels, found.input_ids, strict=True))
    assert found.prompt_tokens == found.labels.index(next(x for x in found.labels if x != MASKED))


def test_a_base_model_without_a_template_gets_the_named_default() -> None:
    tokenizer = make_tiny_tokenizer(bos=True)
    own = make_tiny_tokenizer(chat=True)
    assert as_training_tokenizer(tokenizer).chat_template == BUILT_IN[PLAIN_NAME]
    assert as_training_tokenizer(own).chat_template == own.chat_template
    found = one(tokenizer)
    text = "".join(text for text, _ in decode_trained_runs(found, tokenizer))
    assert text.startswith("<|bos|>### 지시\n짧게 답하세요.\n\n### 질문\n하나?\n\n### 답변\n둘.<|eos|>")
    assert trained_texts(found, tokenizer) == ["둘.<|eos|>", "넷, 다섯.<|eos|>"]
    assert found.input_ids.count(tokenizer.bos_token_id) == 1


def test_a_template_that_rewrites_earlier_turns_gives_a_row_a_turn() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' and not loop.last %}(old) "
        "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    ((first, second),) = encode_conversations([row()], tokenizer)
    assert trained_texts(first, tokenizer) == ["둘.<|im_end|>"]
    assert trained_texts(second, tokenizer) == ["넷, 다섯.<|im_end|>"]
    assert (
        "(old) 둘." in decode_trained_runs(second, tokenizer)[0][0]
        and second.question_id == "chat.jsonl row 7 turn 5"
    )


def test_a_template_without_a_system_turn_is_told() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    tokenizer.chat_template = "{{ raise_exception('no system turn') }}"
    with pytest.raises(ConfigError, match=r"the model's chat template refuses .*no system turn"):
        encode_conversations([row()], tokenizer)


def test_single_turns_in_the_wording_of_evaluation() -> None:
    tokenizer = make_tiny_tokenizer()
    found = one(tokenizer, "qa", Turn("user", "물은?"), Turn("assistant", "H2O"))
    assert decode_trained_runs(found, tokenizer) == [("문제: 물은?\n정답:", False), (" H2O<|eos|>", True)]
    with pytest.raises(TrainError, match="is for a single question and answer"):
        one(tokenizer, "qa")


def test_a_conversation_is_cut_at_its_end_only_if_asked() -> None:
    tokenizer = make_tiny_tokenizer(chat=True)
    found = one(tokenizer)
    first_end = found.labels.index(next(x for x in found.labels if x != MASKED)) + 5
    assert fit_length([found], first_end, "truncate", None)[0] == []
    (cut,), report = fit_length([found], first_end, "cut", None)
    assert len(cut.input_ids) == first_end == len(cut.labels) and report["rows_too_long"] == 1
    assert fit_length([found], 10, "cut", None)[0] == []  # nothing of the assistant's would be left
    assert fit_length([found], 10, "drop", None)[0] == []


def test_a_set_of_both_kinds(tmp_path: Path) -> None:
    chat = {"messages": [{"role": t.role, "content": t.content} for t in TURNS]}
    question = {"question": "1+1?", "options": ["1", "2", "3", "4", "5"], "answer": "B"}
    path = write_jsonl(tmp_path / "both.jsonl", [chat, question, chat])
    rows = list(read_training_rows(str(path)))
    tokenizer = make_tiny_tokenizer(chat=True, letters="ABCDE")
    config = TrainConfig(data=[str(path)], num_train_epochs=1)
    data = encode_training_set(config, rows, rows[:1], tokenizer, [item for r in rows if (item := r.item)])
    assert [bool(found.mask) for found in data.rows] == [True, False, True] and sorted(data.order) == [
        0,
        1,
        2,
    ]
    asked = data.rows[1]
    assert (
        asked.answer == "B"
        and asked.num_options == 5
        and tokenizer.decode(asked.input_ids).endswith("정답： B<|eos|>")
    )
    assert len(data.held_out) == 1 and len(data.asked) == 1 and len(data.letter_ids) == 5


def test_a_batch_s_rows_do_not_see_each_other(tmp_path: Path) -> None:
    """The collated batch gives each row the loss that it has alone: no attention crosses rows, padding
    counts for nothing."""
    import torch
    from tiny import make_tiny_model
    from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq

    model = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "m", chat=True))
    tokenizer = make_tiny_tokenizer(chat=True)
    rows = [
        one(tokenizer),
        one(tokenizer, None, Turn("user", "물은 무엇으로 되어 있나?"), Turn("assistant", "H2O")),
    ]
    features = [{"input_ids": list(r.input_ids), "labels": r.labels} for r in rows]
    batch = DataCollatorForSeq2Seq(tokenizer, padding=True)(features)
    with torch.no_grad():
        together = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        for place, found in enumerate(rows):
            alone = model(input_ids=torch.tensor([found.input_ids])).logits[0]
            real = batch["attention_mask"][place].bool()
            assert torch.allclose(together[place][real], alone, atol=1e-4)
            assert batch["labels"][place][real].tolist() == found.labels


def test_rows_without_an_answer_letter_do_not_count_as_one() -> None:
    from kmmlu_fast.training.encoding import count_answer_letters

    assert count_answer_letters(
        [
            EncodedRow(question_id="a", answer="", input_ids=(1,), prompt_tokens=0),
            EncodedRow(question_id="b", answer="B", input_ids=(1,), prompt_tokens=0),
            EncodedRow(question_id="c", answer="E", input_ids=(1,), prompt_tokens=0),
        ]
    ) == {
        "A": 0,
        "B": 1,
        "C": 0,
        "D": 0,
        "E": 1,
    }


def test_a_tools_turn_without_a_question_is_refused_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "tool", "content": "x"}]}) + "\n", encoding="utf-8")
    from kmmlu_fast.core.errors import DataError

    with pytest.raises(DataError, match="row 1: user and assistant must alternate"):
        list(read_training_rows(str(path)))


@pytest.mark.parametrize("chat", [True, False])
def test_the_mask_is_the_one_that_transformers_makes_of_the_marked_template(chat: bool) -> None:
    """An independent way to the same mask: the template with ``generation`` marks around what is learnt."""
    tokenizer = make_tiny_tokenizer(chat=chat, bos=not chat)
    if chat:
        marked = (
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
            "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
            "{% else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
        )
    else:
        marked = (
            "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}### 지시\n{{ m['content'] }}"
            "{% elif m['role'] == 'user' %}### 질문\n{{ m['content'] }}{% else %}### 답변\n"
            "{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}{% endif %}"
            "{{ '\n\n' }}{% endfor %}"
        )
    texts = ("둘.", " 앞뒤에 빈칸 ", "🙂 ABC\n두 줄\n", "A")
    for answer in texts:
        turns = (*TURNS[:2], Turn("assistant", answer), Turn("user", "또?"), Turn("assistant", answer + "끝"))
        found = one(tokenizer, None, *turns)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        theirs = tokenizer.apply_chat_template(
            messages, chat_template=marked, return_dict=True, return_assistant_tokens_mask=True
        )
        assert list(found.input_ids) == list(theirs["input_ids"])
        assert [label != MASKED for label in found.labels] == [bool(m) for m in theirs["assistant_masks"]]
        assert sum(theirs["assistant_masks"]) > 2
