"""``python -m kmmlu_fast.sample``: weak subjects of a run -> training questions that no test question is among.

In: a run directory or score file (``--from``), a dataset. Out: Alpaca JSONL; beside it the plan (parquet), what the guard dropped
(parquet) and a data card (markdown). Wires importers, leakage, sampling, sft and rationale; knows no model unless ``--rationale self``.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field, PositiveInt, create_model, model_validator

from kmmlu_fast import dataset as datasets
from kmmlu_fast import leakage, sampling, sft
from kmmlu_fast.config import DEFAULT_DATASET, EngineConfig, parse
from kmmlu_fast.data_card import plan_table, write_card
from kmmlu_fast.errors import ConfigError, RunError, run_main
from kmmlu_fast.importers import LoadedRun, load
from kmmlu_fast.schema import Question
from kmmlu_fast.subjects import Subject, find_subjects

TRAIN_RUN = "`python -m kmmlu_fast.eval --split train --limit 50`"


class SampleFlags(EngineConfig):
    """python -m kmmlu_fast.sample: draw fine-tuning questions from the train split, weak subjects first, test questions never."""

    size: PositiveInt = Field(500, description="training rows to write, exactly")
    out: Path = Field(Path("data/sft.jsonl"), description="JSONL file to write; plan, drop list and data card stand beside it")
    overwrite: bool = Field(False, description="replace --out where it exists")
    dataset: str = Field(DEFAULT_DATASET, description="hub id, directory of the hub's layout, or 'sample' (packaged, CC0)")
    dataset_revision: str | None = Field(None, description="revision of the dataset on the hub")
    subjects: list[str] = Field([], description="draw only from these config names or supercategories; default: all 45")
    strategy: Literal["strategic", "uniform", "proportional", "errors"] = Field(
        "strategic", description="weak subjects by errors + evenly, evenly, by the pool's sizes, or only what the run got wrong"
    )
    weak_share: float = Field(0.7, gt=0, le=1, description="strategic: share that goes to weak subjects; the rest goes evenly to all")
    weak_fraction: float | None = Field(
        None, gt=0, le=1, description="this fraction of subjects is weak; default: those below micro accuracy"
    )
    weak_subjects: list[str] = Field([], description="these subjects are weak, by name or supercategory")
    errors_order: Literal["hardest", "random"] = Field("hardest", description="errors: largest margin for a wrong letter first, or any")
    permute_options: bool = Field(True, description="reorder options so that the answer letters are balanced")
    max_repeats: int = Field(
        1, ge=1, le=sampling.MAX_REPEATS, description="uses of a question in small subjects, each in another option order"
    )
    rationale: Literal["none", "self"] = Field(
        "none", description="train on the letter alone, or on the model's own reasoning that reached it"
    )
    rationale_samples: PositiveInt = Field(4, description="rationale self: attempts a question")
    rationale_tokens: PositiveInt = Field(512, description="rationale self: tokens an attempt at most")
    temperature: float = Field(0.7, gt=0, description="rationale self: sampling temperature")
    rationale_missing: Literal["answer", "drop"] = Field(
        "answer", description="rationale self: rows without one keep the letter alone, or go"
    )

    @model_validator(mode="after")
    def _flags_fit(self) -> SampleFlags:
        if self.weak_fraction is not None and self.weak_subjects:
            raise ValueError("--weak-fraction and --weak-subjects both say what is weak: give one")
        if self.max_repeats > 1 and not self.permute_options:
            raise ValueError("--max-repeats above 1 needs --permute-options: a question is repeated only under another option order")
        if self.max_repeats > 1 and self.strategy == "errors":
            raise ValueError("--max-repeats goes with the strategies that draw by subject, not with errors")
        return self


# The flag is --from, which is no name for a Python attribute: read it by source_of.
SampleConfig = create_model(
    "SampleConfig",
    __base__=SampleFlags,
    __doc__=SampleFlags.__doc__,
    **{"from": (str | None, Field(None, description="run directory, score file, or lm-eval results that say where the model is weak"))},
)  # type: ignore[call-overload]


def source_of(config: SampleFlags) -> str | None:
    """--from."""
    value: str | None = getattr(config, "from")
    return value


@dataclass(frozen=True, slots=True)
class Source:
    """Where weakness was read from. ``split`` is None for none at all; score files are taken to be of test."""

    run: LoadedRun | None = None
    split: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pool:
    """Training questions that may be drawn, and what was left out: pairs with test or dev, repeated rows, rows of the run."""

    questions: list[Question]
    size: int
    overlapping: pl.DataFrame
    repeated: list[str]
    conflicting: list[str]
    excluded: int

    @property
    def dropped(self) -> pl.DataFrame:
        """Every row that the guard left out and why: ``kind``, and the test or dev question it overlaps (null for repeats)."""
        rows = [(i, None, kind, None) for kind, ids in (("repeated", self.repeated), ("conflicting", self.conflicting)) for i in ids]
        return pl.concat([self.overlapping, pl.DataFrame(rows, schema=leakage.PAIR_SCHEMA, orient="row")])


def main(argv: list[str] | None = None) -> int:
    return run_main(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    config = parse(SampleConfig, argv, prog="python -m kmmlu_fast.sample")
    if config.out.exists() and not config.overwrite:
        raise ConfigError(f"--out {config.out}: exists; give another name, or --overwrite to replace it")
    subjects = find_subjects(config.subjects)
    source = read_source(source_of(config), config.strategy)
    pool = build_pool(config, subjects, source)
    plan, chosen = choose(config, subjects, source, pool)
    orders = sampling.option_orders(chosen, config.seed, config.permute_options)
    rows = [sft.SftRow(sft.reorder(q, order), config.strategy, order, repeat) for (q, repeat), order in zip(chosen, orders, strict=True)]
    rationales: dict[str, Any] = {}
    if config.rationale == "self":
        from kmmlu_fast.rationale import add_rationales

        rows, rationales = add_rationales(rows, config)
    sft.write_rows(config.out, rows)
    plan.write_parquet(config.out.with_suffix(".plan.parquet"))
    pool.dropped.write_parquet(config.out.with_suffix(".dropped.parquet"))
    facts = describe(config, source, pool, plan, rows, rationales)
    write_card(config.out.with_suffix(".md"), facts, plan)
    plan_table(plan, facts)
    print(f"{len(rows)} rows written to {config.out}; plan, dropped rows and data card beside it")
    return 0


def read_source(argument: str | None, strategy: str) -> Source:
    """The run or scores that ``--from`` names, with the warnings that the plan and the card will carry."""
    if argument is None:
        if strategy in ("strategic", "errors"):
            raise ConfigError(
                f"--strategy {strategy} needs --from: a run directory ({TRAIN_RUN}) or a score file; or use --strategy uniform"
            )
        return Source()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runs = load(argument)
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs[:5])
        raise ConfigError(f"--from {argument}: holds {len(runs)} runs ({names}, ...); name one, such as {argument}:{runs[0].name}")
    (run,) = runs
    if strategy == "errors" and run.predictions is None:
        raise RunError(f"--from {argument}: --strategy errors needs a run directory with predictions; this holds scores by subject only")
    split = str(run.predictions["split"][0]) if run.predictions is not None else "test"
    if strategy == "errors" and split != "train":
        raise ConfigError(
            f"--from {argument}: --strategy errors draws the run's own questions, which must be of train, not {split}: {TRAIN_RUN}"
        )
    notes = [str(item.message) for item in caught]
    if split != "train":
        kind = "scores, taken to be of test" if run.predictions is None else f"a run over {split}"
        notes.append(
            f"weakness comes from {kind}: the sample is tuned to that split, and a later gain on it is optimistic; "
            f"weights that are not come from {TRAIN_RUN}"
        )
    if strategy == "errors":
        notes.append("the run's own train questions are drawn from: they cannot serve as a held-out slice again")
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    return Source(run, split, notes)


def build_pool(config: SampleFlags, subjects: list[Subject], source: Source) -> Pool:
    """The train split without rows that overlap test or dev, repeated rows, and the rows that the run was over."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pairs = leakage.train_overlap(config.dataset, config.dataset_revision)
        frame = datasets.load_frame(config.dataset, "train", subjects, config.dataset_revision)
    notes = [str(item.message) for item in caught]
    answered = source.run.config.get("config", {}).get("dataset") if source.run is not None else None
    if source.split == "train" and answered not in (None, config.dataset):
        notes.append(
            f"the run was over --dataset {answered}, rows come from {config.dataset}: its questions cannot be excluded unless both are one"
        )
    for text in dict.fromkeys(notes):
        source.warnings.append(text)
        print(f"warning: {text}", file=sys.stderr)
    size = len(frame)
    pairs = pairs.join(frame, left_on="train_id", right_on="question_id", how="semi")
    clean = frame.join(pairs, left_on="question_id", right_on="train_id", how="anti", maintain_order="left")
    repeated, conflicting = leakage.repeated_rows(clean)
    clean = clean.filter(~pl.col("question_id").is_in([*repeated, *conflicting]))
    before = len(clean)
    if source.run is not None and source.split == "train" and config.strategy != "errors" and source.run.predictions is not None:
        clean = clean.join(source.run.predictions, on="question_id", how="anti", maintain_order="left")
    return Pool(datasets.to_questions(clean), size, pairs, repeated, conflicting, before - len(clean))


