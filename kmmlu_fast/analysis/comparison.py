"""Two runs, question by question: everything that compare and report show about the pair.

In: two ``Run``s. Out: a ``PairComparison``, numbers only; RunError if the runs were not asked the same.
Applies the statistics (``paired``, ``letter_prior``, ``endpoints``) to runs. Knows nothing of words, tables
or files.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import polars as pl

from kmmlu_fast.analysis import paired, protocol_differences
from kmmlu_fast.analysis.endpoints import Endpoint, compare_endpoints
from kmmlu_fast.analysis.gained_and_lost import GainedAndLost, compare_gained_and_lost
from kmmlu_fast.analysis.headline_comparison import (
    ComparisonSettings,
    HeadlineComparison,
    JoinedPair,
    join_pair,
    make_headline,
    micro_of_questions,
)
from kmmlu_fast.analysis.letter_bias import letter_prior
from kmmlu_fast.analysis.letter_bias.letter_prior import Decomposition, RunLetters
from kmmlu_fast.analysis.letter_bias.offsets import MatchedLetters, match_letter_shares
from kmmlu_fast.analysis.paired import ALPHA, PairedDifference
from kmmlu_fast.analysis.paired_questions import PairArrays, make_pair_arrays
from kmmlu_fast.analysis.strata import Floats, question_weights
from kmmlu_fast.analysis.written_forms import (
    FormSplit,
    estimate_form_part,
    read_either_letters,
    read_form_arrays,
    scored_form_of_pair,
)
from kmmlu_fast.runs.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class PairComparison(HeadlineComparison):
    """The headline, and all that it is made of."""

    supercategories: pl.DataFrame  # paired.supercategory_differences
    subjects: pl.DataFrame  # paired.subject_differences
    letters: Decomposition | None  # None if the questions have different numbers of options
    # the part of micro that shows in the scored form of the letters only; None if a run's forms are unknown
    forms: FormSplit | None
    # micro by option-rotation answers, if both runs have them for every question
    debiased: PairedDifference | None
    made_readable: int  # second is right, first was unparsed
    made_unreadable: int  # first was right, second is unparsed
    protocol_unknown: tuple[str, ...] = ()  # runs with unknown prompts and settings
    overlap_known: bool = True
    endpoints: tuple[Endpoint, ...] = ()
    one_adapter: bool = False  # the second run is one adapter: another seed would give another result
    moved: GainedAndLost | None = None  # which features the changed questions have, if texts are known

    def changed_subjects(self) -> pl.DataFrame:
        """Subjects whose change is significant after Holm's correction."""
        return self.subjects.filter((pl.col("p_holm") < ALPHA) & ((pl.col("low") > 0) | (pl.col("high") < 0)))


def compare_pair(first: Run, second: Run, settings: ComparisonSettings) -> PairComparison:
    """Compare two runs; RunError if questions, keys or prompts differ and the settings do not allow it."""
    pair = join_pair(first, second, settings)
    joined, weights, asked = pair.questions, pair.weights, pair.asked
    data = make_pair_arrays(joined, pair.counts)
    one, other = joined["prediction"].is_null(), joined["prediction_second"].is_null()
    unknown = [run.name for run in (first, second) if protocol_differences.is_protocol_unknown(run)]
    endpoints: tuple[Endpoint, ...] = ()
    if data.logprobs:
        endpoints = compare_endpoints(data.key, data.strata, *data.logprobs, weights, asked, data.options)
    moved = None
    if settings.questions is not None and settings.what_moved:
        moved = compare_gained_and_lost(joined, settings.questions, settings.overlap)
    letters = None
    if joined["num_options"].n_unique() == 1:
        letters = _decompose_letters(data, weights, asked)
    headline = make_headline(first, second, pair, settings)
    shared: dict[str, Any] = {field.name: getattr(headline, field.name) for field in fields(headline)}
    return PairComparison(
        **shared,
        supercategories=paired.supercategory_differences(pair.counts, weights, asked),
        subjects=paired.subject_differences(pair.counts, asked),
        letters=letters,
        forms=_split_forms(pair, data, settings),
        debiased=_debiased_difference(joined, settings),
        made_readable=int((one & joined["second"]).sum()),
        made_unreadable=int((joined["first"] & other).sum()),
        protocol_unknown=tuple(unknown),
        overlap_known=settings.overlap_known,
        endpoints=endpoints,
        one_adapter=bool(second.facts.get("adapter_digest")) and not first.facts.get("adapter_digest"),
        moved=moved,
    )


def _decompose_letters(data: PairArrays, weights: Floats | None, asked: Floats | None) -> Decomposition:
    """The letter split; every question has the same number of options."""
    options = int(data.options[0])
    matched: list[MatchedLetters | None] = [None, None]
    if data.logprobs is not None:
        each = question_weights(data.strata, weights)
        matched = [
            match_letter_shares(data.key, letters, logprobs, data.strata, each)
            for letters, logprobs in zip(data.letters, data.logprobs, strict=True)
        ]
    one, other = map(RunLetters, data.letters, matched)
    return letter_prior.decompose_difference(data.key, data.strata, one, other, weights, asked, options)


def _split_forms(pair: JoinedPair, data: PairArrays, settings: ComparisonSettings) -> FormSplit | None:
    """The part that shows in the scored form of the letters only; if the mass moved, the rest is split."""
    joined, weights, asked = pair.questions, pair.weights, pair.asked
    arrays = [read_form_arrays(joined, suffix) for suffix in ("", "_second")]
    if arrays[0] is None or arrays[1] is None:
        return None
    one, other = (
        read_either_letters(both, letters)
        for both, letters in zip((arrays[0], arrays[1]), data.letters, strict=True)
    )
    form, p_value = estimate_form_part(data.key, data.letters, (one, other), data.strata, weights, asked)
    right = {"first": pl.Series(one == data.key), "second": pl.Series(other == data.key)}
    scored = [scored_form_of_pair(joined, suffix) for suffix in ("", "_second")]
    split = FormSplit(
        scored=(scored[0][0], scored[1][0]),
        mass=(scored[0][1], scored[1][1]),
        form=form,
        p_value=p_value,
        either=micro_of_questions(joined.with_columns(**right), settings),
    )
    if not split.moved or joined["num_options"].n_unique() != 1:
        return split
    logprobs = (arrays[0].either, arrays[1].either)
    in_either_form = replace(data, letters=(one, other), logprobs=logprobs)
    return replace(split, letters=_decompose_letters(in_either_form, weights, asked))


def _debiased_difference(joined: pl.DataFrame, settings: ComparisonSettings) -> PairedDifference | None:
    one, other = joined["debiased_prediction"], joined["debiased_prediction_second"]
    if one.null_count() or other.null_count():
        return None
    right = {"first": one == joined["answer"], "second": other == joined["answer"]}
    return micro_of_questions(joined.with_columns(**right), settings)
