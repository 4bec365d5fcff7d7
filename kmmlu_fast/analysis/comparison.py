"""Two runs, question by question: everything that compare and report say about the pair.

In: two ``Run``s. Out: a ``Comparison``, numbers only; RunError where the runs were not asked the same. Joins the
statistics (``paired``, ``decomposition``) to runs. Knows nothing of words, tables or files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from kmmlu_fast.analysis import letter_prior as decomposition
from kmmlu_fast.analysis import paired
from kmmlu_fast.analysis.letter_prior import Decomposition, RunLetters
from kmmlu_fast.analysis.paired import Difference, many_corrections
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.schema import LOGPROB_COLUMNS
from kmmlu_fast.runs.run import Run

MANY = 3  # runs from which the bootstrap takes fewer replicates


def compare_with_base(runs: list[Run], settings: Settings) -> tuple[list[Comparison], list[tuple[str, str]]]:
    """Every run against the first, and the runs that cannot be compared with it, each with the reason. Prompts may differ here."""
    if len(runs) >= MANY:
        settings = replace(settings, replicates=2_000)
    settings = replace(settings, different_prompts=True)
    pairs, refused = [], []
    with many_corrections():
        for other in runs[1:]:
            try:
                pairs.append(compare_pair(runs[0], other, settings))
            except RunError as error:
                refused.append((other.name, str(error)))
    return pairs, refused


@dataclass(frozen=True, slots=True)
class Settings:
    """How pairs are compared."""

    seed: int = 42
    replicates: int = paired.REPLICATES
    intersection: bool = False  # compare on the questions that both runs have, under the same key
    different_prompts: bool = False  # compare although the prompts differ
    overlap: frozenset[str] = frozenset()  # question ids that overlap training data: left out of the clean headline


@dataclass(frozen=True, slots=True)
class Comparison:
    """Second against first; differences are second minus first, 0-1."""

    first: str
    second: str
    micro: Difference
    macro: Difference
    supercategories: pl.DataFrame  # paired.by_supercategory
    subjects: pl.DataFrame  # paired.by_subject
    letters: Decomposition | None  # None where questions have other than four options: the split is for four letters
    debiased: Difference | None  # micro by option-rotation answers, where both runs have them for every question
    clean: Difference | None  # micro without the overlapping questions; None where no list was given
    overlapping: int  # questions on that list
    made_readable: int  # second is right where first was unparsed
    made_unreadable: int  # first was right where second is unparsed
    dropped: tuple[int, int, int]  # questions only in first, only in second, with two different keys
    prompt_differences: tuple[str, ...]  # "prompt_style lm-eval -> chat"

    @property
    def opposite(self) -> bool:
        """Whether micro and macro go opposite ways."""
        return self.micro.difference * self.macro.difference < 0

    def changed_subjects(self) -> pl.DataFrame:
        """Subjects whose change is significant after Holm's correction."""
        return self.subjects.filter(pl.col("p_holm") < paired.ALPHA)


def compare_pair(first: Run, second: Run, settings: Settings) -> Comparison:
    """Compare; RunError where questions, keys or prompts differ and the settings do not allow it."""
    prompts = prompt_differences(first, second)
    if prompts and not settings.different_prompts:
        raise RunError(
            f"{first.name} and {second.name} were asked differently ({'; '.join(prompts)}), so no difference would be the model's alone; "
            "evaluate both under one protocol, or give --different-prompts"
        )
    joined, dropped = _join(first, second, settings.intersection)
    if not prompts and not any(dropped) and (texts := _same_ids_other_texts(first, second)):
        if not settings.different_prompts:
            raise RunError(
                f"{first.name} and {second.name} have the same question ids and keys but other texts or exemplars ({texts}): "
                "evaluate both over one dataset, or give --different-prompts"
            )
        prompts = [texts]
    counts = paired.subject_counts(joined)
    draws = paired.replicates(counts, settings.seed, settings.replicates)
    micro = paired.micro_difference(counts, draws)
    one, other = joined["prediction"].is_null(), joined["prediction_second"].is_null()
    clean = joined.filter(~pl.col("question_id").is_in(settings.overlap)) if settings.overlap else None
    return Comparison(
        first=first.name,
        second=second.name,
        micro=micro,
        macro=paired.macro_difference(counts, draws),
        supercategories=paired.by_supercategory(counts, draws),
        subjects=paired.by_subject(counts),
        letters=_letters(joined) if (joined["num_options"] == 4).all() else None,
        debiased=_debiased(joined, settings),
        clean=_micro(clean, settings) if clean is not None and len(clean) else None,
        overlapping=0 if clean is None else len(joined) - len(clean),
        made_readable=int((one & joined["second"]).sum()),
        made_unreadable=int((joined["first"] & other).sum()),
        dropped=dropped,
        prompt_differences=tuple(prompts),
    )


