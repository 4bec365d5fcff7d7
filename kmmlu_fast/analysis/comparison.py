"""Two runs, question by question: everything that compare and report show about the pair.

In: two ``Run``s. Out: a ``PairComparison``, numbers only; RunError if the runs were not asked the same.
Applies the statistics (``paired``, ``letter_prior``, ``endpoints``) to runs. Knows nothing of words, tables
or files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import polars as pl

from kmmlu_fast.analysis import paired, protocol_differences
from kmmlu_fast.analysis.best_of import shrink_best
from kmmlu_fast.analysis.endpoints import Endpoint, compare_endpoints
from kmmlu_fast.analysis.error_spending import Ledger
from kmmlu_fast.analysis.gained_and_lost import GainedAndLost, compare_gained_and_lost
from kmmlu_fast.analysis.letter_bias import letter_prior
from kmmlu_fast.analysis.letter_bias.letter_prior import Decomposition, RunLetters
from kmmlu_fast.analysis.letter_bias.offsets import MatchedLetters, match_letter_shares
from kmmlu_fast.analysis.overlap_gap import estimate_overlap_gap
from kmmlu_fast.analysis.paired import ALPHA, Outcome, PairedDifference
from kmmlu_fast.analysis.paired_questions import PairArrays, join_runs, make_pair_arrays
from kmmlu_fast.analysis.repeats import drop_repeated_questions
from kmmlu_fast.analysis.strata import Floats, IntervalEstimate, question_weights
from kmmlu_fast.analysis.written_forms import (
    FormSplit,
    estimate_form_part,
    read_either_letters,
    read_form_arrays,
    scored_form_of_pair,
)
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.run import Run, refuse_early_stopped_runs

MARGIN = 0.01
Population = Literal["like", "these"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSettings:
    """How pairs are compared."""

    intersection: bool = False  # compare on the questions that both runs have, with the same key
    different_prompts: bool = False  # compare although the prompts differ
    # ids of questions that overlap training data: left out of the clean headline
    overlap: frozenset[str] = frozenset()
    overlap_known: bool = True  # False: overlap with training data was not checked
    margin: float = MARGIN  # a difference within it counts as equal, 0-1
    population: Population = "like"  # intervals refer to questions like these, or to these questions
    # full number of questions by subject, if known
    sizes: dict[str, int] = field(default_factory=dict)
    # the dataset's texts, for ``gained_and_lost`` and repeated questions
    questions: pl.DataFrame | None = None
    what_moved: bool = True  # with ``questions``: fit which kinds of question were gained or lost
    headline_only: bool = False  # leave out letters, endpoints and what moved


@dataclass(frozen=True, slots=True, kw_only=True)
class PairComparison:
    """Second against first; differences are second minus first, 0-1."""

    first: str
    second: str
    micro: PairedDifference
    macro: PairedDifference
    supercategories: pl.DataFrame  # paired.supercategory_differences
    subjects: pl.DataFrame  # paired.subject_differences
    letters: Decomposition | None  # None if the questions have different numbers of options
    # the part of micro that shows in the scored form of the letters only; None if a run's forms are unknown
    forms: FormSplit | None
    # micro by option-rotation answers, if both runs have them for every question
    debiased: PairedDifference | None
    clean: PairedDifference | None  # micro without the overlapping questions; None without a list of them
    overlapping: int  # questions on that list
    made_readable: int  # second is right, first was unparsed
    made_unreadable: int  # first was right, second is unparsed
    dropped: tuple[int, int, int]  # questions only in first, only in second, with two different keys
    prompt_differences: tuple[str, ...]  # "prompt_style lm-eval -> chat"
    setting_differences: tuple[str, ...] = ()  # "quantization None -> fp8"
    protocol_unknown: tuple[str, ...] = ()  # runs with unknown prompts and settings
    overlap_known: bool = True
    # change on the overlapping questions minus change on the others
    overlap_gap: IntervalEstimate | None = None
    on_overlap: float | None = None  # change on the overlapping questions
    endpoints: tuple[Endpoint, ...] = ()
    margin: float = MARGIN
    population: Population = "like"
    population_size: int | None = None  # all questions of these subjects, if known
    tried: int = 1  # comparisons with this base: this one and all logged ones included
    p_holm: float | None = None  # micro's p corrected for comparisons with this base; None if there is one
    alpha: float = ALPHA  # level at which the uncorrected p is tested, other comparisons taken into account
    best_of: bool = False  # the largest difference of several
    tied: int = 0  # other runs with the same largest difference
    shrunk: IntervalEstimate | None = None  # of the best of several: micro without the luck of being chosen
    repeated: int = 0  # questions that repeat another one and were left out
    one_adapter: bool = False  # the second run is one adapter: another seed would give another result
    moved: GainedAndLost | None = None  # which features the changed questions have, if texts are known

    @property
    def p_value(self) -> float | None:
        """Micro's p, corrected if several runs were tried."""
        return self.micro.p_value if self.p_holm is None else self.p_holm

    @property
    def significant(self) -> bool:
        """Whether micro changed, by the corrected p and by its interval."""
        return self.micro.significant_at(self.p_value)

    @property
    def equal(self) -> bool:
        """Whether the whole interval lies inside the margin."""
        return self.micro.within(self.margin)

    @property
    def undecided(self) -> bool:
        """Whether neither a change nor equality within the margin is shown."""
        return self.outcome == "undecided"

    @property
    def outcome(self) -> Outcome:
        """What is shown, in one word. A gain that is shown only on questions that overlap training data is
        undecided; "opposed": micro and macro go opposite ways, both significantly.
        """
        if self.micro_macro_opposed:
            return "opposed"
        if self.exact:
            difference = self.micro.c - self.micro.b
            return "equal" if difference == 0 else "better" if difference > 0 else "worse"
        if self.significant:
            if self.micro.difference < 0:
                return "worse"
            return "undecided" if self.only_leaked else "better"
        return "equal" if self.equal else "undecided"

    @property
    def micro_macro_opposed(self) -> bool:
        """Whether micro and macro go opposite ways, both significantly."""
        return (
            self.significant and self.macro.significant and self.micro.difference * self.macro.difference < 0
        )

    @property
    def only_leaked(self) -> bool:
        """Whether the change is larger on questions that overlap training data, and is not shown on the
        others.
        """
        gap = self.overlap_gap
        if not (self.significant and self.clean is not None and gap is not None and gap.significant):
            return False
        shown = self.clean.significant_at(self.clean.p_value)
        return gap.value * self.micro.difference > 0 and not (
            shown and self.clean.difference * self.micro.difference > 0
        )

    @property
    def exact(self) -> bool:
        """Whether every question of the population was asked, so that nothing is estimated."""
        return self.population == "these" and self.population_size in (None, self.micro.n)

    def changed_subjects(self) -> pl.DataFrame:
        """Subjects whose change is significant after Holm's correction."""
        return self.subjects.filter((pl.col("p_holm") < ALPHA) & ((pl.col("low") > 0) | (pl.col("high") < 0)))


