"""Conversations -> token ids with labels: only the assistant's turns are trained on.

In: ``TrainingRow``s with turns (or a document), a tokenizer, optionally a prompt style. Out: ``EncodedRow``s.
The text comes from the tokenizer's chat template, or from ``PLAIN`` if it has none. The trained tokens are
those wholly within an assistant's turn that is to be learned, including its end-of-turn token; of a document,
all. Knows nothing of Unsloth or TRL.

If a template rewrites earlier turns (Qwen3's drops their thinking), no single text contains every turn as
written. Such a row becomes one row per assistant's turn, each after what the template shows at that point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.data.training_rows import TrainingRow, Turn
from kmmlu_fast.prompting import prompts
from kmmlu_fast.training.encoded import EncodedRow, response_ids

PLAIN_NAME = "plain"  # its name in the adapter's card
PLAIN = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ {'system': '### 지시\n', 'user': '### 질문\n', 'assistant': '### 답변\n'}[m['role']] +"
    " m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### 답변\n' }}{% endif %}"
)


def choose_chat_template(tokenizer: Any) -> tuple[str, str | None]:
    """(name, template): the tokenizer's own, or the default for base models."""
    return ("tokenizer", None) if getattr(tokenizer, "chat_template", None) else (PLAIN_NAME, PLAIN)


def encode_conversations(
    rows: Sequence[TrainingRow], tokenizer: Any, style: str | None = None
) -> list[list[EncodedRow]]:
    """The encoded rows of each row: one, or one per assistant's turn. ``style``: the wording of qa or
    lm-eval, for single-turn rows only.

    TrainError if a row has nothing to learn from, or has several turns although ``style`` is given.
    """
    worded = style if style is not None and not prompts.find_prompt_style(style).chat else None
    template = choose_chat_template(tokenizer)[1]
    return [_encode_row(row, tokenizer, worded, template) for row in rows]


def _encode_row(
    row: TrainingRow, tokenizer: Any, style: str | None, template: str | None
) -> list[EncodedRow]:
    if row.document is not None:
        return [_encode_document(row, tokenizer)]
    if style is not None:
        return [_encode_with_style(row, tokenizer, style)]
    return _encode_with_template(row, tokenizer, template)


def _encode_document(row: TrainingRow, tokenizer: Any) -> EncodedRow:
    """A text of which every token is trained (the first has nothing before it to be learned from)."""
    (ids,) = prompts.encode_prompts(tokenizer, [prompts.Prompt(row.document or "", add_special_tokens=True)])
    ids = list(ids)
    if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
    if len(ids) < 2:
        raise TrainError(f"{row.where}: the text has no token to learn; take the row out")
    return EncodedRow(question_id=row.where, answer="", input_ids=tuple(ids), prompt_tokens=1)


def _encode_with_style(row: TrainingRow, tokenizer: Any, style: str) -> EncodedRow:
    """A single question and answer in the wording of evaluation's prompts, without options."""
    if [turn.role for turn in row.turns] != ["user", "assistant"]:
        roles = ", ".join(turn.role for turn in row.turns)
        raise TrainError(
            f"{row.where}: --prompt-style {style} is for a single question and answer, this row has {roles}; "
            "leave --prompt-style out to use the chat template"
        )
    wording = prompts.find_prompt_style(style)
    question, answer = (turn.content.strip() for turn in row.turns)
    prompt = prompts.Prompt(f"{wording.prefix}{question}\n{wording.cue}", add_special_tokens=True)
    response = wording.delimiter + answer
    context, whole = prompts.encode_prompts(tokenizer, [prompt, replace(prompt, text=prompt.text + response)])
    ids = [*context, *response_ids(context, whole, response, tokenizer)]
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return EncodedRow(question_id=row.where, answer="", input_ids=tuple(ids), prompt_tokens=len(context))


