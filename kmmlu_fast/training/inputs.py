"""What is trained on, read and checked before anything heavy starts: rows of any form, the held-out slice,
the guard's findings.

In: a ``TrainConfig``. Out: ``TrainingInputs``. TrainError, DataError or ConfigError for what a user can mend.
Knows nothing of tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kmmlu_fast.contamination import overlap
from kmmlu_fast.contamination.check import find_training_overlap, load_guarded_exams
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import compute_fingerprint, file_digest
from kmmlu_fast.core.errors import DataError, TrainError
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.data import dataset as datasets
from kmmlu_fast.data.alpaca import SftRow
from kmmlu_fast.data.exam_lookup import find_exam_by_hub_id
from kmmlu_fast.data.mixture import (
    MixtureShare,
    MixtureSource,
    mixture_lines,
    parse_mixture_source,
    read_mixture,
)
from kmmlu_fast.data.training_rows import TrainingRow, parse_columns, read_training_rows
from kmmlu_fast.training import encoding
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.order import split_held_out

Row = SftRow | TrainingRow


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingInputs:
    """Rows to train on and to hold out; ``asked`` are questions for the letters where the held-out rows are
    none."""

    rows: list[Row]
    held_out: list[Row]
    leaks: dict[str, Any]  # what the guard said
    shares: list[MixtureShare] = field(default_factory=list)
    asked: list[SftRow] = field(default_factory=list)
    asked_of: str = ""  # where these questions are from

    @property
    def questions(self) -> list[SftRow]:
        """The rows that are multiple-choice questions."""
        return [found for row in self.rows if (found := encoding.as_question_row(row)) is not None]


def read_training_inputs(config: TrainConfig) -> TrainingInputs:
    """Read, mix, check for leakage, hold out. ConfigError for an exam that forbids training."""
    parts = [parse_mixture_source(text) for text in config.data]
    for part in parts:
        if (exam := find_exam_by_hub_id(part.source)) is not None:
            exam.refuse_training(f"--data {part.source}")
    rows, shares = read_mixture(parts, config.seed, parse_columns(config.columns))
    if not rows:
        raise TrainError(f"--data {', '.join(config.data)}: the weights leave no row; give larger ones")
    if len(parts) > 1 or shares[0].forms.keys() != {"ours"}:
        for line in mixture_lines(shares):
            log_note(line)
    leaks = _check_leakage(config, rows)
    train, held = _hold_out_rows(config, [_with_rationale(row, config) for row in rows])
    asked: list[SftRow] = []
    where = ""
    if held and any(encoding.as_question_row(row) is None for row in held):
        asked, where = _read_letter_questions(config)
    return TrainingInputs(rows=train, held_out=held, leaks=leaks, shares=shares, asked=asked, asked_of=where)


def _with_rationale(row: TrainingRow, config: TrainConfig) -> Row:
    """A question's row as questions have always been trained; its explanation as the answer with --rationale
    given."""
    if row.item is None:
        return row
    if config.rationale == "none" or row.form == "ours":
        return row.item
    if row.explanation is None:
        raise TrainError(
            f"{row.where}: --rationale given needs an explanation in every question's row; this one has none"
        )
    return replace(row.item, response=f"{row.explanation.strip()}\n정답: {row.item.question.answer}")


def _hold_out_rows(config: TrainConfig, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    if config.held_out_data:
        columns = parse_columns(config.columns)
        held = [
            _with_rationale(row, config) for row in read_training_rows(str(config.held_out_data), columns)
        ]
        known = {_row_identity(row) for row in rows}
        shared = [_row_identity(row) for row in held if _row_identity(row) in known]
        if shared:
            raise TrainError(
                f"--held-out-data {config.held_out_data}: {len(shared)} rows are in --data too, such as "
                f"{shared[0] if isinstance(shared[0], str) else 'row ' + str(held[0])}; take them out"
            )
        return rows, held
    questions = [row for row in rows if isinstance(row, SftRow)]
    if len(questions) == len(rows):
        train, out = split_held_out(questions, config.held_out, config.seed)
        found: tuple[list[Row], list[Row]] = (list(train), list(out))
    else:
        found = _split_by_identity(rows, config.held_out, config.seed)
    if config.held_out and not found[1]:
        raise TrainError(
            f"--data {', '.join(config.data)}: {len(rows)} rows are too few to hold any out; give more rows,"
            " or --held-out 0 --keep last"
        )
    return found


def _row_identity(row: Row) -> str | bytes:
    return row.question.question_id if isinstance(row, SftRow) else row.digest


def _split_by_identity(rows: Sequence[Row], wanted: int, seed: int) -> tuple[list[Row], list[Row]]:
    """(train, held out): at most a fifth is held out; rows that say the same stay on one side."""
    groups: dict[str | bytes, list[Row]] = {}
    for row in rows:
        groups.setdefault(_row_identity(row), []).append(row)
    keys = list(groups)
    random.Random(f"held-out:{seed}").shuffle(keys)
    held = set(keys[: min(wanted, len(groups) // 5)])
    train = [row for key, group in groups.items() if key not in held for row in group]
    return train, [group[0] for key, group in groups.items() if key in held]


def _read_letter_questions(config: TrainConfig) -> tuple[list[SftRow], str]:
    """A fixed, seeded slice of the dataset's train split, evenly over subjects; of the packaged sample where
    that is not at hand."""
    for source in dict.fromkeys((config.dataset, "sample")):
        try:
            found = datasets.read_frame(
                source, "train", revision=config.dataset_revision if source == config.dataset else None
            ).log_and_unwrap()
        except DataError:
            continue
        by_subject: dict[str, list[Any]] = {}
        for question in datasets.shuffle_with_seed(datasets.kmmlu_questions_from_frame(found), config.seed):
            by_subject.setdefault(question.subject, []).append(question)
        turns = [
            group[turn]
            for turn in range(config.forgetting)
            for group in by_subject.values()
            if turn < len(group)
        ]
        chosen = turns[: config.forgetting]
        log_note(f"forgetting: the letters of {len(chosen)} questions of {source} train are measured as well")
        return [SftRow(question=question, strategy="forgetting") for question in chosen], f"{source} train"
    raise TrainError("--forgetting: no train questions are at hand; give --dataset")


def _check_leakage(config: TrainConfig, rows: list[TrainingRow]) -> dict[str, Any]:
    """What the leakage guard says of the data; TrainError if it flags rows and nobody allowed it."""
    guarded = load_guarded_exams(config.dataset, config.guard, config.dataset_revision)
    unique = {(row.source, row.number): row for row in rows}
    pairs = find_training_overlap(unique.values(), guarded.frame)
    flagged = sorted(set(pairs["train_id"]))
    against = ", ".join(guarded.exams)
    kinds = overlap.count_pairs_by_kind(pairs)
    if flagged and not config.allow_leakage:
        first = pairs.sort("train_id").row(0, named=True)
        raise TrainError(
            f"--data {', '.join(config.data)}: {len(flagged)} rows overlap {against} "
            f"({', '.join(f'{kind} {count}' for kind, count in kinds.items())}; first: {first['train_id']} ~ "
            f"{first['test_id']}): "
            "evaluation would measure memory. Take them out, draw rows by python -m kmmlu_fast.sample, or "
            "give --allow-leakage, "
            "which the adapter's card records"
        )
    if flagged:
        log_note(f"warning: {len(flagged)} rows overlap {against}; going on (--allow-leakage)")
    return {"against": against, "rows_flagged": len(flagged), "allowed": bool(flagged), "kinds": kinds}


def data_digest(config: TrainConfig) -> str:
    """What ``--resume`` must find the same: the file's digest, or one of all parts with their weights and
    column names."""
    parts = [parse_mixture_source(text) for text in config.data]
    digests = [_part_digest(part) for part in parts]
    if len(parts) == 1 and parts[0].weight == 1 and not config.columns:
        return digests[0]
    return compute_fingerprint(
        {
            "parts": [[digest, part.weight] for digest, part in zip(digests, parts, strict=True)],
            "columns": config.columns,
        },
        64,
    )


def _part_digest(part: MixtureSource) -> str:
    path = expand_path(part.source, "--data")
    return file_digest(path) if path.is_file() else f"hub:{part.source}"
