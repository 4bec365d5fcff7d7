"""Training rows -> token ids with labels, and the order in which they are trained.

In: rows of ``sft`` (questions, with a rationale or without), a tokenizer, a prompt style. Out: ``Encoded``
rows whose prompt ids are, token for token, what evaluation sends (``prompts.render_prompt`` and ``prompts.encode_prompts``
make both), the held-out rows, and the order of all epochs (``order``).
Knows nothing of Unsloth, TRL or devices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.data.alpaca import SftRow
from kmmlu_fast.data.training_rows import TrainingRow
from kmmlu_fast.prompting import prompts
from kmmlu_fast.prompting.cot_tokens import build_chain_of_thought
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.conversations import encode_conversations
from kmmlu_fast.training.encoded import EncodedRow
from kmmlu_fast.training.order import balanced_letters, order_rows, rotate_row_options
from kmmlu_fast.training.row_length import check_trainable, fit_length

Row = SftRow | TrainingRow


def encode_training_set(
    config: TrainConfig,
    rows: Sequence[Row],
    held_rows: Sequence[Row],
    tokenizer: Any,
    asked: Sequence[SftRow] = (),
) -> TrainSet:
    """Rows as tokens, the order of all epochs, what was too long, and the held-out rows.

    ``asked``: questions whose letters are read while training on rows that have none (KMMLU's train split).
    """
    questions = [row for row in map(as_question_row, rows) if row is not None]
    one_epoch = encode_mixed_rows(rows, tokenizer, config)
    fitting, too_long = fit_length(one_epoch, config.max_seq_length, config.too_long, tokenizer.bos_token_id)
    if too_long["rows_too_long"]:
        done = "cut at the beginning" if config.too_long == "truncate" else "left out"
        log_note(
            f"warning: {too_long['rows_too_long']} of {len(rows)} rows are over {config.max_seq_length}"
            f" tokens and were {done}: " + ", ".join(too_long["question_ids"][:5])
        )
    if not fitting:
        raise TrainError(
            f"--data {', '.join(config.data)}: no row is within --max-seq-length {config.max_seq_length};"
            " raise it"
        )
    count = len(fitting)
    lengths = [len(row.input_ids) for row in fitting] * config.num_train_epochs
    order = [i % count for i in order_rows(lengths, count, config.effective_batch, config.seed)]
    if config.max_steps:
        order = order[: config.max_steps * config.effective_batch]
    if config.rotate_options:
        kept = {row.question_id for row in fitting}
        if len(questions) < len(rows):
            raise TrainError("--rotate-options is for rows that are multiple-choice questions; leave it out")
        fitting, order = _encode_rotated_rows(
            [row for row in questions if row.question.question_id in kept], order, config, tokenizer
        )
    check_trainable(fitting)
    held, asked_rows, letter_ids = _encode_held_out(config, held_rows, tokenizer, asked)
    return TrainSet(
        rows=fitting, order=order, held_out=held, asked=asked_rows, letter_ids=letter_ids, too_long=too_long
    )


def as_question_row(row: Row) -> SftRow | None:
    """The multiple-choice row that a row is, if it is one."""
    return row if isinstance(row, SftRow) else row.item


def encode_mixed_rows(rows: Sequence[Row], tokenizer: Any, config: TrainConfig) -> list[EncodedRow]:
    """Rows of any form as token ids, in their order: questions as evaluation asks them, conversations by the
    chat template.

    ``--prompt-style`` counts for single-turn conversations where it was given.
    """
    questions = {
        place: found for place, row in enumerate(rows) if (found := as_question_row(row)) is not None
    }
    others = {
        place: row for place, row in enumerate(rows) if isinstance(row, TrainingRow) and row.item is None
    }
    style = config.prompt_style if "prompt_style" in config.model_fields_set else None
    encoded: dict[int, list[EncodedRow]] = dict(
        zip(others, encode_conversations(list(others.values()), tokenizer, style), strict=True)
    )
    asked = (
        encode_question_rows(list(questions.values()), tokenizer, config.prompt_style) if questions else []
    )
    encoded |= {place: [row] for place, row in zip(questions, asked, strict=True)}
    return [row for place in range(len(rows)) for row in encoded[place]]


def _encode_held_out(
    config: TrainConfig, rows: Sequence[Row], tokenizer: Any, asked: Sequence[SftRow]
) -> tuple[list[EncodedRow], list[EncodedRow], list[list[int]]]:
    """The held-out rows as they would be trained on, questions answered by the letter alone, and the letters'
    tokens.

    The questions are the held-out rows' own where all of these are questions, else ``asked``.
    """
    if not rows:
        return [], [], []
    questions = [row for row in map(as_question_row, rows) if row is not None]
    if len(questions) < len(rows):
        held, _ = fit_length(encode_mixed_rows(rows, tokenizer, config), config.max_seq_length, "drop", None)
        if not held:
            raise TrainError(f"no held-out row is within --max-seq-length {config.max_seq_length}; raise it")
        if not asked:
            return held, [], []
        plain = [replace(row, response=None) for row in asked]
        fitting, _ = fit_length(
            encode_question_rows(plain, tokenizer, config.prompt_style), config.max_seq_length, "drop", None
        )
        return held, fitting, letter_ids(plain, tokenizer, config.prompt_style)
    rows = questions
    letters = [replace(row, response=None) for row in rows]
    encoded = [
        fit_length(
            encode_question_rows(some, tokenizer, config.prompt_style), config.max_seq_length, "drop", None
        )[0]
        for some in ([rows] if rows == letters else [rows, letters])
    ]
    if not encoded[0]:
        raise TrainError(f"no held-out row is within --max-seq-length {config.max_seq_length}; raise it")
    return encoded[0], encoded[-1], letter_ids(letters, tokenizer, config.prompt_style)


def _encode_rotated_rows(
    rows: list[SftRow], order: list[int], config: TrainConfig, tokenizer: Any
) -> tuple[list[EncodedRow], list[int]]:
    """The rows under every letter that --rotate-options gives them, and the order in terms of these."""
    letters = [row.question.letters for row in rows]
    places = list(
        zip(order, balanced_letters(order, config.effective_batch, config.seed, letters), strict=True)
    )
    variants = {place: number for number, place in enumerate(dict.fromkeys(places))}
    encoded = encode_question_rows(
        [rotate_row_options(rows[i], letter) for i, letter in variants], tokenizer, config.prompt_style
    )
    fitting, _ = fit_length(encoded, config.max_seq_length, "truncate", tokenizer.bos_token_id)
    return fitting, [variants[place] for place in places]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSet:
    """Everything that is trained and measured on, as token ids."""

    rows: list[EncodedRow]
    order: list[int]  # indices into ``rows``, batch after batch, all epochs on end
    held_out: list[EncodedRow] = field(default_factory=list)  # as they would be trained on: for the loss
    asked: list[EncodedRow] = field(
        default_factory=list
    )  # the same questions answered by the letter alone: for the letters
    letter_ids: list[list[int]] = field(default_factory=list)  # each letter's tokens after a prompt, A-D
    too_long: dict[str, Any] = field(default_factory=dict)  # what ``fit_length`` says


def encode_question_rows(rows: list[SftRow], tokenizer: Any, style: str) -> list[EncodedRow]:
    """Rows as token ids. The response is the style's delimiter and the letter, then end-of-text; the prompt
    is multiple_choice's.

    A row with a rationale is asked as evaluation asks with ``--output-type cot``, and answers with its text.
    Prompt and response are tokenised together, as evaluation finds the letters' tokens; where that would
    change the prompt's own last tokens, the response is tokenised alone: evaluation sends the prompt's ids as
    they are.
    """
    most = max((len(row.question.options) for row in rows if row.response), default=0)
    reasoning = build_chain_of_thought(style, tokenizer, letters=OPTION_LETTERS[:most]) if most else None
    rendered = [
        (
            reasoning.reasoning_prompt(row.question, [], tokenizer)
            if reasoning and row.response
            else prompts.render_prompt(row.question, [], style, tokenizer)
        )
        for row in rows
    ]
    responses = [prompts.answer_delimiter(style) + (row.response or row.question.answer) for row in rows]
    contexts = prompts.encode_prompts(tokenizer, rendered)
    wholes = prompts.encode_prompts(
        tokenizer, [replace(p, text=p.text + r) for p, r in zip(rendered, responses, strict=True)]
    )
    end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    encoded = []
    for row, context, whole, response in zip(rows, contexts, wholes, responses, strict=True):
        tail = whole[len(context) :]
        if whole[: len(context)] != context:
            tail = tokenizer(response, add_special_tokens=False)["input_ids"]
        if not tail:
            raise TrainError(
                f"row {row.question.question_id}: the response has no tokens; nothing would be trained on"
            )
        options = len(row.question.options)
        encoded.append(
            EncodedRow(
                question_id=row.question.question_id,
                answer=row.question.answer,
                input_ids=(*context, *tail, *end),
                prompt_tokens=len(context),
                num_options=options,
            )
        )
    return encoded


def letter_ids(rows: list[SftRow], tokenizer: Any, style: str) -> list[list[int]]:
    """The tokens of each letter after the prompt, A-D, as evaluation reads them (several where
    a letter is not one token).
    """
    rendered = [prompts.render_prompt(row.question, [], style, tokenizer) for row in rows]
    letters = OPTION_LETTERS[: max(len(row.question.options) for row in rows)]
    found = prompts.letter_tokens(
        tokenizer, rendered, prompts.encode_prompts(tokenizer, rendered), style, letters
    )
    if found.ids:
        return [[token] for token in found.ids]
    delimiter = prompts.answer_delimiter(style)
    return [prompts.continuation_ids(tokenizer, rendered[0], delimiter + letter) for letter in letters]


def count_answer_letters(rows: list[EncodedRow]) -> dict[str, int]:
    """How often each letter is the answer, A-D."""
    counts = Counter(row.answer for row in rows)
    return {letter: counts[letter] for letter in OPTION_LETTERS if letter in LETTERS or counts[letter]}