def prompt_differences(first: Run, second: Run) -> list[str]:
    """Known facts of the protocol in which two runs differ, as "name first -> second"."""
    one, other = first.protocol, second.protocol
    return [f"{name} {one[name]} -> {other[name]}" for name in one if name in other and one[name] != other[name]]


def _same_ids_other_texts(first: Run, second: Run) -> str | None:
    one, other = first.facts.get("dataset_digest"), second.facts.get("dataset_digest")
    return f"dataset_digest {one} -> {other}" if one and other and one != other else None


def _join(first: Run, second: Run, intersection: bool) -> tuple[pl.DataFrame, tuple[int, int, int]]:
    wanted = ["question_id", "answer", "prediction", "correct", "debiased_prediction", "num_options", *LOGPROB_COLUMNS]
    left = first.frame.select("subject", "supercategory", *wanted)
    right = second.frame.select(wanted)
    joined = left.join(right, on="question_id", how="inner", suffix="_second", maintain_order="left")
    conflicts = int((joined["answer"] != joined["answer_second"]).sum())
    dropped = (len(left) - len(joined), len(right) - len(joined), conflicts)
    if any(dropped) and not intersection:
        what = f"{dropped[0]} questions only in the first, {dropped[1]} only in the second, {conflicts} with two different keys"
        raise RunError(
            f"{first.name} and {second.name} are over different questions ({what}); give --intersection to compare what they share"
        )
    joined = joined.filter(pl.col("answer") == pl.col("answer_second"))
    if joined.is_empty():
        raise RunError(f"{first.name} and {second.name} share no question; compare runs over the same dataset and split")
    return joined.with_columns(pl.col("correct").alias("first"), pl.col("correct_second").alias("second")), dropped


def _micro(joined: pl.DataFrame, settings: Settings) -> Difference:
    counts = paired.subject_counts(joined)
    return paired.micro_difference(counts, paired.replicates(counts, settings.seed, settings.replicates))


def _letters(joined: pl.DataFrame) -> Decomposition:
    key = decomposition.as_codes(joined["answer"])
    strata = joined["subject"].rank("dense").to_numpy().astype(np.int64) - 1
    return decomposition.decompose(key, strata, _run_letters(joined, key, ""), _run_letters(joined, key, "_second"))


def _run_letters(joined: pl.DataFrame, key: decomposition.Letters, suffix: str) -> RunLetters:
    letters = decomposition.as_codes(joined[f"prediction{suffix}"])
    columns = [f"{name}{suffix}" for name in LOGPROB_COLUMNS]
    if joined[columns[0]].null_count() == len(joined):
        return RunLetters(letters)
    logprobs = joined.select(pl.col(columns).fill_null(float("nan"))).to_numpy()
    return RunLetters(letters, decomposition.matched_letters(letters, logprobs, decomposition.letter_shares(key)))


def _debiased(joined: pl.DataFrame, settings: Settings) -> Difference | None:
    one, other = joined["debiased_prediction"], joined["debiased_prediction_second"]
    if one.null_count() or other.null_count():
        return None
    return _micro(joined.with_columns((one == joined["answer"]).alias("first"), (other == joined["answer"]).alias("second")), settings)
