"""Are the sentences true? Type-I error of every claim, coverage of every interval, power of planted effects,
by simulation.

In: a seed and a number of simulated pairs. Out: tables, and one JSON line last with ``type_one`` {sentence:
{n: share}}, ``coverage`` {interval: {n: share}}, ``power`` {effect: {n: share}}. Seeded; minutes on two
cores. No model, no data set.

A simulated run answers the option of the highest utility: noise (partly shared by both runs, as two states
of one model share it), a strength on the key that differs by subject, and a pull on letters. Its utilities
are its log-probabilities. Worlds:

    null      both runs are draws of one model
    prior     only the pull on the letters differs: a gain that is letter habit and nothing else
    gain      strength and pull differ
    mixture   as ``prior`` for runs that know a share and guess the rest by habit; letters only
    margin    the difference is exactly the margin within which runs are called equal
    collapse  one letter is given to exactly the share from which a run is said to hardly read
"""

from __future__ import annotations

import itertools
import os
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, table
from kmmlu_fast.analysis.comparison import (
    ComparisonSettings,
    PairComparison,
    adjust_pair_p_values,
    compare_pair,
)
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.letter_habit import COLLAPSE, classify_letter_prior, letter_collapse_lines
from kmmlu_fast.runs.run import Run, count_subject_scores, fill_prediction_columns
from kmmlu_fast.sampling.weakness import read_subject_prior

Floats = NDArray[np.float64]
SIZES = (45, 90, 225, 450, 2_250, 0)  # questions; 0 = all 35,030
KEY = np.array([0.1, 0.3, 0.3, 0.3])
SHARED = 0.8  # of the noise's variance that both runs have in common
FULL_SHARE = 0.1  # of the replicates that full-size worlds get: they take a hundred times as long
CLAIMS = ("not_prior", "partly_prior", "reversed")


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


class SoundnessConfig(BenchConfig):
    """python -m bench.soundness: type-I error, coverage and power of what compare says, by simulation."""

    simulated: PositiveInt = Field(1000, description="simulated pairs a world and size (full size: a tenth)")
    seed: int = Field(0, description="seed of the simulation")
    sizes: list[int] = Field(list(SIZES), description="questions of a run; 0 = all 35,030")
    truth_pairs: PositiveInt = Field(
        40, description="full-size pairs whose mean is what an interval should cover"
    )
    jobs: int = Field(0, ge=0, description="processes; 0 = as many as cores")


@cache
def full_sizes() -> dict[str, int]:
    return read_subject_prior().questions


@cache
def subject_effects() -> Floats:
    """How much easier each subject is, in utility: fixed, not part of what varies."""
    return np.random.default_rng(1).normal(0, 0.35, len(SUBJECTS))


