"""The work of ``python -m kmmlu_fast.sample``: source, pool, plan, draw, rationales, files.

In: flags. Out: Alpaca JSONL; beside it the plan (parquet), what the guard dropped (parquet) and a data card
(markdown). Wires the wing together; knows no model unless ``--rationale self``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.contamination import overlap
from kmmlu_fast.core import letters
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import claim_outputs, parquet_bytes, write_files_together
from kmmlu_fast.core.letters import is_position_bound
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.data import dataset as datasets
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_lookup import dataset_for_exam, find_exam
from kmmlu_fast.data.exam_lookup import resolve_exam_source as source_of_exam
from kmmlu_fast.data.exam_rows import choose_subjects
from kmmlu_fast.data.row_files import is_hub_id
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.runs.loading import run_input_files
from kmmlu_fast.sampling import draw as sampling
from kmmlu_fast.sampling.card import data_card
from kmmlu_fast.sampling.config import SampleFlags, source_arguments
from kmmlu_fast.sampling.plan import find_weak_subjects, make_errors_plan, make_sampling_plan
from kmmlu_fast.sampling.pool import QuestionPool, WeaknessSource, build_pool, read_weakness_source
from kmmlu_fast.sampling.weakness import SubjectPrior, read_subject_prior, subject_posterior


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Training rows that were drawn and written to ``path``, Alpaca JSONL; plan, dropped rows
    and data card stand beside it.
    """

    path: Path
    rows: list[sft.SftRow]
    plan: pl.DataFrame  # a row a subject: errors, weight, quota, supply, drawn
    dropped: pl.DataFrame  # what the guard left out, and why
    facts: dict[str, Any]  # what the data card says


def draw_training_rows(config: SampleFlags) -> DrawnRows:
    """Draw by ``config`` and write the files. ConfigError where ``out`` exists; DataError,
    RunError for what cannot be read.
    """
    if config.out.name in ("", ".."):
        raise ConfigError(f"--out {config.out}: names no file; give such as data/sft.jsonl")
    exam = find_exam(config.exam)
    exam.refuse_training(f"--exam {config.exam}")
    if "train" not in exam.splits:
        measured = ", ".join(f"{ours} = its {theirs}" for ours, theirs in exam.splits.items())
        raise ConfigError(
            f"--exam {config.exam}: {exam.label} has no train split to draw from, only what it is measured on"
            f" ({measured}); declare one (splits: {{train: ...}}), or give rows of your own to python -m"
            " kmmlu_fast.train --data"
        )
    if exam.training == "ask":
        log_note(
            f"note: {exam.label}'s licence is {exam.licence}: whether it allows training is yours to check"
        )
    beside = [config.out.with_suffix(suffix) for suffix in (".plan.parquet", ".dropped.parquet", ".md")]
    source_files = run_input_files(source_arguments(config))
    claim_outputs(
        [config.out, *beside],
        [*source_files, *_exam_input_files(config, exam)],
        overwrite=config.overwrite,
        flag="--out",
    )
    source = read_weakness_source(source_arguments(config), config.strategy, exam)
    pool = build_pool(config, exam, source)
    plan, chosen = choose_training_questions(config, exam, source, pool)
    orders = sampling.option_orders(chosen, config.seed, config.permute_options)
    rows = [
        sft.SftRow(
            question=letters.reorder_question(q, order),
            strategy=config.strategy,
            option_order=order,
            repeat=repeat,
            exam=exam.name,
        )
        for (q, repeat), order in zip(chosen, orders, strict=True)
    ]
    rationales: dict[str, Any] = {}
    if config.rationale == "self":
        from kmmlu_fast.sampling.rationale import add_rationales

        rows, rationales = add_rationales(rows, config)
    facts = data_card_facts(config, exam, source, pool, plan, rows, rationales)
    card = data_card(facts, plan).encode("utf-8", "backslashreplace")
    parts = [sft.encode_sft_rows(rows), parquet_bytes(plan), parquet_bytes(pool.dropped), card]
    write_files_together(dict(zip([config.out, *beside], parts, strict=True)))
    return DrawnRows(config.out, rows, plan, pool.dropped, facts)


def _exam_input_files(config: SampleFlags, exam: Exam) -> list[Path]:
    """The files that rows are read from: none of them may be written over."""
    if exam.is_kmmlu:
        return datasets.dataset_input_files(config.dataset)
    place = source_of_exam(exam, dataset_for_exam(config.dataset, exam, [exam]))
    if (file := expand_path(place, "--dataset")).is_file():
        return [file]
    return [] if is_hub_id(place) else datasets.dataset_input_files(place)


