"""Conversations -> token ids with labels: only the assistant's turns are trained on.

In: ``TrainingRow``s with turns (or a document), a tokenizer with its chat template, optionally a prompt
style. Out: ``EncodedRow``s. The text comes from the chat template (``prompting.chat_template``), or for base
models from the built-in ``plain``. An answer stands after the prompt that evaluation would send, and its
trained tokens are those wholly within an assistant's turn that is to be learned, including its end; of a
document, all. TrainError with file and row unless

    the answer's text lies in the trained span, and
    the span ends in a stop token: the template's own, or one that is added

If a template rewrites earlier turns (Qwen3's drops their thinking), no single text contains every turn as
written. Such a row becomes one row per assistant's turn, each after what the template shows at that point.
Knows nothing of Unsloth or TRL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from kmmlu_fast.core.errors import ConfigError, TrainError
from kmmlu_fast.data.training_rows import TrainingRow
from kmmlu_fast.prompting import prompts
from kmmlu_fast.prompting.chat_template import ChatTemplate, find_chat_template
from kmmlu_fast.prompting.prompt_styles import find_prompt_style
from kmmlu_fast.prompting.template_limits import TemplateRenderingError
from kmmlu_fast.training.encoded import EncodedRow, response_ids
from kmmlu_fast.training.stop_tokens import TrainingTokenizer, as_training_tokenizer

Message = dict[str, Any]


def encode_conversations(
    rows: Sequence[TrainingRow], tokenizer: Any, style: str | None = None
) -> list[list[EncodedRow]]:
    """The encoded rows of each row: one, or one per assistant's turn. ``style``: the wording of qa or
    lm-eval, for single-turn rows only.

    TrainError if a row has nothing to learn from, or has several turns although ``style`` is given.
    """
    tokenizer = as_training_tokenizer(tokenizer)
    worded = style if style is not None and not find_prompt_style(style).chat else None
    encoder = _ConversationEncoder(tokenizer)
    encoded = []
    for row in rows:
        if row.document is not None:
            encoded.append([_encode_document(row, tokenizer)])
        elif worded is not None:
            encoded.append([_encode_with_style(row, tokenizer, worded)])
        else:
            encoded.append(encoder.encode(row))
    return encoded


def _encode_document(row: TrainingRow, tokenizer: TrainingTokenizer) -> EncodedRow:
    """A text of which every token is trained (the first has nothing before it to be learned from)."""
    (ids,) = prompts.encode_prompts(tokenizer, [prompts.Prompt(row.document or "", add_special_tokens=True)])
    end = tokenizer.plain_stops.end
    ids = list(ids)
    if ids[-1:] != [end]:
        ids.append(end)
    if len(ids) < 2:
        raise TrainError(f"{row.where}: the text has no token to learn; take the row out")
    return EncodedRow(question_id=row.where, answer="", input_ids=tuple(ids), prompt_tokens=1)


def _encode_with_style(row: TrainingRow, tokenizer: TrainingTokenizer, style: str) -> EncodedRow:
    """A single question and answer in the wording of evaluation's prompts, without options."""
    if [turn.role for turn in row.turns] != ["user", "assistant"]:
        roles = ", ".join(turn.role for turn in row.turns)
        raise TrainError(
            f"{row.where}: --prompt-style {style} is for a single question and answer, this row has {roles}; "
            "leave --prompt-style out to use the chat template"
        )
    wording = find_prompt_style(style)
    question, answer = (turn.content.strip() for turn in row.turns)
    prompt = prompts.Prompt(f"{wording.prefix}{question}\n{wording.cue}", add_special_tokens=True)
    response = wording.delimiter + answer
    _require_rendered(row, [turn.to_message() for turn in row.turns], prompt.text + response)
    context, whole = prompts.encode_prompts(tokenizer, [prompt, replace(prompt, text=prompt.text + response)])
    ids = [*context, *response_ids(context, whole, response, tokenizer), tokenizer.plain_stops.end]
    return EncodedRow(question_id=row.where, answer="", input_ids=tuple(ids), prompt_tokens=len(context))


