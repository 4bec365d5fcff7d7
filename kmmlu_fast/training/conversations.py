"""Conversations -> token ids with labels: the assistant's turns are trained on, and nothing else.

In: ``TrainingRow``s with turns, a tokenizer, perhaps a prompt style. Out: ``Encoded`` rows. The text is the
tokenizer's chat template's;
where it has none, ``PLAIN``'s. Which tokens are trained is read from the text: those that lie wholly within
an assistant's turn, its
end-of-turn token included. Knows nothing of Unsloth or TRL.

A template that rewrites earlier turns (Qwen3's drops their thinking) has no single text in which every turn
stands as it was said:
such a row becomes one row an assistant's turn, each after what the template shows then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.data.training_rows import TrainingRow, Turn
from kmmlu_fast.prompting import prompts
from kmmlu_fast.training.encoded import EncodedRow

PLAIN_NAME = "plain"  # as the adapter's card names it
PLAIN = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ {'system': '### 지시\n', 'user': '### 질문\n', 'assistant': '### 답변\n'}[m['role']] +"
    " m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### 답변\n' }}{% endif %}"
)


def choose_chat_template(tokenizer: Any) -> tuple[str, str | None]:
    """(name, template): the tokenizer's own, or the default that a base model gets."""
    return ("tokenizer", None) if getattr(tokenizer, "chat_template", None) else (PLAIN_NAME, PLAIN)


def encode_conversations(
    rows: Sequence[TrainingRow], tokenizer: Any, style: str | None = None
) -> list[list[EncodedRow]]:
    """The encoded rows of each row: one, or one an assistant's turn. ``style``: qa or lm-eval's wording, for
    single-turn rows only.

    TrainError where a row has nothing to learn from, or has several turns and a style was asked for.
    """
    if style is not None and not prompts.find_prompt_style(style).chat:
        return [[_encode_with_style(row, tokenizer, style)] for row in rows]
    template = choose_chat_template(tokenizer)[1]
    return [_encode_with_template(row, tokenizer, template) for row in rows]


def _encode_with_style(row: TrainingRow, tokenizer: Any, style: str) -> EncodedRow:
    """A single question and answer in the wording of evaluation's prompts, without options."""
    if [turn.role for turn in row.turns] != ["user", "assistant"]:
        roles = ", ".join(turn.role for turn in row.turns)
        raise TrainError(
            f"{row.where}: --prompt-style {style} is for a single question and answer, this row has {roles}; "
            "leave --prompt-style out: the chat template is used"
        )
    found = prompts.find_prompt_style(style)
    asked = prompts.Prompt(
        f"{found.prefix}{row.turns[0].content.strip()}\n{found.cue}", add_special_tokens=True
    )
    whole = replace(asked, text=asked.text + found.delimiter + row.turns[1].content.strip())
    context, ids = prompts.encode_prompts(tokenizer, [asked, whole])
    tail = ids[len(context) :] if ids[: len(context)] == context else None
    if tail is None:
        text = found.delimiter + row.turns[1].content.strip()
        tail = tokenizer(text, add_special_tokens=False)["input_ids"]
    end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return EncodedRow(
        question_id=row.where, answer="", input_ids=(*context, *tail, *end), prompt_tokens=len(context)
    )


def _encode_with_template(row: TrainingRow, tokenizer: Any, template: str | None) -> list[EncodedRow]:
    whole = _apply_chat_template(row.turns, tokenizer, template, row, False)
    spans = []
    for place, turn in enumerate(row.turns):
        if turn.role == "assistant":
            before = _apply_chat_template(row.turns[:place], tokenizer, template, row, True)
            after = _apply_chat_template(row.turns[: place + 1], tokenizer, template, row, False)
            if not (whole.startswith(before) and whole.startswith(after) and len(before) < len(after)):
                return _encode_turns_separately(row, tokenizer, template)
            spans.append((len(before), len(after.rstrip())))
    return [_encode_with_mask(row.where, whole, spans, tokenizer)]


def _encode_turns_separately(row: TrainingRow, tokenizer: Any, template: str | None) -> list[EncodedRow]:
    found = []
    for place, turn in enumerate(row.turns):
        if turn.role == "assistant":
            before = _apply_chat_template(row.turns[:place], tokenizer, template, row, True)
            after = _apply_chat_template(row.turns[: place + 1], tokenizer, template, row, False)
            if not after.startswith(before):
                raise TrainError(
                    f"{row.where}: the chat template writes turn {place + 1} otherwise than it asks for it, "
                    "so that what is "
                    "trained on cannot be told; give --prompt-style qa for single-turn rows, or a model with "
                    "another template"
                )
            found.append(
                _encode_with_mask(
                    f"{row.where} turn {place + 1}", after, [(len(before), len(after.rstrip()))], tokenizer
                )
            )
    return found


def _apply_chat_template(
    turns: Sequence[Turn], tokenizer: Any, template: str | None, row: TrainingRow, ask: bool
) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=ask,
            **({"chat_template": template} if template else {}),
        )
    except Exception as error:  # jinja's errors: a template that has no system turn, say
        raise TrainError(f"{row.where}: the model's chat template refuses its turns ({error})") from error
    return str(text)


def _encode_with_mask(name: str, text: str, spans: list[tuple[int, int]], tokenizer: Any) -> EncodedRow:
    """Token ids of ``text``, trained where a token lies within one of the character ``spans``."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    trained = [any(start <= a and b <= end and a < b for start, end in spans) for a, b in offsets]
    if not any(trained):
        raise TrainError(
            f"{name}: no token of the assistant's turns could be told from the rest; nothing would be"
            " trained on"
        )
    return EncodedRow(
        question_id=name,
        answer="",
        input_ids=tuple(ids),
        prompt_tokens=trained.index(True),
        mask=tuple(trained),
    )


def decode_trained_runs(row: EncodedRow, tokenizer: Any) -> list[tuple[str, bool]]:
    """The row as (text, trained) runs: what ``--show-rows`` colours. Tokens that share a character stand
    together."""
    runs: list[tuple[list[int], bool]] = []
    for token, label in zip(row.input_ids, row.labels, strict=True):
        trained = label >= 0
        if not runs or runs[-1][1] != trained:
            runs.append(([], trained))
        runs[-1][0].append(token)
    return [(tokenizer.decode(ids, skip_special_tokens=False), trained) for ids, trained in runs]