def strata_of(n: int) -> NDArray[np.int64]:
    """Each question's subject: an equal number a subject, or all of them."""
    if n == 0:
        return np.repeat(np.arange(45), [full_sizes()[name] for name in SUBJECTS])
    return np.repeat(np.arange(45), n // 45)


def answers(
    world: World, strata: NDArray[np.int64], random: np.random.Generator
) -> tuple[NDArray[np.int64], list[Floats]]:
    """The key, and both runs' utilities (n, 4)."""
    n = len(strata)
    key = random.choice(4, size=n, p=KEY)
    rows, common = np.arange(n), random.normal(size=(n, 4))
    luck = random.random(n)
    found = []
    for strength, pull in zip(world.strength, world.pull, strict=True):
        values = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * random.normal(size=(n, 4))
        values[:, 0] += pull
        if world.mixture:
            own = np.where(random.random(n) < SHARED, luck, random.random(n))
            values[rows, key] += 9.0 * (own < 0.4 + 0.2 * subject_effects()[strata])
        else:
            values[rows, key] += strength + subject_effects()[strata]
        found.append(values)
    return key, found


def as_run(name: str, strata: NDArray[np.int64], key: NDArray[np.int64], values: Floats, stored: bool) -> Run:
    """Utilities as a run's predictions, with log-probabilities where ``stored``."""
    names, groups = list(SUBJECTS), [subject.supercategory for subject in SUBJECTS.values()]
    top = values - values.max(axis=1, keepdims=True)
    logprobs = top - np.log(np.exp(top).sum(axis=1, keepdims=True))
    predicted = np.asarray(LETTERS)[values.argmax(axis=1)]
    answer = np.asarray(LETTERS)[key]
    frame = pl.DataFrame(
        {"answer": answer, "prediction": predicted, "correct": answer == predicted}
    ).with_columns(
        pl.Series("subject", np.asarray(names)[strata]),
        pl.Series("supercategory", np.asarray(groups)[strata]),
        pl.Series("question_id", [f"{names[h]}/test/{i}" for i, h in enumerate(strata)]),
        pl.lit("test").alias("split"),
        *([pl.Series(column, logprobs[:, i]) for i, column in enumerate(LOGPROB_COLUMNS)] if stored else []),
    )
    frame = fill_prediction_columns(frame)
    return Run(
        name=name,
        kind="run",
        source=name,
        predictions=frame,
        scores=count_subject_scores(frame),
        facts={"prompt_style": "simulated"},
    )


def intervals(pair: PairComparison) -> dict[str, tuple[float, float, float]]:
    """Every interval of a comparison: (value, low, high)."""
    found = {"micro": pair.micro, "macro": pair.macro}
    parts: dict[str, Any] = {name: (part.difference, part.low, part.high) for name, part in found.items()}
    assert pair.letters is not None  # four options
    for split in pair.letters.splits:
        for name in ("letter_prior", "remaining"):
            part = getattr(split, name)
            parts[f"{name} ({split.model})"] = (part.value, part.low, part.high)
    if pair.letters.by_subject is not None:
        own = pair.letters.by_subject
        parts["remaining (each subject's habit)"] = (own.value, own.low, own.high)
    for endpoint in pair.endpoints:
        parts[endpoint.name] = (endpoint.difference, endpoint.low, endpoint.high)
    if pair.overlap_gap is not None:
        parts["overlap gap"] = (pair.overlap_gap.value, pair.overlap_gap.low, pair.overlap_gap.high)
    return parts


def truths(name: str, number: int) -> dict[str, float]:
    """What the intervals should cover: the mean over ``number`` times KMMLU's questions. The overlap is
    drawn at random: its gap is 0.
    """
    random = np.random.default_rng([2, *name.encode()])
    strata = strata_of(0)
    sums: dict[str, list[float]] = defaultdict(list)
    for _ in range(number):
        for stored in (False,) if WORLDS[name].mixture else (True, False):
            for interval, (value, _, _) in intervals(simulate(WORLDS[name], strata, random, stored)).items():
                sums[interval].append(value)
    return {interval: float(np.mean(values)) for interval, values in sums.items()} | {"overlap gap": 0.0}


def simulate(
    world: World, strata: NDArray[np.int64], random: np.random.Generator, stored: bool
) -> PairComparison:
    """One simulated pair, compared as compare does."""
    key, (one, other) = answers(world, strata, random)
    runs = [
        as_run(name, strata, key, values, stored and not world.mixture)
        for name, values in (("first", one), ("second", other))
    ]
    overlap = frozenset(runs[0].frame["question_id"][::9]) if len(strata) >= 90 else frozenset()
    return compare_pair(runs[0], runs[1], ComparisonSettings(sizes=full_sizes(), overlap=overlap))


def task(name: str, n: int, seed: int, number: int, truth: dict[str, float]) -> dict[str, Any]:
    """``number`` pairs of one world and size: claims made (type I or power), and intervals that cover their
    ``truth``.
    """
    random = np.random.default_rng([seed, n, *name.encode()])
    claims: dict[str, list[bool]] = defaultdict(list)
    covered: dict[str, list[bool]] = defaultdict(list)
    strata = strata_of(n)
    if name == "collapse":
        return {"claims": {"collapse": _collapse_claims(random, n or 35_030, number)}, "covered": {}}
    if name == "margin":
        return {"claims": {"equal": _equal_claims(random, n or 35_030, number)}, "covered": {}}
    if name == "many":
        return {
            "claims": {"better, best of 5": [_best_of(random, strata) for _ in range(number)]},
            "covered": {},
        }
    world = WORLDS[name]
    for turn in range(number):
        pair = simulate(world, strata, random, turn % 2 == 0)
        for claim, made in said(pair).items():
            claims[claim].append(made)
        for interval, (_, low, high) in intervals(pair).items():
            if interval in truth:
                covered[interval].append(low <= truth[interval] <= high)
    return {"claims": dict(claims), "covered": dict(covered)}


def said(pair: PairComparison) -> dict[str, bool]:
    """Which claims the verdict makes."""
    assert pair.letters is not None  # four options
    meaning = classify_letter_prior(pair)
    kind = "log-probabilities" if pair.letters.method == "logprobs" else "letters"
    found = {
        "micro": pair.significant,
        "macro": pair.macro.significant,
        "opposite": pair.micro_macro_opposed,
        "subject changes": len(pair.changed_subjects()) > 0,
    }
    if pair.letters.splits:
        found |= {f"remaining ({kind})": meaning in CLAIMS, f"hidden ({kind})": meaning == "hidden"}
    if pair.endpoints:
        found["log score"] = pair.endpoints[0].better != 0
    if pair.overlap_gap is not None:
        found["overlap gap"] = pair.overlap_gap.significant
    return found


def _collapse_claims(random: np.random.Generator, n: int, number: int) -> list[bool]:
    """Runs that give D to exactly 60 % of the questions in expectation."""
    strata = np.arange(n) % 45
    made = []
    for _ in range(min(number, 400)):
        key = random.choice(4, size=n, p=KEY)
        values = [
            np.eye(4)[np.where(random.random(n) < COLLAPSE, 3, random.integers(0, 3, n))] for _ in range(2)
        ]
        runs = [
            as_run(name, strata, key, utility, False)
            for name, utility in zip(("first", "second"), values, strict=True)
        ]
        pair = compare_pair(runs[0], runs[1], ComparisonSettings())
        made.append(bool(letter_collapse_lines(pair, get_translator("en"))))
    return made


def _equal_claims(random: np.random.Generator, n: int, number: int) -> list[bool]:
    """Whether "equal within the margin" is said where the true difference is the margin (1 pp; changes 10
    and 9 %).
    """
    from kmmlu_fast.analysis.paired import micro_difference, subject_counts

    made = []
    for _ in range(min(number, 400)):
        luck = random.random(n)
        first, second = (luck < 0.09) | (luck > 0.6), (luck >= 0.09) & (luck < 0.19) | (luck > 0.6)
        subjects = np.asarray(list(SUBJECTS))[np.arange(n) % 45]
        pairs = pl.DataFrame({"subject": subjects, "supercategory": "STEM", "first": first, "second": second})
        found = micro_difference(subject_counts(pairs))
        made.append(not found.significant and found.within(0.01))
    return made


def _best_of(random: np.random.Generator, strata: NDArray[np.int64]) -> bool:
    """Five adapters that change nothing against one base: whether any is said to be better or worse."""
    n = len(strata)
    key, common = random.choice(4, size=n, p=KEY), random.normal(size=(n, 4))
    runs = []
    for place in range(6):
        values = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * random.normal(size=(n, 4))
        values[np.arange(n), key] += 1.0
        runs.append(as_run(str(place), strata, key, values, False))
    pairs = adjust_pair_p_values(
        [compare_pair(runs[0], other, ComparisonSettings(sizes=full_sizes())) for other in runs[1:]]
    )
    return any(pair.significant for pair in pairs)


def measure(config: SoundnessConfig) -> dict[str, Any]:
    """All worlds and sizes; shares by sentence or interval, and n."""
    jobs = []
    for name, n in itertools.product([*WORLDS, "collapse", "margin", "many"], config.sizes):
        number = max(1, int(config.simulated * (FULL_SHARE if n == 0 else 1.0)))
        number = max(1, number // 4) if name == "many" else number
        jobs.append((name, n, number))
    results = {}
    with ProcessPoolExecutor(config.jobs or len(os.sched_getaffinity(0))) as pool:
        known = {name: pool.submit(truths, name, config.truth_pairs) for name in ("gain", "mixture")}
        truth = {name: future.result() for name, future in known.items()}
        note(f"true values of {', '.join(truth)} from {config.truth_pairs} full-size pairs each")
        waiting = {
            job: pool.submit(task, job[0], job[1], config.seed, job[2], truth.get(job[0], {}))
            for job in sorted(jobs, key=lambda job: job[1] != 0)
        }
        for (name, n, number), future in waiting.items():
            results[name, n] = future.result()
            note(f"{name}, {n or 'all'} questions: {number} pairs")
    type_one: dict[str, dict[str, float]] = defaultdict(dict)
    coverage: dict[str, dict[str, float]] = defaultdict(dict)
    power: dict[str, dict[str, float]] = defaultdict(dict)
    errors: dict[str, dict[str, float]] = defaultdict(dict)  # standard errors of the type-I shares
    for name, n in results:
        size, claims, covered = str(n or 35_030), results[name, n]["claims"], results[name, n]["covered"]
        for claim, made in claims.items():
            about_letters = name in ("prior", "mixture") and claim.split(" ")[0] in ("remaining", "hidden")
            if name in ("null", "collapse", "margin", "many") or about_letters:
                key = f"{claim}, {name} world" if about_letters else claim
                type_one[key][size] = round(float(np.mean(made)), 4)
                errors[key][size] = (0.05 * 0.95 / len(made)) ** 0.5
            elif name == "gain":
                power[claim][size] = round(float(np.mean(made)), 4)
        for interval, inside in covered.items():
            if name == "gain" or (name == "mixture" and "mixture" in interval):
                coverage[f"{interval}, mixture world" if name == "mixture" else interval][size] = round(
                    float(np.mean(inside)), 4
                )
    within = all(
        share <= 0.05 + 2 * errors[claim][n]
        for claim, shares in type_one.items()
        for n, share in shares.items()
    )
    return {
        "type_one": type_one,
        "coverage": coverage,
        "power": power,
        "type_one_within": within,
        "simulated": config.simulated,
    }


def main(argv: list[str] | None = None) -> int:
    def body() -> None:
        config = parse_config(SoundnessConfig, argv, "python -m bench.soundness")
        result = measure(config)
        sizes = [str(size or 35_030) for size in config.sizes]
        shown = []
        for kind, title in (
            ("type_one", "Type-I error"),
            ("coverage", "Coverage of 95 % intervals"),
            ("power", "Power"),
        ):
            rows = [
                {"of": name, **{size: shares.get(size) for size in sizes}}
                for name, shares in result[kind].items()
            ]
            shown.append(table(title, rows))
        finish("soundness", config, argv, result, shown)

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
