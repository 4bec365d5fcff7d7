"""The worlds whose truth is simple, for ``bench.soundness``: no change, letter habit alone, a gain.

A simulated run answers the option of the highest utility: noise (partly shared by both runs, as two states
of one model share it), a strength on the key that differs by subject, and a pull on letters. Its utilities
are its log-probabilities.

    null      both runs are draws of one model
    prior     only the pull on the letters differs: a gain that is letter habit and nothing else
    gain      strength and pull differ
    mixture   as ``prior`` for runs that know a share and guess the rest by habit; letters only
    margin    the difference is exactly the margin within which runs are called equal
    collapse  one letter is given to exactly the share from which a run is said to hardly read
    many      five adapters that change nothing, in one command

In: a world, a number of questions and of pairs, a random generator. Out: claims made and truths held, pair
by pair, by kind (``type_one``, ``coverage``, ``power``) and name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from bench.simulated_runs import (
    KEY,
    SHARED,
    Codes,
    Floats,
    full_sizes,
    list_claims,
    list_intervals,
    make_run,
    make_strata,
    subject_effects,
)
from kmmlu_fast.analysis.base_comparisons import adjust_pair_p_values
from kmmlu_fast.analysis.comparison import PairComparison, compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.paired import micro_difference, subject_counts
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.letter_habit import COLLAPSE, letter_collapse_lines

Random = np.random.Generator
Claims = dict[str, dict[str, list[bool]]]  # kind: name: one entry a pair


@dataclass(frozen=True)
class World:
    """``strength`` and ``pull`` (on A) of the first and the second run."""

    strength: tuple[float, float] = (1.0, 1.0)
    pull: tuple[float, float] = (0.0, 0.0)
    mixture: bool = False


WORLDS = {
    "null": World(),
    "prior": World(pull=(1.2, -0.6)),
    "gain": World(strength=(0.9, 1.15), pull=(0.8, -0.3)),
    "mixture": World(pull=(1.2, -0.6), mixture=True),
}
SINGLE_CLAIMS = ("collapse", "margin", "many")  # worlds about one claim each


def simulate_utilities(world: World, strata: Codes, random: Random) -> tuple[Codes, list[Floats]]:
    """The key, and both runs' utilities (n, 4)."""
    n = len(strata)
    key = random.choice(4, size=n, p=KEY)
    rows, common = np.arange(n), random.normal(size=(n, 4))
    luck = random.random(n)
    utilities = []
    for strength, pull in zip(world.strength, world.pull, strict=True):
        values = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * random.normal(size=(n, 4))
        values[:, 0] += pull
        if world.mixture:
            own = np.where(random.random(n) < SHARED, luck, random.random(n))
            values[rows, key] += 9.0 * (own < 0.4 + 0.2 * subject_effects()[strata])
        else:
            values[rows, key] += strength + subject_effects()[strata]
        utilities.append(values)
    return key, utilities


def simulate_pair(world: World, strata: Codes, random: Random, stored: bool) -> PairComparison:
    """One simulated pair, compared as compare does."""
    key, (one, other) = simulate_utilities(world, strata, random)
    runs = [
        make_run(name, strata, key, values, stored and not world.mixture)
        for name, values in (("first", one), ("second", other))
    ]
    overlap = frozenset(runs[0].frame["question_id"][::9]) if len(strata) >= 90 else frozenset()
    return compare_pair(runs[0], runs[1], ComparisonSettings(sizes=full_sizes(), overlap=overlap))


def draw_truths(name: str, random: Random, number: int) -> dict[str, list[float]]:
    """What the intervals should cover, from ``number`` times KMMLU's questions: their values, to be
    averaged.
    """
    strata, world = make_strata(0), WORLDS[name]
    values: dict[str, list[float]] = defaultdict(list)
    for _ in range(number):
        for stored in (False,) if world.mixture else (True, False):
            pair = simulate_pair(world, strata, random, stored)
            for interval, (value, _, _) in list_intervals(pair).items():
                values[interval].append(value)
    return dict(values)


def count_tuned_claims(name: str, n: int, random: Random, number: int, truth: Mapping[str, float]) -> Claims:
    """Claims made, and intervals that hold the ``truth``, in ``number`` pairs."""
    if name == "collapse":
        return {"type_one": {"collapse": [_claims_collapse(random, n or 35_030) for _ in range(number)]}}
    if name == "margin":
        return {"type_one": {"equal": [_claims_equal(random, n or 35_030) for _ in range(number)]}}
    if name == "many":
        return {"type_one": {"better, best of 5": [_claims_best(random, n) for _ in range(number)]}}
    made: Claims = defaultdict(lambda: defaultdict(list))
    for turn in range(number):
        pair = simulate_pair(WORLDS[name], make_strata(n), random, turn % 2 == 0)
        for claim, is_made in list_claims(pair).items():
            kind, where = _judge_claim(name, claim)
            if kind:
                made[kind][where].append(is_made)
        for interval, (_, low, high) in list_intervals(pair).items():
            if interval in truth and (name == "gain" or "mixture" in interval):
                where = interval if name == "gain" else f"{interval}, {name} world"
                made["coverage"][where].append(low <= truth[interval] <= high)
    return {kind: dict(claims) for kind, claims in made.items()}


def _judge_claim(world: str, claim: str) -> tuple[str | None, str]:
    """The kind and name under which a claim counts there; None if it may be right or wrong."""
    if world in ("null", "gain"):
        return ("type_one" if world == "null" else "power"), claim
    if claim.startswith(("remaining", "hidden")):  # the gain is letter habit alone
        return "type_one", f"{claim}, {world} world"
    return None, claim


def _claims_collapse(random: Random, n: int) -> bool:
    """Whether two runs that give D to exactly 60 % of the questions in expectation are said to."""
    strata, key = np.arange(n) % 45, random.choice(4, size=n, p=KEY)
    runs = []
    for name in ("first", "second"):
        letters = np.where(random.random(n) < COLLAPSE, 3, random.integers(0, 3, n))
        runs.append(make_run(name, strata, key, np.eye(4)[letters], False))
    pair = compare_pair(runs[0], runs[1], ComparisonSettings())
    return bool(letter_collapse_lines(pair, get_translator("en")))


def _claims_equal(random: Random, n: int) -> bool:
    """Whether "equal within the margin" is said if the true difference is the margin (1 pp; changes 10 and
    9 %).
    """
    luck = random.random(n)
    first, second = (luck < 0.09) | (luck > 0.6), (luck >= 0.09) & (luck < 0.19) | (luck > 0.6)
    subjects = np.asarray(list(SUBJECTS))[np.arange(n) % 45]
    pairs = pl.DataFrame({"subject": subjects, "supercategory": "STEM", "first": first, "second": second})
    difference = micro_difference(subject_counts(pairs))
    return not difference.significant and difference.within(0.01)


def _claims_best(random: Random, n: int) -> bool:
    """Whether any of five adapters that change nothing is said to be better or worse than one base."""
    strata = make_strata(n)
    key, common = random.choice(4, size=len(strata), p=KEY), random.normal(size=(len(strata), 4))
    runs = []
    for place in range(6):
        values = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * random.normal(size=(len(strata), 4))
        values[np.arange(len(strata)), key] += 1.0
        runs.append(make_run(str(place), strata, key, values, False))
    pairs = adjust_pair_p_values(
        [compare_pair(runs[0], other, ComparisonSettings(sizes=full_sizes())) for other in runs[1:]]
    )
    return any(pair.significant for pair in pairs)