@dataclass(frozen=True, slots=True, kw_only=True)
class _RenderedTurn:
    """An assistant's turn: the text up to and with it. ``start`` is where training begins."""

    number: int  # from 1
    text: str
    start: int
    answer: str  # as it stands in the text
    as_written: bool  # whether the template writes the text itself, from the prompt on

    @property
    def end(self) -> int:
        return len(self.text.rstrip())


class _ConversationEncoder:
    """Rows of one tokenizer with its template and stop tokens."""

    def __init__(self, tokenizer: TrainingTokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, row: TrainingRow) -> list[EncodedRow]:
        chat = self._choose_template(row)
        messages = [turn.to_message() for turn in row.turns]
        turns = [
            self._render_turn(row, chat, messages, place)
            for place, turn in enumerate(row.turns)
            if turn.role == "assistant" and turn.trained
        ]
        if not turns:
            raise TrainError(f"{row.where}: no assistant's turn is trained on; take the row out")
        if all(turn.as_written for turn in turns) and not chat.always_generates:
            whole = _render(chat, messages, row)
            fitting = all(whole.startswith(turn.text) for turn in turns[:-1]) and (
                whole.startswith(turns[-1].text.rstrip())
            )
            encoded = self._encode_text(row.where, whole, turns) if fitting else None
            if encoded is not None:
                return [encoded]
        return [self._encode_turn(row, turn, len(turns) > 1) for turn in turns]

    def _choose_template(self, row: TrainingRow) -> ChatTemplate:
        """The template, with thinking on for a row that says what was thought, if there is a switch."""
        if not any(turn.reasoning for turn in row.turns):
            return find_chat_template(self._tokenizer)
        try:
            return find_chat_template(self._tokenizer, thinking=True)
        except ConfigError:
            return find_chat_template(self._tokenizer)

    def _render_turn(
        self, row: TrainingRow, chat: ChatTemplate, messages: list[Message], place: int
    ) -> _RenderedTurn:
        message, earlier = messages[place], messages[:place]
        parts = _answer_parts(message)
        prompt = _render(chat, earlier, row, add_generation_prompt=True)
        after = _render(chat, messages[: place + 1], row)
        _require_rendered(row, messages[: place + 1], after)
        is_plain = len(message) == 2
        if is_plain:  # a thought or a call of its own stands where the lead would stand
            prompt += chat.lead
        answer = str(message["content"]).strip()
        number, written = place + 1, after.startswith(prompt)
        if written and all(part in after[len(prompt) :] for part in parts):
            if chat.always_generates:
                end = after.rindex(answer) + len(answer) + len(self._tokenizer.stops.closing)
                after = after[:end]
            return _RenderedTurn(number=number, text=after, start=len(prompt), answer=answer, as_written=True)
        if is_plain and chat.keeps_answers and answer in after:
            text = prompt + chat.delimiter + answer + self._tokenizer.stops.closing
            return _RenderedTurn(number=number, text=text, start=len(prompt), answer=answer, as_written=False)
        missing = [name for name, value in message.items() if name not in ("role", "content") and value]
        what = f"its {' and '.join(missing)}" if missing and answer in after else "the answer"
        raise TrainError(
            f"{row.where}: {chat.origin} does not show {what} of turn {number} as it is written there, so it"
            " would not be trained on; give another template with --chat-template FILE, or --prompt-style qa"
            " for single-turn rows"
        )

    def _encode_turn(self, row: TrainingRow, turn: _RenderedTurn, is_one_of_several: bool) -> EncodedRow:
        name = f"{row.where} turn {turn.number}" if is_one_of_several else row.where
        encoded = self._encode_text(name, turn.text, [turn])
        if encoded is None:  # the prompt's end and the answer's start share a token
            encoded = self._encode_apart(name, turn)
        return encoded

    def _encode_text(self, name: str, text: str, turns: Sequence[_RenderedTurn]) -> EncodedRow | None:
        """The text's tokens, those within the turns trained on. None if a turn's answer or stop would not be
        among them.
        """
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
        trained = [False] * len(ids)
        for turn in turns:
            start, end = turn.start, turn.end
            inside = [i for i, (a, b) in enumerate(offsets) if start <= a < b <= end]
            if not inside or not _covers_answer(text, turn, offsets[inside[0]][0], offsets[inside[-1]][1]):
                return None
            last = inside[-1]
            if ids[last] not in self._tokenizer.stops.ids:
                if ids[last + 1 : last + 2] and ids[last + 1] in self._tokenizer.stops.ids:
                    inside.append(last + 1)  # the next role's token ends the turn, as GLM's does
                elif turn is turns[-1] and not text[end:].strip():
                    del ids[last + 1 :], trained[last + 1 :]
                    ids.append(self._tokenizer.stops.turn_end)
                    trained.append(False)
                    inside.append(last + 1)
                else:
                    return None
            for i in inside:
                trained[i] = True
        return EncodedRow(
            question_id=name,
            answer="",
            input_ids=tuple(ids),
            prompt_tokens=trained.index(True),
            mask=tuple(trained),
        )

    def _encode_apart(self, name: str, turn: _RenderedTurn) -> EncodedRow:
        """Prompt and answer tokenised apart: evaluation sends the prompt's ids unchanged."""
        answer = turn.text[turn.start : turn.end]
        prompt_ids, ids = (
            list(self._tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in (turn.text[: turn.start], answer)
        )
        if not ids:
            raise TrainError(f"{name}: the answer has no tokens; nothing would be trained on")
        if ids[-1] not in self._tokenizer.stops.ids:
            ids.append(self._tokenizer.stops.turn_end)
        return EncodedRow(
            question_id=name,
            answer="",
            input_ids=(*prompt_ids, *ids),
            prompt_tokens=len(prompt_ids),
            mask=(*([False] * len(prompt_ids)), *([True] * len(ids))),
        )


def _require_rendered(row: TrainingRow, messages: Sequence[Message], text: str) -> None:
    """TrainError if the template leaves out the last turn's thought, a tool or a call: many templates do, and
    the row would teach something else."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    thought = str(messages[-1].get("reasoning_content") or "").strip()
    names = {
        "tools": [str(tool.get("function", tool).get("name", "")) for tool in row.tools],
        "tool_calls": [str(call["function"]["name"]) for call in calls],
        "reasoning_content": [thought] if thought else [],
    }
    for key, values in names.items():
        if any(value not in text for value in values):
            raise TrainError(
                f"{row.where}: has {key}, which the chat template does not write; use a model whose template"
                " does, give another with --chat-template FILE, or take it out of the rows"
            )


def _answer_parts(message: Message) -> list[str]:
    """Texts of a turn that must stand in what is trained."""
    parts = [str(message["content"]).strip(), str(message.get("reasoning_content") or "").strip()]
    calls = message.get("tool_calls") or ()
    return [*filter(None, parts), *(str(call["function"]["name"]) for call in calls)]


def _covers_answer(text: str, turn: _RenderedTurn, first: int, last: int) -> bool:
    """Whether the characters from ``first`` to ``last`` hold the turn's answer, from its beginning on."""
    return turn.answer in text[first:last] and not text[turn.start : first].strip()


def _render(
    chat: ChatTemplate,
    messages: Sequence[Message],
    row: TrainingRow,
    *,
    add_generation_prompt: bool = False,
) -> str:
    if row.tools:
        chat = replace(chat, variables={**chat.variables, "tools": [dict(tool) for tool in row.tools]})
    try:
        return chat.render(messages, add_generation_prompt=add_generation_prompt)
    except TemplateRenderingError as error:
        raise TrainError(f"{row.where}: {chat.origin} refuses its turns ({error})") from error


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
