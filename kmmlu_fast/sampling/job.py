"""The work of ``python -m kmmlu_fast.sample``: source, pool, plan, draw, rationales, files.

In: flags. Out: Alpaca JSONL and, next to it, the plan (parquet), the dropped rows (parquet) and a data card
(markdown). Wires the package together; needs no model unless ``--rationale self``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.contamination import overlap
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import claim_outputs, parquet_bytes, write_files_together
from kmmlu_fast.core.letters import is_position_bound, reorder_question
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS, Question
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.data.exam_source import ExamSource, find_exam_sources
from kmmlu_fast.runs.loading import run_input_files
from kmmlu_fast.sampling import draw as sampling
from kmmlu_fast.sampling.card import data_card
from kmmlu_fast.sampling.config import SampleFlags, source_arguments
from kmmlu_fast.sampling.plan import find_weak_subjects, make_errors_plan, make_sampling_plan
from kmmlu_fast.sampling.pool import QuestionPool, WeaknessSource, build_pool, read_weakness_source
from kmmlu_fast.sampling.weakness import SubjectPrior, read_subject_prior, subject_posterior


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Training rows written to ``path`` (Alpaca JSONL), with plan, dropped rows and data card next to it."""

    path: Path
    rows: list[sft.SftRow]
    plan: pl.DataFrame  # one row per subject: errors, weight, quota, supply, drawn
    dropped: pl.DataFrame  # rows that the leakage guard left out, and why
    facts: dict[str, Any]  # of the data card


def draw_training_rows(config: SampleFlags, excluded: frozenset[str] = frozenset()) -> DrawnRows:
    """Draw and write the files. ConfigError if ``out`` exists; DataError or RunError for unreadable input.

    ``excluded``: ids of train questions that are not drawn, because something else is measured on them.
    """
    if config.out.name in ("", ".."):
        raise ConfigError(f"--out {config.out}: names no file; give one such as data/sft.jsonl")
    (rows_source,) = find_exam_sources([config.exam], config.dataset, config.dataset_revision)
    exam = rows_source.exam
    exam.refuse_training(f"--exam {config.exam}")
    if "train" not in exam.splits:
        splits = ", ".join(f"{split} = its {source_split}" for split, source_split in exam.splits.items())
        raise ConfigError(
            f"--exam {config.exam}: {exam.label} has no train split to draw from, only {splits}; declare one"
            " (splits: {train: ...}), or give your own rows to python -m kmmlu_fast.train --data"
        )
    if exam.training == "ask":
        log_note(f"note: {exam.label}'s licence is {exam.licence}: check whether it allows training")
    suffixes = (".plan.parquet", ".dropped.parquet", ".md")
    outputs = [config.out, *(config.out.with_suffix(suffix) for suffix in suffixes)]
    inputs = [*run_input_files(source_arguments(config)), *rows_source.input_files()]
    claim_outputs(outputs, inputs, overwrite=config.overwrite, flag="--out")
    source = read_weakness_source(source_arguments(config), config.strategy, exam)
    pool = build_pool(config, rows_source, source, excluded)
    plan, chosen = choose_training_questions(config, rows_source, source, pool)
    orders = sampling.option_orders(chosen, config.seed, config.permute_options)
    rows = [
        sft.SftRow(
            question=reorder_question(question, order),
            strategy=config.strategy,
            option_order=order,
            repeat=repeat,
            exam=exam.name,
        )
        for (question, repeat), order in zip(chosen, orders, strict=True)
    ]
    rationales: dict[str, Any] = {}
    if config.rationale == "self":
        from kmmlu_fast.sampling.rationale import add_rationales

        rows, rationales = add_rationales(rows, config)
    facts = data_card_facts(config, rows_source, source, pool, plan, rows, rationales)
    card = data_card(facts, plan).encode("utf-8", "backslashreplace")
    contents = [sft.encode_sft_rows(rows), parquet_bytes(plan), parquet_bytes(pool.dropped), card]
    write_files_together(dict(zip(outputs, contents, strict=True)))
    return DrawnRows(config.out, rows, plan, pool.dropped, facts)