def _encode_with_template(row: TrainingRow, tokenizer: Any, template: str | None) -> list[EncodedRow]:
    whole = _apply_chat_template(row, row.turns, tokenizer, template)
    spans = []
    for _, before, after in _assistant_turns(row, tokenizer, template):
        if not (whole.startswith(before) and whole.startswith(after) and len(before) < len(after)):
            return _encode_turns_separately(row, tokenizer, template)
        spans.append((len(before), len(after.rstrip())))
    return [_encode_with_mask(row.where, whole, spans, tokenizer)]


def _encode_turns_separately(row: TrainingRow, tokenizer: Any, template: str | None) -> list[EncodedRow]:
    encoded = []
    for number, before, after in _assistant_turns(row, tokenizer, template):
        if not after.startswith(before):
            raise TrainError(
                f"{row.where}: the chat template does not write turn {number} after its generation prompt, so"
                " the tokens to train on are unknown; give --prompt-style qa for single-turn rows, or a model"
                " with another template"
            )
        span = (len(before), len(after.rstrip()))
        encoded.append(_encode_with_mask(f"{row.where} turn {number}", after, [span], tokenizer))
    return encoded


def _assistant_turns(
    row: TrainingRow, tokenizer: Any, template: str | None
) -> Iterator[tuple[int, str, str]]:
    """(number from 1, text up to the turn, text with the turn) of each assistant's turn that is trained."""
    for place, turn in enumerate(row.turns):
        if turn.role == "assistant" and turn.trained:
            before = _apply_chat_template(row, row.turns[:place], tokenizer, template, True)
            after = _apply_chat_template(row, row.turns[: place + 1], tokenizer, template)
            _require_rendered(row, row.turns[: place + 1], after)
            yield place + 1, before, after


def _require_rendered(row: TrainingRow, turns: Sequence[Turn], text: str) -> None:
    """TrainError if the template leaves out the last turn's thought, a tool or a call: many templates do, and
    the row would teach something else."""
    names = {"tools": [str(tool.get("function", tool).get("name", "")) for tool in row.tools]}
    names["tool_calls"] = [call["function"]["name"] for turn in turns for call in turn.tool_calls]
    names["reasoning_content"] = [turns[-1].reasoning.strip()] if turns[-1].reasoning else []
    for key, values in names.items():
        if any(value not in text for value in values):
            raise TrainError(
                f"{row.where}: has {key}, which the chat template does not write; use a model whose template"
                " does, or take it out of the rows"
            )


def _apply_chat_template(
    row: TrainingRow,
    turns: Sequence[Turn],
    tokenizer: Any,
    template: str | None,
    add_generation_prompt: bool = False,
) -> str:
    messages = [turn.to_message() for turn in turns]
    settings: dict[str, Any] = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
    if row.tools:
        settings["tools"] = [dict(tool) for tool in row.tools]
    if template:
        settings["chat_template"] = template
    try:
        return str(tokenizer.apply_chat_template(messages, **settings))
    except Exception as error:  # jinja's errors, such as that of a template without a system turn
        raise TrainError(f"{row.where}: the model's chat template refuses its turns ({error})") from error


def _encode_with_mask(name: str, text: str, spans: list[tuple[int, int]], tokenizer: Any) -> EncodedRow:
    """Token ids of ``text``; tokens within one of the character ``spans`` are trained on."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    trained = [any(start <= a and b <= end and a < b for start, end in spans) for a, b in offsets]
    if not any(trained):
        raise TrainError(
            f"{name}: no token lies wholly within the assistant's turns; nothing would be trained on"
        )
    return EncodedRow(
        question_id=name,
        answer="",
        input_ids=tuple(ids),
        prompt_tokens=trained.index(True),
        mask=tuple(trained),
    )


def decode_trained_runs(row: EncodedRow, tokenizer: Any) -> list[tuple[str, bool]]:
    """The row as (text, trained) runs, for ``--show-rows``. Each run is decoded as a whole: several tokens
    can share a character.
    """
    pairs = zip(row.input_ids, row.labels, strict=True)
    runs = groupby(pairs, key=lambda pair: pair[1] >= 0)
    return [
        (tokenizer.decode([token for token, _ in run], skip_special_tokens=False), trained)
        for trained, run in runs
    ]
