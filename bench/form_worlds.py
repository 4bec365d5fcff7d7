"""Is a change of written form told from letter habit and knowledge? Simulated pairs with known causes.

In: a world, a number of questions and of pairs, a random generator. Out: false and true claims of a cause,
pair by pair, for ``bench.soundness``. No model, no data set.

A run knows what it would answer (utilities: noise, strength on the key, pull on letters), and it writes the
letter as " A" or as "A". The form that it writes shows those utilities; the other form shows a second draw
with the same strength, or (``blurred``) with a third of it: what is scored in a form that a model does not
write is noisier than what it would answer. " A" is scored. The second run may have learned to write it.

    neither     the second run writes the scored form; nothing else differs, and both forms read alike
    form        the same, and the form that a run does not write is blurred: all of the gain is form
    habit       as ``neither``, and the pull on the letters differs
    both        as ``form``, and the pull on the letters differs
    knowledge   as ``neither``, and the strength differs: the rest
    still       both runs write "A", " A" is blurred, and the pull on the letters differs: no change of form
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import polars as pl

from bench.simulated_runs import KEY, SHARED, Codes, Floats, make_answers, wrap_answers
from bench.tuned_worlds import Claims
from kmmlu_fast.analysis.comparison import PairComparison, compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.core.schema import LOGPROB_COLUMNS
from kmmlu_fast.reporting.wording.form_text import classify_letter_form, habit_pair
from kmmlu_fast.reporting.wording.letter_habit import classify_letter_prior
from kmmlu_fast.runs.run import Run

WRITTEN, UNWRITTEN = 0.83, 0.03  # mass on the letters in the form that a run writes, and in the other
FORM_CLAIMS = ("all_form", "partly_form", "reversed_form", "hidden_form")
HABIT_CLAIMS = ("all_prior", "partly_prior")
REST_CLAIMS = ("not_prior", "partly_prior", "reversed", "hidden")


@dataclass(frozen=True)
class FormWorld:
    """``pull`` (on A) and ``strength`` of both runs; ``learns``: the second run writes the scored form."""

    pull: tuple[float, float] = (0.0, 0.0)
    strength: tuple[float, float] = (1.0, 1.0)
    blurred: bool = False
    learns: bool = True


FORM_WORLDS = {
    "neither": FormWorld(),
    "form": FormWorld(blurred=True),
    "habit": FormWorld(pull=(1.2, -0.6)),
    "both": FormWorld(pull=(1.2, -0.6), blurred=True),
    "knowledge": FormWorld(strength=(0.9, 1.2)),
    "still": FormWorld(pull=(1.2, -0.6), blurred=True, learns=False),
}
FALSE_FORM_CLAIMS = {
    "neither": ("form", "habit", "rest"),
    "form": ("habit", "rest"),
    "habit": ("form", "rest"),
    "both": ("rest",),
    "knowledge": ("form", "habit"),
    "still": ("form", "rest"),
}
TRUE_FORM_CLAIMS = {"form": ("form",), "habit": ("habit",), "both": ("form",), "knowledge": ("rest",)}


def simulate_form_pair(world: FormWorld, n: int, random: np.random.Generator) -> PairComparison:
    """One pair of ``n`` questions, an equal number per subject, compared as compare does."""
    strata = np.repeat(np.arange(45), n // 45)
    key = random.choice(4, size=len(strata), p=KEY)
    common = [random.normal(size=(len(key), 4)) for _ in range(2)]
    runs = []
    for place in range(2):
        writes_scored = place == 1 and world.learns
        drawn = []
        for form, strength in enumerate((1.0, 0.33 if world.blurred else 1.0)):
            own = random.normal(size=(len(key), 4))
            values = SHARED**0.5 * common[form] + (1 - SHARED) ** 0.5 * own
            values[np.arange(len(key)), key] += world.strength[place] * strength
            values[:, 0] += world.pull[place]
            drawn.append(values)
        written, other = _with_mass(drawn[0], WRITTEN), _with_mass(drawn[1], UNWRITTEN)
        spaced, bare = (written, other) if writes_scored else (other, written)
        runs.append(make_form_run(("first", "second")[place], strata, key, spaced, bare))
    return compare_pair(runs[0], runs[1], ComparisonSettings())


def _with_mass(utilities: Floats, mass: float) -> Floats:
    top = utilities - utilities.max(axis=1, keepdims=True)
    return np.asarray(top - np.log(np.exp(top).sum(axis=1, keepdims=True)) + np.log(mass))


def make_form_run(name: str, strata: Codes, key: Codes, spaced: Floats, bare: Floats) -> Run:
    """A run that scored the spaced letters."""
    frame = make_answers(strata, key, spaced).with_columns(
        *(pl.Series(column, spaced[:, i]) for i, column in enumerate(LOGPROB_COLUMNS)),
        pl.Series("spaced_logprobs", spaced.tolist()),
        pl.Series("bare_logprobs", bare.tolist()),
        pl.Series("spaced_mass", np.exp(spaced).sum(axis=1)),
        pl.Series("bare_mass", np.exp(bare).sum(axis=1)),
    )
    return wrap_answers(name, frame)


def form_claims(pair: PairComparison) -> dict[str, bool]:
    """Which of form, letter habit and the rest the verdict names as a cause."""
    spoken_of = habit_pair(pair)
    habit = classify_letter_prior(spoken_of) if spoken_of else None
    return {
        "form": classify_letter_form(pair) in FORM_CLAIMS,
        "habit": habit in HABIT_CLAIMS,
        "rest": habit in REST_CLAIMS,
    }


def count_form_claims(name: str, n: int, random: np.random.Generator, number: int) -> Claims:
    """False and true claims of a cause in ``number`` pairs."""
    made: Claims = defaultdict(lambda: defaultdict(list))
    for _ in range(number):
        for claim, is_made in form_claims(simulate_form_pair(FORM_WORLDS[name], n, random)).items():
            if claim in FALSE_FORM_CLAIMS[name]:
                made["forms"][f"{claim}, {name} world"].append(is_made)
            elif claim in TRUE_FORM_CLAIMS.get(name, ()):
                made["forms_power"][f"{claim}, {name} world"].append(is_made)
    return {kind: dict(claims) for kind, claims in made.items()}