def choose(config: SampleFlags, subjects: Sequence[Subject], source: Source, pool: Pool) -> tuple[pl.DataFrame, list[sampling.Chosen]]:
    """The plan, and the questions drawn by it."""
    supply = {subject.name: 0 for subject in subjects}
    for question in pool.questions:
        supply[question.subject] += 1
    scores = source.run.scores if source.run is not None else None
    if config.strategy == "errors" and source.run is not None:
        wrong = dict(source.run.frame.filter(~pl.col("correct")).select("question_id", "margin").iter_rows())
        chosen = sampling.draw_errors(pool.questions, wrong, config.size, config.errors_order, config.seed)
        supply = {name: sum(q.question_id in wrong for q in pool.questions if q.subject == name) for name in supply}
        drawn = {name: sum(q.subject == name for q, _ in chosen) for name in supply}
        return sampling.errors_plan(source.run.scores, supply, drawn), chosen
    weak: list[str] = []
    if config.strategy == "strategic" and scores is not None:
        named = [subject.name for subject in find_subjects(config.weak_subjects)] if config.weak_subjects else []
        weak = sampling.weak_subjects(scores, config.weak_fraction, named)
    room = sampling.capacity(pool.questions, config.max_repeats)
    plan = sampling.make_plan(scores, supply, config.size, config.strategy, weak, config.weak_share, room)
    drawn = dict(plan.select("subject", "drawn").iter_rows())
    return plan, sampling.draw(pool.questions, drawn, config.seed, config.max_repeats)


