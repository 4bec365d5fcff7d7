"""The effect of a training recipe: several adapters of one recipe, each from another seed, against their
base.

In: a base run and the adapters' runs over the same questions. Out: the recipe's effect with an interval that
includes the variation between seeds and between questions. Knows nothing of words or files.

One adapter's interval refers to that adapter. For a recipe, seeds are a sample too: the change d of question
i under seed s is

    d_si = effect + seed_s + question_i + rest_si         (both random, crossed and balanced)

For balanced data the restricted-maximum-likelihood estimates of this mixed model are the ANOVA ones (Searle,
Casella and McCulloch 1992, Variance Components, 4.6), so no iteration is needed: Var(effect) = MS_seeds / nS
+ MS_questions / nS - MS_rest / nS, with Satterthwaite's degrees of freedom, never more than seeds - 1 if
seeds vary. Questions vary within their subject. Two seeds give a valid but wide interval; one gives none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from kmmlu_fast.analysis.paired import ALPHA, Outcome
from kmmlu_fast.analysis.strata import Estimate, stratified_mean
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeEffect:
    """A recipe's effect against the base, 0-1."""

    name: str
    first: str
    runs: tuple[str, ...]
    questions: int
    effects: tuple[float, ...]  # of each adapter
    effect: float
    low: float
    high: float
    inner_low: float  # 90 % interval: two one-sided tests at 5 % each
    inner_high: float
    seed_deviation: float  # estimated standard deviation between seeds, the questions' noise removed, 0-1
    p_value: float = 1.0
    corrected_p_value: float | None = None  # for all logged comparisons with this base; None if not logged

    @property
    def significant(self) -> bool:
        """At 5 %, by the interval and by the corrected p."""
        corrected = self.p_value if self.corrected_p_value is None else self.corrected_p_value
        return not self.low <= 0.0 <= self.high and corrected < ALPHA

    def outcome(self, margin: float) -> Outcome:
        """What is shown of the effect; ``margin``: effects within it count as equal, 0-1."""
        if self.significant:
            return "better" if self.effect > 0 else "worse"
        return "equal" if -margin < self.inner_low and self.inner_high < margin else "undecided"


def recipe_effect(name: str, base: Run, runs: list[Run]) -> RecipeEffect:
    """The effect of ``runs`` (one recipe, several seeds) against ``base``; RunError if there are fewer than
    two, or if they are over other questions.
    """
    if len(runs) < 2:
        raise RunError(
            f"--group {name}: holds {len(runs)} run; a recipe's interval needs at least 2 seeds, such as"
            f" {name}=runs/s1,runs/s2"
        )
    right = pl.col("correct")
    joined = base.frame.select("question_id", "subject", "answer", right.cast(pl.Float64).alias("base"))
    for place, run in enumerate(runs):
        other = run.frame.select(
            "question_id", pl.col("answer").alias("key"), right.cast(pl.Float64).alias(f"seed_{place}")
        )
        before = len(joined)
        joined = joined.join(other, on="question_id", how="inner", maintain_order="left")
        if len(joined) != before or len(other) != before or (joined["answer"] != joined["key"]).any():
            raise RunError(
                f"--group {name}: {run.name} is over other questions than {base.name}; evaluate all of them"
                " over one selection"
            )
        joined = joined.drop("key")
    changes = joined.select(pl.col("^seed_.*$") - pl.col("base")).to_numpy()
    strata = joined["subject"].rank("dense").to_numpy().astype(np.int64) - 1
    estimate, deviation = estimate_crossed_effect(changes, strata)
    low, high = estimate.interval()
    inner_low, inner_high = estimate.interval(1 - 2 * ALPHA)
    return RecipeEffect(
        name=name,
        first=base.name,
        runs=tuple(run.name for run in runs),
        questions=len(joined),
        effects=tuple(map(float, changes.mean(axis=0))),
        effect=estimate.value,
        low=low,
        high=high,
        inner_low=inner_low,
        inner_high=inner_high,
        seed_deviation=deviation,
        p_value=estimate.p_value,
    )


def estimate_crossed_effect(changes: np.ndarray, strata: np.ndarray) -> tuple[Estimate, float]:
    """The mean of ``changes`` (questions, seeds) with the error from both, and the standard deviation between
    seeds.
    """
    n, seeds = changes.shape
    by_question, by_seed, effect = changes.mean(axis=1), changes.mean(axis=0), float(changes.mean())
    rest = changes - by_question[:, None] - by_seed[None, :] + effect
    ms_rest = float((rest**2).sum()) / ((n - 1) * (seeds - 1))
    ms_seeds = n * float(((by_seed - effect) ** 2).sum()) / (seeds - 1)
    # Its squared error is MS_questions / (n seeds), questions varying within their subject.
    questions = stratified_mean(by_question, strata)
    between = max(0.0, (ms_seeds - ms_rest) / n)  # seeds' own variance
    variance = questions.error**2 + between / seeds
    # Satterthwaite over the mean squares: the seeds' has seeds - 1 degrees of freedom, even if their variance
    # is estimated as 0.
    size = n * seeds
    parts = (ms_seeds / size) ** 2 / (seeds - 1) + (ms_rest / size) ** 2 / ((n - 1) * (seeds - 1))
    parts += questions.error**4 / max(questions.df, 1.0)
    df = variance**2 / parts if parts > 0 else float(n - 1)
    if between > 0.0:
        df = min(df, seeds - 1.0)
    return Estimate(effect, variance**0.5, df), between**0.5