def compare_with_base(
    runs: list[Run], settings: ComparisonSettings
) -> tuple[list[PairComparison], list[tuple[str, str]]]:
    """Every run against the first, p corrected for their number; and (name, reason) of each run that cannot
    be compared with it. Prompts may differ here.
    """
    settings = replace(settings, different_prompts=True)
    pairs, refused = [], []
    for other in runs[1:]:
        try:
            pairs.append(compare_pair(runs[0], other, settings))
        except RunError as error:
            refused.append((other.name, str(error)))
    return adjust_pair_p_values(pairs), refused


def adjust_pair_p_values(
    pairs: Sequence[PairComparison], ledgers: Mapping[str, Ledger] | None = None
) -> list[PairComparison]:
    """The pairs with p corrected (Holm) for all of them; if ``ledgers`` has the second run, also for every
    logged comparison with the same base, by the level that this one was given.
    """
    ledgers = ledgers or {}
    if not pairs or (len(pairs) < 2 and not ledgers):
        return list(pairs)
    values = [1.0 if pair.micro.p_value is None else pair.micro.p_value for pair in pairs]
    holm = paired.adjust_p_values(np.array(values), "holm")
    logged: dict[str, float] = {}
    for ledger in ledgers.values():
        logged |= ledger.other_differences
    differences = [pair.micro.difference for pair in pairs] + list(logged.values())
    best = max(differences)
    ties = int(np.isclose(differences, best, rtol=0.0, atol=1e-12).sum())
    adjusted = []
    for pair, p_value in zip(pairs, holm, strict=True):
        spent = ledgers.get(pair.second)
        is_best = bool(np.isclose(pair.micro.difference, best, rtol=0.0, atol=1e-12))
        several = len(differences) > 1
        adjusted.append(
            replace(
                pair,
                tried=max(len(differences), spent.comparisons if spent else 1),
                p_holm=max(float(p_value), spent.corrected_p_value if spent else 0.0),
                alpha=min(ALPHA / len(pairs), spent.level if spent else ALPHA),
                best_of=several and is_best and ties == 1,
                tied=ties - 1 if several and is_best else 0,
                shrunk=_shrink_best(pair, differences) if several and is_best and ties == 1 else None,
            )
        )
    return adjusted


