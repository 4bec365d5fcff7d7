"""The headline of a comparison: the change over questions and subjects, how certain it is, and what makes it
weaker than it looks.

In: two ``Run``s. Out: a ``HeadlineComparison``, numbers only; RunError if the runs were not asked the same.
A report of 25 runs shows 300 of them, so it costs a tenth of ``comparison.compare_pair``, whose numbers are
these and more. Knows nothing of words, tables or files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import polars as pl

from kmmlu_fast.analysis import paired, protocol_differences
from kmmlu_fast.analysis.letter_bias.letter_prior import letter_codes
from kmmlu_fast.analysis.overlap_gap import count_overlap_by_subject, estimate_overlap_gap
from kmmlu_fast.analysis.paired import ALPHA, Outcome, PairedDifference
from kmmlu_fast.analysis.paired_questions import join_runs, stratum_codes
from kmmlu_fast.analysis.repeats import drop_repeated_questions
from kmmlu_fast.analysis.strata import Floats, IntervalEstimate
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.schema import OPTION_LETTERS
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


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadlineComparison:
    """Second against first; differences are second minus first, 0-1."""

    first: str
    second: str
    micro: PairedDifference
    macro: PairedDifference
    dropped: tuple[int, int, int]  # questions only in first, only in second, with two different keys
    prompt_differences: tuple[str, ...]  # "prompt_style lm-eval -> chat"
    setting_differences: tuple[str, ...] = ()  # "quantization None -> fp8"
    clean: PairedDifference | None = None  # micro without the overlapping questions; None without a list
    overlapping: int = 0  # questions on that list
    # change on the overlapping questions minus change on the others
    overlap_gap: IntervalEstimate | None = None
    on_overlap: float | None = None  # change on the overlapping questions
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


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedPair:
    """Two runs side by side, checked: what all parts of their comparison are computed from."""

    questions: pl.DataFrame  # join_runs, without repeats
    counts: pl.DataFrame  # paired.subject_counts
    weights: Floats | None  # of the subjects, if they are not the sample's
    asked: Floats | None  # share asked by subject, if the population is these questions
    dropped: tuple[int, int, int]
    repeated: int
    prompt_differences: tuple[str, ...]


def join_pair(
    first: Run, second: Run, settings: ComparisonSettings, *, headline_only: bool = False
) -> JoinedPair:
    """The shared questions; RunError if questions, keys or prompts differ and the settings do not allow it.
    ``headline_only``: without the columns that only ``compare_pair`` takes.
    """
    refuse_early_stopped_runs((first, second))
    prompts = protocol_differences.prompt_differences(first, second)
    _refuse_other_prompts(first, second, prompts, settings)
    joined, dropped = join_runs(first, second, settings.intersection, headline_only=headline_only)
    joined, repeated = drop_repeated_questions(joined, settings.questions)
    prompts = prompts or _find_text_differences(first, second, joined, any(dropped), settings)
    counts = paired.subject_counts(joined)
    weights, asked = population_weights(counts, settings)
    return JoinedPair(
        questions=joined,
        counts=counts,
        weights=weights,
        asked=asked,
        dropped=dropped,
        repeated=repeated,
        prompt_differences=tuple(prompts),
    )


def compare_headline(first: Run, second: Run, settings: ComparisonSettings) -> HeadlineComparison:
    """Compare two runs by their headline; RunError as ``join_pair``."""
    joined = join_pair(first, second, settings, headline_only=True)
    return make_headline(first, second, joined, settings)


def make_headline(
    first: Run, second: Run, joined: JoinedPair, settings: ComparisonSettings
) -> HeadlineComparison:
    """The headline of joined runs."""
    counts = joined.counts
    subjects = counts["subject"].unique()
    population_size = None
    if set(subjects) <= settings.sizes.keys():
        population_size = sum(settings.sizes[name] for name in subjects)
    headline = HeadlineComparison(
        first=first.name,
        second=second.name,
        micro=paired.micro_difference(counts, joined.weights, joined.asked),
        macro=paired.macro_difference(counts, joined.asked),
        dropped=joined.dropped,
        prompt_differences=joined.prompt_differences,
        setting_differences=tuple(protocol_differences.setting_differences(first, second)),
        margin=settings.margin,
        population=settings.population,
        population_size=population_size,
        repeated=joined.repeated,
    )
    return _with_overlap(headline, joined, settings) if settings.overlap else headline


def swap_headline(pair: HeadlineComparison) -> HeadlineComparison:
    """First against second; for a pair without overlapping questions and not yet corrected."""
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


def population_weights(
    counts: pl.DataFrame, settings: ComparisonSettings
) -> tuple[Floats | None, Floats | None]:
    """(weights, asked): the subjects' weights if they are not the sample's, and the shares asked if the
    population is these questions.
    """
    asked = paired.asked_share(counts, settings.sizes) if settings.population == "these" else None
    return paired.subject_size_weights(counts, settings.sizes), asked


def micro_of_questions(joined: pl.DataFrame, settings: ComparisonSettings) -> PairedDifference:
    """The change over some of the questions, or with other answers."""
    counts = paired.subject_counts(joined)
    return paired.micro_difference(counts, *population_weights(counts, settings))


def _with_overlap(
    pair: HeadlineComparison, joined: JoinedPair, settings: ComparisonSettings
) -> HeadlineComparison:
    """With the change without the overlapping questions, and how much larger it is on them."""
    questions = joined.questions
    marked = questions["question_id"].is_in(settings.overlap)
    pair = replace(pair, overlapping=int(marked.sum()))
    clean = questions.select("subject", "supercategory", "first", "second").filter(~marked)
    if clean.is_empty():
        return pair
    overlapping = count_overlap_by_subject(settings.overlap)
    sizes = {name: size - overlapping.get(name, 0) for name, size in settings.sizes.items()}
    pair = replace(pair, clean=micro_of_questions(clean, replace(settings, sizes=sizes)))
    if not pair.overlapping:
        return pair
    change = questions["second"].to_numpy().astype(float) - questions["first"].to_numpy().astype(float)
    strata = stratum_codes(questions, joined.counts)
    key = letter_codes(questions["answer"], OPTION_LETTERS)
    return replace(
        pair,
        overlap_gap=estimate_overlap_gap(change, strata, key, marked.to_numpy()),
        on_overlap=float(change[marked.to_numpy()].mean()),
    )
