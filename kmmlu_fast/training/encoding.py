"""Training rows -> token ids with labels, and the order in which they are trained.

In: rows of any form, a tokenizer, a prompt style. Out: a ``TrainSet``: rows whose prompt ids are token for
token those that evaluation sends (``prompts.render_prompt`` and ``prompts.encode_prompts`` make both), the
held-out rows, and the order of all epochs (``order``). Knows nothing of Unsloth, TRL or devices.
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
from kmmlu_fast.prompting.method_choice import MOST_UNKNOWN, SOME_UNKNOWN
from kmmlu_fast.prompting.prompt_styles import find_prompt_style
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.conversations import encode_conversations
from kmmlu_fast.training.encoded import EncodedRow, response_ids
from kmmlu_fast.training.order import balanced_letters, order_rows, rotate_row_options
from kmmlu_fast.training.row_length import check_trainable, describe_too_long, fit_length
from kmmlu_fast.training.shorten import make_shortener
from kmmlu_fast.training.stop_tokens import as_training_tokenizer

Row = SftRow | TrainingRow


def encode_training_set(
    config: TrainConfig,
    rows: Sequence[Row],
    held_rows: Sequence[Row],
    tokenizer: Any,
    asked: Sequence[SftRow] = (),
) -> TrainSet:
    """Rows as tokens, the order of all epochs, what was too long, and the held-out rows.

    ``asked``: questions (of KMMLU's train split) to measure letters on if the held-out rows have none.
    """
    tokenizer = as_training_tokenizer(tokenizer)
    questions = select_question_rows(rows)
    encoded = encode_mixed_rows(rows, tokenizer, config)
    _note_growth(encoded)
    one_epoch = [row for pieces in encoded for row in pieces]
    _check_unknown_tokens(one_epoch, tokenizer)
    fitting, too_long = _fit_rows(one_epoch, rows, tokenizer, config, "rows")
    _require_fitting(fitting, f"--data {', '.join(config.data)}: no row", config)
    count = len(fitting)
    lengths = [len(row.input_ids) for row in fitting] * config.num_train_epochs
    order = [i % count for i in order_rows(lengths, count, config.effective_batch, config.seed)]
    if config.max_steps:
        order = order[: config.max_steps * config.effective_batch]
    if config.rotate_options:
        _note_unrotated(len(questions), len(rows))
        if questions:
            kept_ids = {row.question_id for row in fitting if row.answer}
            kept = iter([row for row in questions if row.question.question_id in kept_ids])
            fitting_questions = [next(kept) if row.answer else None for row in fitting]
            fitting, order = _encode_rotated_rows(fitting_questions, fitting, order, config, tokenizer)
    check_trainable(fitting)
    held, asked_rows, ids = _encode_held_out(config, held_rows, tokenizer, asked, too_long)
    return TrainSet(
        rows=fitting, order=order, held_out=held, asked=asked_rows, letter_ids=ids, too_long=too_long
    )


def _note_growth(encoded: list[list[EncodedRow]]) -> None:
    """Say how rows and tokens grow if a template needs one row per assistant's turn."""
    rows = [row for pieces in encoded for row in pieces]
    if len(rows) > len(encoded):
        before = sum(len(pieces[-1].input_ids) for pieces in encoded)
        after = sum(len(row.input_ids) for row in rows)
        log_note(
            "note: the chat template rewrites earlier turns, so every turn is a row of its own:"
            f" {len(encoded):,} rows ({before:,} tokens) become {len(rows):,} ({after:,} tokens); --turns"
            " last trains each conversation's last turn alone"
        )


def _note_unrotated(questions: int, rows: int) -> None:
    """Say which rows --rotate-options has nothing to turn in."""
    if questions < rows:
        what = f"{rows - questions:,} of the {rows:,}" if questions else "all"
        log_note(f"note: --rotate-options is for questions; {what} rows have no options and stay as they are")


def _fit_rows(
    encoded: list[EncodedRow], rows: Sequence[Row], tokenizer: Any, config: TrainConfig, what: str
) -> tuple[list[EncodedRow], dict[str, Any]]:
    """The rows within --max-seq-length by the one rule of --too-long, and a note on the others."""
    style = _conversation_style(config)
    shorten = make_shortener(
        rows, config.max_seq_length, lambda row: encode_conversations([row], tokenizer, style)[0]
    )
    fitting, report = fit_length(
        encoded, config.max_seq_length, config.too_long, tokenizer.bos_token_id, shorten
    )
    report["rows"] = len(encoded)
    if told := describe_too_long(report, what):
        log_note(f"warning: {told}")
    return fitting, report


def _conversation_style(config: TrainConfig) -> str | None:
    return config.prompt_style if "prompt_style" in config.model_fields_set else None


def _require_fitting(fitting: list[EncodedRow], none: str, config: TrainConfig) -> None:
    if not fitting:
        raise TrainError(f"{none} is within --max-seq-length {config.max_seq_length}; raise it")


def as_question_row(row: Row) -> SftRow | None:
    """The row as a multiple-choice question; None if it is not one."""
    return row if isinstance(row, SftRow) else row.item


def select_question_rows(rows: Sequence[Row]) -> list[SftRow]:
    """The rows that are multiple-choice questions."""
    return [question for question in map(as_question_row, rows) if question is not None]


def encode_mixed_rows(rows: Sequence[Row], tokenizer: Any, config: TrainConfig) -> list[list[EncodedRow]]:
    """Rows of any form as token ids, in their order: questions as evaluation asks them, conversations by the
    chat template (one row, or one per assistant's turn).

    If ``--prompt-style`` is given, it also applies to single-turn conversations.
    """
    others = [row for row in rows if isinstance(row, TrainingRow) and row.item is None]
    conversations = iter(encode_conversations(others, tokenizer, _conversation_style(config)))
    questions = iter(encode_question_rows(select_question_rows(rows), tokenizer, config.prompt_style))
    return [next(conversations) if as_question_row(row) is None else [next(questions)] for row in rows]


def _encode_held_out(
    config: TrainConfig,
    rows: Sequence[Row],
    tokenizer: Any,
    asked: Sequence[SftRow],
    too_long: dict[str, Any],
) -> tuple[list[EncodedRow], list[EncodedRow], list[list[int]]]:
    """The held-out rows as they would be trained on, questions answered by the letter alone, and the letters'
    tokens. Those that are too long are counted in ``too_long``.

    The questions are the held-out rows themselves if all of them are questions, else ``asked``.
    """
    if not rows:
        return [], [], []
    pieces = [row for encoded in encode_mixed_rows(rows, tokenizer, config) for row in encoded]
    held, report = _fit_rows(pieces, rows, tokenizer, config, "held-out rows")
    too_long["held_out"] = {name: report[name] for name in ("rows_too_long", "rows_left_out")}
    _require_fitting(held, "no held-out row", config)
    questions = select_question_rows(rows)
    all_questions = len(questions) == len(rows)
    letter_rows = [replace(row, response=None) for row in (questions if all_questions else asked)]
    if not letter_rows:
        return held, [], []
    ids = letter_ids(letter_rows, tokenizer, config.prompt_style)
    if all_questions and letter_rows == questions:
        return held, held, ids
    encoded = encode_question_rows(letter_rows, tokenizer, config.prompt_style)
    return held, fit_length(encoded, config.max_seq_length, "drop", None)[0], ids


def _encode_rotated_rows(
    rows: Sequence[SftRow | None],
    own_rows: list[EncodedRow],
    order: list[int],
    config: TrainConfig,
    tokenizer: Any,
) -> tuple[list[EncodedRow], list[int]]:
    """The rows under every answer letter that --rotate-options gives them, and the order of the variants.
    ``own_rows``: the rows as they were read, encoded; those that are no questions (None) stay so."""
    own_letters = [row.question.letters if row else "" for row in rows]
    letters = balanced_letters(order, config.effective_batch, config.seed, own_letters)
    variants = list(zip(order, letters, strict=True))
    numbers = {variant: number for number, variant in enumerate(dict.fromkeys(variants))}
    questions = [(row, letter) for i, letter in numbers if (row := rows[i]) is not None]
    rotated = [rotate_row_options(row, letter) for row, letter in questions]
    encoded = iter(encode_question_rows(rotated, tokenizer, config.prompt_style))
    fitting = []
    for i, letter in numbers:
        variant = next(encoded) if letter else own_rows[i]
        # A variant is a few tokens longer than the row as it was read, which fits: then that stands for it.
        fitting.append(variant if len(variant.input_ids) <= config.max_seq_length else own_rows[i])
    return fitting, [numbers[variant] for variant in variants]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSet:
    """The rows to train and measure on, as token ids."""

    rows: list[EncodedRow]
    order: list[int]  # indices into ``rows``, batch after batch, for all epochs
    held_out: list[EncodedRow] = field(default_factory=list)  # as they would be trained on: for the loss
    # Questions answered by the letter alone, for the letters; the same list as ``held_out`` if that fits.
    asked: list[EncodedRow] = field(default_factory=list)
    letter_ids: list[list[int]] = field(default_factory=list)  # each letter's tokens after a prompt, A-D
    too_long: dict[str, Any] = field(default_factory=dict)  # the report of ``fit_length``


def _check_unknown_tokens(rows: Sequence[EncodedRow], tokenizer: Any) -> None:
    """Log the share of the unknown token; TrainError if it is large."""
    unknown = prompts.find_unknown_id(tokenizer)
    if unknown is None:
        return
    total = sum(len(row.input_ids) for row in rows)
    share = sum(row.input_ids.count(unknown) for row in rows) / max(1, total)
    if share > MOST_UNKNOWN:
        raise TrainError(
            f"{share:.0%} of the rows' tokens are the unknown token: the model's vocabulary does not have"
            " this language's characters; train another model"
        )
    if share > SOME_UNKNOWN:
        log_note(f"warning: {share:.1%} of the rows' tokens are the unknown token")


def encode_question_rows(rows: list[SftRow], tokenizer: Any, style: str) -> list[EncodedRow]:
    """Rows as token ids: the prompt of multiple_choice, the style's delimiter and the letter, and an end: in
    chat the template's own, else end-of-text.

    A row with a rationale has the prompt of ``--output-type cot`` and is answered with its text. Prompt and
    response are tokenised together, as evaluation finds the letters' tokens.
    """
    tokenizer = as_training_tokenizer(tokenizer)
    most = max((len(row.question.options) for row in rows if row.response), default=0)
    reasoning = build_chain_of_thought(style, tokenizer, letters=OPTION_LETTERS[:most]) if most else None
    if reasoning and (reasoning.in_thought or reasoning.parser.always):
        raise TrainError(
            "--rationale given: the chat template starts with a thought, which the rows' explanations do not"
            " close; switch it off with --chat-template-kwargs NAME=VALUE, or give --prompt-style qa"
        )
    rendered = []
    for row in rows:
        if reasoning and row.response:
            rendered.append(reasoning.reasoning_prompt(row.question, [], tokenizer))
        else:
            rendered.append(prompts.render_prompt(row.question, [], style, tokenizer))
    delimiter = prompts.answer_delimiter(style, tokenizer)
    responses = [delimiter + (row.response or row.question.answer) for row in rows]
    texts = [replace(p, text=p.text + r) for p, r in zip(rendered, responses, strict=True)]
    contexts = prompts.encode_prompts(tokenizer, rendered)
    wholes = prompts.encode_prompts(tokenizer, texts)
    is_chat = find_prompt_style(style).chat
    end = tokenizer.stops.turn_end if is_chat else tokenizer.plain_stops.end
    encoded = []
    for row, context, whole, response in zip(rows, contexts, wholes, responses, strict=True):
        question = row.question
        answer_ids = response_ids(context, whole, response, tokenizer)
        if not answer_ids:
            raise TrainError(
                f"row {question.question_id}: the response has no tokens; nothing would be trained on"
            )
        encoded.append(
            EncodedRow(
                question_id=question.question_id,
                answer=question.answer,
                input_ids=(*context, *answer_ids, end),
                prompt_tokens=len(context),
                num_options=len(question.options),
            )
        )
    return encoded


def letter_ids(rows: list[SftRow], tokenizer: Any, style: str) -> list[list[int]]:
    """The tokens of each letter after the prompt, A-D, as evaluation reads them (several if a letter is not
    one token).
    """
    rendered = [prompts.render_prompt(row.question, [], style, tokenizer) for row in rows]
    letters = OPTION_LETTERS[: max(len(row.question.options) for row in rows)]
    contexts = prompts.encode_prompts(tokenizer, rendered)
    tokens = prompts.letter_tokens(tokenizer, rendered, contexts, style, letters)
    if tokens.ids:
        return [[token] for token in tokens.ids]
    delimiter = prompts.answer_delimiter(style, tokenizer)
    return [prompts.continuation_ids(tokenizer, rendered[0], delimiter + letter) for letter in letters]


def count_answer_letters(rows: list[EncodedRow]) -> dict[str, int]:
    """How often each letter is the answer, A-D."""
    counts = Counter(row.answer for row in rows)
    return {letter: counts[letter] for letter in OPTION_LETTERS if letter in LETTERS or counts[letter]}