def _shrink_best(pair: PairComparison, differences: list[float]) -> IntervalEstimate | None:
    """The best difference without the luck of being chosen; the others are taken to be as uncertain."""
    return shrink_best(differences, [pair.micro.error] * len(differences))


def compare_pair(first: Run, second: Run, settings: ComparisonSettings) -> PairComparison:
    """Compare two runs; RunError if questions, keys or prompts differ and the settings do not allow it."""
    refuse_early_stopped_runs((first, second))
    prompts = protocol_differences.prompt_differences(first, second)
    _refuse_other_prompts(first, second, prompts, settings)
    joined, dropped = join_runs(first, second, settings.intersection)
    joined, repeated = drop_repeated_questions(joined, settings.questions)
    prompts = prompts or _find_text_differences(first, second, joined, any(dropped), settings)
    counts = paired.subject_counts(joined)
    weights, asked = _population_weights(counts, settings)
    one, other = joined["prediction"].is_null(), joined["prediction_second"].is_null()
    data = make_pair_arrays(joined, counts)
    subjects = counts["subject"].unique()
    population_size = None
    if set(subjects) <= settings.sizes.keys():
        population_size = sum(settings.sizes[name] for name in subjects)
    unknown = [run.name for run in (first, second) if protocol_differences.is_protocol_unknown(run)]
    endpoints: tuple[Endpoint, ...] = ()
    if data.logprobs and not settings.headline_only:
        endpoints = compare_endpoints(data.key, data.strata, *data.logprobs, weights, asked, data.options)
    moved = None
    if settings.questions is not None and settings.what_moved and not settings.headline_only:
        moved = compare_gained_and_lost(joined, settings.questions, settings.overlap)
    letters = None
    if joined["num_options"].n_unique() == 1 and not settings.headline_only:
        letters = _decompose_letters(data, weights, asked)
    forms = None if settings.headline_only else _split_forms(joined, data, settings)
    pair = PairComparison(
        first=first.name,
        second=second.name,
        micro=paired.micro_difference(counts, weights, asked),
        macro=paired.macro_difference(counts, asked),
        supercategories=paired.supercategory_differences(counts, weights, asked),
        subjects=paired.subject_differences(counts, asked),
        letters=letters,
        forms=forms,
        debiased=_debiased_difference(joined, settings),
        clean=None,
        overlapping=0,
        made_readable=int((one & joined["second"]).sum()),
        made_unreadable=int((joined["first"] & other).sum()),
        dropped=dropped,
        prompt_differences=tuple(prompts),
        setting_differences=tuple(protocol_differences.setting_differences(first, second)),
        protocol_unknown=tuple(unknown),
        overlap_known=settings.overlap_known,
        endpoints=endpoints,
        margin=settings.margin,
        population=settings.population,
        population_size=population_size,
        one_adapter=bool(second.facts.get("adapter_digest")) and not first.facts.get("adapter_digest"),
        moved=moved,
        repeated=repeated,
    )
    return _with_overlap(pair, joined, data, settings) if settings.overlap else pair


def swap_pair(pair: PairComparison) -> PairComparison:
    """First against second, for a pair compared with ``headline_only``."""
    only_first, only_second, conflicts = pair.dropped
    return replace(
        pair,
        first=pair.second,
        second=pair.first,
        micro=pair.micro.swapped(),
        macro=pair.macro.swapped(),
        dropped=(only_second, only_first, conflicts),
        prompt_differences=tuple(_swap_text(text) for text in pair.prompt_differences),
        setting_differences=tuple(_swap_text(text) for text in pair.setting_differences),
    )