def choose_training_questions(
    config: SampleFlags, exam: Exam, source: WeaknessSource, pool: QuestionPool
) -> tuple[pl.DataFrame, list[sampling.Chosen]]:
    """The plan, and the questions drawn by it."""
    supply = dict.fromkeys(pool.groups, 0)
    for question in pool.questions:
        supply[question.subject] += 1
    scores = source.run.scores if source.run is not None else None
    if config.strategy == "errors" and source.run is not None:
        wrong = dict(source.run.frame.filter(~pl.col("correct")).select("question_id", "margin").iter_rows())
        chosen = sampling.draw_wrong_questions(
            pool.questions, wrong, config.size, config.errors_order, config.seed
        )
        supply = {
            name: sum(q.question_id in wrong for q in pool.questions if q.subject == name) for name in supply
        }
        drawn = {name: sum(q.subject == name for q, _ in chosen) for name in supply}
        return make_errors_plan(source.run.scores, supply, drawn, pool.groups), chosen
    weak: list[str] = []
    cut, shrunk = False, {}
    found: pl.DataFrame | None = None
    if config.strategy == "strategic" and scores is not None:
        named = (
            _resolve_subject_names(exam, config.weak_subjects, pool.groups) if config.weak_subjects else []
        )
        prior = configured_prior(config, exam)
        found = subject_posterior(scores, None if prior is None else prior.accuracy)
        shrunk = dict(found.select("subject", "shrunk").iter_rows())
        cut = bool(named or config.weak_fraction)
        weak = find_weak_subjects(scores, config.weak_fraction, named, shrunk) if cut else sorted(shrunk)
    room = sampling.subject_capacity(pool.questions, config.max_repeats)
    settings = (config.size, config.strategy, weak, config.weak_share, room, found)
    plan = make_sampling_plan(scores, supply, *settings, groups=pool.groups)
    if (
        found is not None and not cut and scores is not None
    ):  # no cut: all take part; those below micro accuracy are called weak
        plan = plan.with_columns(
            pl.col("subject").is_in(find_weak_subjects(scores, accuracy=shrunk)).alias("weak")
        )
    drawn = dict(plan.select("subject", "drawn").iter_rows())
    return plan, sampling.draw_questions(pool.questions, drawn, config.seed, config.max_repeats)


def _resolve_subject_names(exam: Exam, names: list[str], groups: dict[str, str]) -> list[str]:
    """The subjects that the names of subjects or groups stand for."""
    if exam.is_kmmlu:
        return [subject.name for subject in find_subjects(names)]
    known = pl.DataFrame({"subject": list(groups), "supercategory": list(groups.values())})
    return choose_subjects(exam, known, names)["subject"].to_list()


def configured_prior(config: SampleFlags, exam: Exam) -> SubjectPrior | None:
    """What --weak-prior names; None for none. The public one is KMMLU's; the packaged sample's
    questions are invented: no other model's results fit them.
    """
    public = config.weak_prior == "public"
    if config.weak_prior == "none" or (public and (config.dataset == "sample" or not exam.is_kmmlu)):
        return None
    return read_subject_prior(None if config.weak_prior == "public" else Path(config.weak_prior))


def weak_prior_note(config: SampleFlags, exam: Exam) -> str:
    """Where subject accuracies start from, for the card."""
    if config.strategy != "strategic":
        return "not used"
    prior = configured_prior(config, exam)
    if prior is None:
        return "none: each subject's accuracy is shrunk to the mean of all"
    test = (
        "; public results of other models on KMMLU's test split: which subjects count as hard comes partly"
        " from test"
    )
    return f"accuracies by subject from {prior.source}, {prior.date}" + (
        test if config.weak_prior == "public" else ""
    )


def data_card_facts(
    config: SampleFlags,
    exam: Exam,
    source: WeaknessSource,
    pool: QuestionPool,
    plan: pl.DataFrame,
    rows: list[sft.SftRow],
    rationales: dict[str, Any],
) -> dict[str, Any]:
    """What the data card and the terminal say beside the plan."""
    answers = [row.question.answer for row in rows]
    most = max((len(row.question.options) for row in rows), default=len(LETTERS))
    place = (
        config.dataset
        if exam.is_kmmlu
        else source_of_exam(exam, dataset_for_exam(config.dataset, exam, [exam]))
    )
    return {
        "exam": exam.to_metadata(),
        "file": config.out.name,
        "rows": len(rows),
        "questions": len({row.question.question_id for row in rows}),
        "repeats": sum(row.repeat > 0 for row in rows),
        "strategy": config.strategy,
        "weak_share": config.weak_share,
        "weak_prior": weak_prior_note(config, exam),
        "seed": config.seed,
        "dataset": place,
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
        "kept_order": (
            sum(is_position_bound(row.question) for row in rows) if config.permute_options else len(rows)
        ),
        "letters": {letter: answers.count(letter) for letter in OPTION_LETTERS[:most]},
        "rationale": config.rationale,
        "rationales": rationales,
        "shortfall": int(plan["shortfall"].sum()),
    }