def choose_training_questions(
    config: SampleFlags, rows_source: ExamSource, source: WeaknessSource, pool: QuestionPool
) -> tuple[pl.DataFrame, list[sampling.Chosen]]:
    """The plan, and the questions drawn by it."""
    supply = _count_by_subject(pool.questions, pool.groups)
    run = source.run
    scores = run.scores if run is not None else None
    if config.strategy == "errors" and run is not None:
        wrong = dict(run.frame.filter(~pl.col("correct")).select("question_id", "margin").iter_rows())
        chosen = sampling.draw_wrong_questions(
            pool.questions, wrong, config.size, config.errors_order, config.seed
        )
        left = [question for question in pool.questions if question.question_id in wrong]
        supply = _count_by_subject(left, pool.groups)
        drawn = _count_by_subject([question for question, _ in chosen], pool.groups)
        return make_errors_plan(run.scores, supply, drawn, pool.groups), chosen
    weak: list[str] = []
    shown_as_weak: list[str] | None = None
    posterior: pl.DataFrame | None = None
    if config.strategy == "strategic" and scores is not None:
        prior = configured_prior(config, rows_source)
        posterior = subject_posterior(scores, None if prior is None else prior.accuracy)
        shrunk = dict(posterior.select("subject", "shrunk").iter_rows())
        names: list[str] = []
        if config.weak_subjects:
            names = rows_source.resolve_subjects(config.weak_subjects, pool.groups)
        if names or config.weak_fraction:
            weak = find_weak_subjects(scores, config.weak_fraction, names, shrunk)
        else:  # all subjects take part; those below micro accuracy are shown as weak
            weak = sorted(shrunk)
            shown_as_weak = find_weak_subjects(scores, accuracy=shrunk)
    plan = make_sampling_plan(
        scores,
        supply,
        config.size,
        config.strategy,
        weak,
        config.weak_share,
        sampling.subject_capacity(pool.questions, config.max_repeats),
        posterior,
        pool.groups,
    )
    if shown_as_weak is not None:
        plan = plan.with_columns(pl.col("subject").is_in(shown_as_weak).alias("weak"))
    drawn = dict(plan.select("subject", "drawn").iter_rows())
    return plan, sampling.draw_questions(pool.questions, drawn, config.seed, config.max_repeats)


def _count_by_subject(questions: Iterable[Question], subjects: Iterable[str]) -> dict[str, int]:
    """The number of questions of each of ``subjects``, 0 included."""
    counts = Counter(question.subject for question in questions)
    return {subject: counts[subject] for subject in subjects}


def configured_prior(config: SampleFlags, rows_source: ExamSource) -> SubjectPrior | None:
    """The prior that --weak-prior names, or None.

    The public one is KMMLU's; it is not used for other exams, nor for the packaged sample, whose questions
    are invented.
    """
    public = config.weak_prior == "public"
    if config.weak_prior == "none" or (public and not rows_source.has_public_results):
        return None
    return read_subject_prior(None if public else Path(config.weak_prior))


def weak_prior_note(config: SampleFlags, rows_source: ExamSource) -> str:
    """Describes the prior of the subject accuracies for the data card."""
    if config.strategy != "strategic":
        return "not used"
    prior = configured_prior(config, rows_source)
    if prior is None:
        return "none: each subject's accuracy is shrunk to the mean of all"
    note = f"accuracies by subject from {prior.source}, {prior.date}"
    if config.weak_prior != "public":
        return note
    return (
        f"{note}; public results of other models on KMMLU's test split: which subjects count as hard comes"
        " partly from test"
    )


def data_card_facts(
    config: SampleFlags,
    rows_source: ExamSource,
    source: WeaknessSource,
    pool: QuestionPool,
    plan: pl.DataFrame,
    rows: list[sft.SftRow],
    rationales: dict[str, Any],
) -> dict[str, Any]:
    """The facts that the data card and the terminal show with the plan."""
    answers = [row.question.answer for row in rows]
    most = max((len(row.question.options) for row in rows), default=len(LETTERS))
    kept_order = [row for row in rows if not config.permute_options or is_position_bound(row.question)]
    return {
        "exam": rows_source.exam.to_metadata(),
        "file": config.out.name,
        "rows": len(rows),
        "questions": len({row.question.question_id for row in rows}),
        "repeats": sum(row.repeat > 0 for row in rows),
        "strategy": config.strategy,
        "weak_share": config.weak_share,
        "weak_prior": weak_prior_note(config, rows_source),
        "seed": config.seed,
        "dataset": rows_source.place,
        "dataset_revision": config.dataset_revision,
        "source": source.run.source if source.run else None,
        "source_model": source.run.facts.get("model") if source.run else None,
        "source_split": source.split,
        "warnings": source.warnings,
        "pool": pool.size,
        "guarded": pool.against,
        "overlapping_kinds": overlap.count_pairs_by_kind(pool.overlapping),
        "overlapping": pool.overlapping["train_id"].n_unique(),
        "repeated": len(pool.repeated),
        "conflicting": len(pool.conflicting),
        "excluded": pool.excluded,
        "drawn_from": len(pool.questions),
        "permuted": config.permute_options,
        "kept_order": len(kept_order),
        "letters": {letter: answers.count(letter) for letter in OPTION_LETTERS[:most]},
        "rationale": config.rationale,
        "rationales": rationales,
        "shortfall": int(plan["shortfall"].sum()),
    }