def _swap_text(text: str) -> str:
    """ "dtype a -> b" as "dtype b -> a"; texts without values stay."""
    before, arrow, after = text.rpartition(" -> ")
    name, _, value = before.partition(" ")
    return f"{name} {after} -> {value}" if arrow else text


def _refuse_other_prompts(first: Run, second: Run, prompts: list[str], settings: ComparisonSettings) -> None:
    if prompts and not settings.different_prompts:
        raise RunError(
            f"{first.name} and {second.name} were asked differently ({'; '.join(prompts)}), "
            "so a difference could come from the prompts; "
            "evaluate both under one protocol, or give --different-prompts"
        )


def _find_text_differences(
    first: Run, second: Run, joined: pl.DataFrame, any_dropped: bool, settings: ComparisonSettings
) -> list[str]:
    """What differs although ids and keys are the same: texts or exemplars; RunError unless allowed."""
    texts = None if any_dropped else protocol_differences.find_dataset_digest_change(first, second)
    texts = texts or protocol_differences.find_prompt_digest_change(first, second, joined)
    if texts and not settings.different_prompts:
        raise RunError(
            f"{first.name} and {second.name} have the same question ids and keys "
            f"but other texts or exemplars ({texts}); "
            "evaluate both over one dataset, or give --different-prompts"
        )
    return [texts] if texts else []


def _population_weights(
    counts: pl.DataFrame, settings: ComparisonSettings
) -> tuple[Floats | None, Floats | None]:
    """(weights, asked): the subjects' weights if they are not the sample's, and the shares asked if the
    population is these questions.
    """
    asked = paired.asked_share(counts, settings.sizes) if settings.population == "these" else None
    return paired.subject_size_weights(counts, settings.sizes), asked


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


def _split_forms(joined: pl.DataFrame, data: PairArrays, settings: ComparisonSettings) -> FormSplit | None:
    """The part that shows in the scored form of the letters only; if the mass moved, the rest is split."""
    arrays = [read_form_arrays(joined, suffix) for suffix in ("", "_second")]
    if arrays[0] is None or arrays[1] is None:
        return None
    weights, asked = _population_weights(paired.subject_counts(joined), settings)
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
        either=_micro_difference(joined.with_columns(**right), settings),
    )
    if not split.moved or joined["num_options"].n_unique() != 1:
        return split
    logprobs = (arrays[0].either, arrays[1].either)
    in_either_form = replace(data, letters=(one, other), logprobs=logprobs)
    return replace(split, letters=_decompose_letters(in_either_form, weights, asked))


def _micro_difference(joined: pl.DataFrame, settings: ComparisonSettings) -> PairedDifference:
    counts = paired.subject_counts(joined)
    return paired.micro_difference(counts, *_population_weights(counts, settings))


def _debiased_difference(joined: pl.DataFrame, settings: ComparisonSettings) -> PairedDifference | None:
    one, other = joined["debiased_prediction"], joined["debiased_prediction_second"]
    if one.null_count() or other.null_count():
        return None
    right = {"first": one == joined["answer"], "second": other == joined["answer"]}
    return _micro_difference(joined.with_columns(**right), settings)


def _with_overlap(
    pair: PairComparison, joined: pl.DataFrame, data: PairArrays, settings: ComparisonSettings
) -> PairComparison:
    """With the change without the overlapping questions, and how much larger it is on them."""
    marked = joined["question_id"].is_in(settings.overlap)
    clean, leaked = joined.filter(~marked), joined.filter(marked)
    pair = replace(pair, overlapping=len(leaked))
    if clean.is_empty():
        return pair
    overlapping = Counter(question_id.split("/")[0] for question_id in settings.overlap)
    sizes = {name: size - overlapping[name] for name, size in settings.sizes.items()}
    pair = replace(pair, clean=_micro_difference(clean, replace(settings, sizes=sizes)))
    if leaked.is_empty():
        return pair
    change = joined["second"].to_numpy().astype(float) - joined["first"].to_numpy().astype(float)
    return replace(
        pair,
        overlap_gap=estimate_overlap_gap(change, data.strata, data.key, marked.to_numpy()),
        on_overlap=float(change[marked.to_numpy()].mean()),
    )
