"""Training's inputs, read and checked before anything heavy starts: rows, held-out rows, leakage findings.

In: a ``TrainConfig``. Out: ``TrainingInputs``. TrainError, DataError or ConfigError for what a user can fix.
Knows nothing of tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

from kmmlu_fast.contamination import overlap
from kmmlu_fast.contamination.check import find_training_overlap, load_guarded_exams
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import compute_fingerprint, hash_file
from kmmlu_fast.core.errors import DataError, TrainError
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.data import dataset as datasets
from kmmlu_fast.data.alpaca import SftRow
from kmmlu_fast.data.bad_rows import BadRows
from kmmlu_fast.data.chat_turns import learn_last_turn_only
from kmmlu_fast.data.exam_lookup import find_exam_by_hub_id
from kmmlu_fast.data.hub_rows import parse_hub_source
from kmmlu_fast.data.mixture import (
    MixtureShare,
    mixture_lines,
    parse_mixture_source,
    read_mixture,
)
from kmmlu_fast.data.row_files import source_files
from kmmlu_fast.data.row_layouts import parse_columns
from kmmlu_fast.data.training_rows import TrainingRow, read_training_rows
from kmmlu_fast.training import encoding
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.order import split_held_out

Row = SftRow | TrainingRow


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingInputs:
    """Rows to train on and rows to hold out; ``asked`` are questions to measure letters on if the held-out
    rows are not questions.
    """

    rows: list[Row]
    held_out: list[Row]
    leaks: dict[str, Any]  # the leakage guard's findings
    shares: list[MixtureShare] = field(default_factory=list)
    asked: list[SftRow] = field(default_factory=list)
    asked_of: str = ""  # the dataset and split of ``asked``

    @property
    def questions(self) -> list[SftRow]:
        """The rows that are multiple-choice questions."""
        return encoding.select_question_rows(self.rows)


def read_training_inputs(config: TrainConfig) -> TrainingInputs:
    """Read, mix, check for leakage, hold out. ConfigError for an exam that forbids training."""
    rows, shares = read_mixed_rows(config)
    leaks = _check_leakage(config, rows)
    train, held = _hold_out_rows(config, [as_trained_row(row, config) for row in rows])
    asked: list[SftRow] = []
    origin = ""
    if any(encoding.as_question_row(row) is None for row in held):
        asked, origin = _read_letter_questions(config)
    return TrainingInputs(rows=train, held_out=held, leaks=leaks, shares=shares, asked=asked, asked_of=origin)


def read_mixed_rows(config: TrainConfig) -> tuple[list[TrainingRow], list[MixtureShare]]:
    """The rows of --data, and what each source contributed, which is shown. ConfigError for an exam that
    forbids training."""
    sources = [parse_mixture_source(text) for text in config.data]
    for source in sources:
        hub = parse_hub_source(source.source)
        exam = find_exam_by_hub_id(hub.hub_id) if hub is not None else None
        if exam is not None:
            exam.refuse_training(f"--data {source.source}")
    rows, shares = read_mixture(
        sources,
        config.seed,
        parse_columns(config.columns),
        answer_coding=config.answer_coding,
        bad_rows=config.bad_rows,
    )
    if not rows:
        raise TrainError(f"--data {', '.join(config.data)}: the weights leave no row; give larger ones")
    if len(sources) > 1 or shares[0].forms.keys() != {"ours"} or shares[0].unread:
        for line in mixture_lines(shares):
            log_note(line)
    return rows, shares


def as_trained_row(row: TrainingRow, config: TrainConfig) -> Row:
    """A question's row, answered by its explanation with ``--rationale given``; a conversation, of which only
    the last turn is learned with ``--turns last``."""
    if row.item is None:
        return replace(row, turns=learn_last_turn_only(row.turns)) if config.turns == "last" else row
    if config.rationale == "none" or row.form == "ours":
        return row.item
    if row.explanation is None:
        raise TrainError(
            f"{row.where}: --rationale given needs an explanation in every question's row; this row has none"
        )
    return replace(row.item, response=f"{row.explanation.strip()}\n정답: {row.item.question.answer}")


def _hold_out_rows(config: TrainConfig, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    if config.held_out_data:
        source = str(config.held_out_data)
        held_rows = read_training_rows(
            source,
            parse_columns(config.columns),
            answer_coding=config.answer_coding,
            bad_rows=BadRows(source=source, policy=config.bad_rows),
        )
        held = [as_trained_row(row, config) for row in held_rows]
        train_identities = {_row_identity(row) for row in rows}
        shared = [row for row in held if _row_identity(row) in train_identities]
        if shared:
            raise TrainError(
                f"--held-out-data {config.held_out_data}: {len(shared)} rows are in --data too, such as"
                f" {_describe_row(shared[0])}; take them out"
            )
        return rows, held
    train: list[Row]
    questions = [row for row in rows if isinstance(row, SftRow)]
    if len(questions) == len(rows):
        train_questions, held_questions = split_held_out(questions, config.held_out, config.seed)
        train, held = [*train_questions], [*held_questions]
    else:
        train, held = _split_by_identity(rows, config.held_out, config.seed)
    if config.held_out and not held:
        distinct = len({_row_identity(row) for row in rows})
        copies = f", {distinct} of them distinct," if distinct < len(rows) else ""
        raise TrainError(
            f"--data {', '.join(config.data)}: {len(rows)} rows{copies} are too few to hold any out; give"
            " more rows, or --held-out 0 --keep last"
        )
    return train, held


def _describe_row(row: Row) -> str:
    return row.question.question_id if isinstance(row, SftRow) else row.where


def _row_identity(row: Row) -> str | bytes:
    return row.question.question_id if isinstance(row, SftRow) else row.digest


def _split_by_identity(rows: Sequence[Row], wanted: int, seed: int) -> tuple[list[Row], list[Row]]:
    """(train, held out): at most a fifth is held out; rows with the same content stay on one side."""
    groups: dict[str | bytes, list[Row]] = {}
    for row in rows:
        groups.setdefault(_row_identity(row), []).append(row)
    keys = list(groups)
    random.Random(f"held-out:{seed}").shuffle(keys)
    held = set(keys[: min(wanted, len(groups) // 5)])
    train = [row for key, group in groups.items() if key not in held for row in group]
    return train, [group[0] for key, group in groups.items() if key in held]


def _read_letter_questions(config: TrainConfig) -> tuple[list[SftRow], str]:
    """A seeded slice of the dataset's train split, or of the packaged sample if the dataset is not available;
    spread evenly over subjects.
    """
    for source in dict.fromkeys((config.dataset, "sample")):
        revision = config.dataset_revision if source == config.dataset else None
        try:
            frame = datasets.read_frame(source, "train", revision=revision).log_and_unwrap()
        except DataError:
            continue
        by_subject: dict[str, list[Any]] = {}
        for question in datasets.shuffle_with_seed(datasets.kmmlu_questions_from_frame(frame), config.seed):
            by_subject.setdefault(question.subject, []).append(question)
        rounds = zip_longest(*by_subject.values())
        questions = [question for group in rounds for question in group if question is not None]
        chosen = questions[: config.forgetting]
        log_note(f"forgetting: the letters of {len(chosen)} questions of {source} train are measured as well")
        return [SftRow(question=question, strategy="forgetting") for question in chosen], f"{source} train"
    raise TrainError("--forgetting: no train questions are available; give --dataset")


def _check_leakage(config: TrainConfig, rows: list[TrainingRow]) -> dict[str, Any]:
    """The leakage guard's findings; TrainError if it flags rows and --allow-leakage is not given."""
    guarded = load_guarded_exams(config.dataset, config.guard, config.dataset_revision)
    unique = {(row.source, row.number): row for row in rows}
    pairs = find_training_overlap(unique.values(), guarded.frame)
    flagged = sorted(set(pairs["train_id"]))
    against = ", ".join(guarded.exams)
    kinds = overlap.count_pairs_by_kind(pairs)
    if flagged and not config.allow_leakage:
        first = pairs.sort("train_id").row(0, named=True)
        counts = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        raise TrainError(
            f"--data {', '.join(config.data)}: {len(flagged)} rows overlap {against} ({counts}; first:"
            f" {first['train_id']} ~ {first['test_id']}): evaluation would measure memorisation. Take them"
            " out, draw rows with python -m kmmlu_fast.sample, or give --allow-leakage, which the adapter's"
            " card records"
        )
    if flagged:
        log_note(f"warning: {len(flagged)} rows overlap {against}; continuing (--allow-leakage)")
    return {"against": against, "rows_flagged": len(flagged), "allowed": bool(flagged), "kinds": kinds}


def data_digest(config: TrainConfig) -> str:
    """The data's digest, which ``--resume`` compares: the file's own, or one over all sources, their weights
    and the column names.
    """
    sources = [parse_mixture_source(text) for text in config.data]
    parts = [(source_digest(source.source), source.weight) for source in sources]
    if len(parts) == 1 and parts[0][1] == 1 and not config.columns:
        return parts[0][0]
    return compute_fingerprint({"parts": parts, "columns": config.columns}, 64)


def source_digest(source: str) -> str:
    """The digest of a file, or of a folder's or pattern's files; a hub source's own text."""
    path = expand_path(source, "--data")
    if path.is_file():
        return hash_file(path)
    if parse_hub_source(source) is not None:
        return f"hub:{source}"
    return compute_fingerprint({"files": [hash_file(file) for file in source_files(source)]}, 64)