def describe(
    config: SampleFlags, source: Source, pool: Pool, plan: pl.DataFrame, rows: list[sft.SftRow], rationales: dict[str, Any]
) -> dict[str, Any]:
    """What the data card and the terminal say beside the plan."""
    letters = [row.question.answer for row in rows]
    return {
        "file": config.out.name,
        "rows": len(rows),
        "questions": len({row.question.question_id for row in rows}),
        "repeats": sum(row.repeat > 0 for row in rows),
        "strategy": config.strategy,
        "weak_share": config.weak_share,
        "seed": config.seed,
        "dataset": config.dataset,
        "dataset_revision": config.dataset_revision,
        "source": source.run.source if source.run else None,
        "source_model": source.run.facts.get("model") if source.run else None,
        "source_split": source.split,
        "warnings": source.warnings,
        "pool": pool.size,
        "overlapping_kinds": leakage.counts(pool.overlapping),
        "overlapping": pool.overlapping["train_id"].n_unique(),
        "repeated": len(pool.repeated),
        "conflicting": len(pool.conflicting),
        "excluded": pool.excluded,
        "drawn_from": len(pool.questions),
        "permuted": config.permute_options,
        "kept_order": sum(sampling.is_position_bound(row.question) for row in rows) if config.permute_options else len(rows),
        "letters": {letter: letters.count(letter) for letter in "ABCD"},
        "rationale": config.rationale,
        "rationales": rationales,
        "shortfall": int(plan["shortfall"].sum()),
    }


if __name__ == "__main__":
    sys.exit(main())
