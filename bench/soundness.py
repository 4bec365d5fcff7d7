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
    many      five adapters that change nothing, in one command
    commands  six adapters that change nothing, one command after the other, early and full in turn

the worlds of ``bench.form_worlds`` (written form, letter habit, both, neither, knowledge) and of
``bench.sample_worlds`` (samples of each question: coverage of avg@k for other and for the same questions),

and worlds that nobody tuned to, on the real keys, subjects and overlap list if they are at hand:

    sharpened, cooled     the second run's log-probabilities, times 1.8 or 0.6; nothing else
    subject habit         the second run learned each subject's own key shares
    kind habit            the second run avoids A on a quarter of the questions
    near perfect          both runs at 99 %
    uniform gain          all questions alike; no leak
    subject gain          a gain in the subjects with most overlap; no leak
    half unread           half of the first run's answers could not be read; nothing else
    one big subject       nine tenths of the questions are of one subject
    repeated              every question is asked four times
    copies                a base model and its six adapters as witnesses against the key
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, table
from bench.form_worlds import FALSE_FORM_CLAIMS, FORM_WORLDS, TRUE_FORM_CLAIMS, run_form_task
from bench.sample_worlds import SAMPLE_WORLDS, measure_coverage
from kmmlu_fast.analysis.base_comparisons import adjust_pair_p_values
from kmmlu_fast.analysis.comparison import PairComparison, compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.key_audit import audit_key
from kmmlu_fast.analysis.paired import ALPHA, mcnemar_midp
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


FOREIGN = (
    *("sharpened", "cooled", "subject habit", "kind habit", "near perfect"),
    *("uniform gain", "subject gain", "half unread", "one big subject", "repeated"),
)
# Claims that would be false there, by world
FALSE_CLAIMS = {
    **dict.fromkeys(FOREIGN, ("overlap gap",)),
    "sharpened": ("micro", "overlap gap", "log score", "remaining", "hidden"),
    "cooled": ("micro", "overlap gap", "log score", "remaining", "hidden"),
    "subject habit": ("overlap gap", "remaining", "hidden"),
    "near perfect": ("micro", "overlap gap", "hidden"),
    "half unread": ("overlap gap", "log score", "remaining", "hidden"),
    "one big subject": ("micro", "overlap gap", "hidden"),
    "repeated": ("micro", "subject changes", "hidden", "log score"),
}
CONDITIONAL = {
    "kind habit": ("remaining", "hidden")
}  # said under an assumption that is false there: shown only
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
    quick: bool = Field(
        False, description="fewer and smaller pairs: a check of a minute or two, not a record"
    )
    kmmlu: Path = Field(Path("../shared/kmmlu"), description="KMMLU's files, for the real keys and overlap")
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


@cache
def real_questions(folder: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]] | None:
    """Subject, key and overlap of KMMLU's test questions; None without its files."""
    if not Path(folder).is_dir():
        return None
    from kmmlu_fast.contamination.overlap import overlap_ids
    from kmmlu_fast.data.dataset import read_frame

    frame = read_frame(folder, "test").log_and_unwrap()
    places = {name: place for place, name in enumerate(SUBJECTS)}
    subjects = frame["subject"].replace_strict(places, return_dtype=pl.Int64).to_numpy()
    key = frame["answer"].replace_strict(dict(zip(LETTERS, range(4), strict=True)), return_dtype=pl.Int64)
    return subjects, key.to_numpy(), frame["question_id"].is_in(overlap_ids(folder, "test")).to_numpy()


def drawn_questions(
    n: int, folder: str, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """``n`` of the real questions, an equal number a subject (0: all); invented ones without the files."""
    real = real_questions(folder)
    if real is None:
        strata = strata_of(n)
        return strata, random.choice(4, size=len(strata), p=KEY), random.random(len(strata)) < 0.11
    if n == 0:
        return real
    rows = [random.choice(np.flatnonzero(real[0] == h), n // 45, replace=False) for h in range(45)]
    chosen = np.concatenate(rows)
    return real[0][chosen], real[1][chosen], real[2][chosen]


def simulate_foreign(
    name: str, n: int, folder: str, random: np.random.Generator, stored: bool
) -> PairComparison:
    """One pair of a world that nothing was tuned to."""
    strata, key, overlaps = drawn_questions(n, folder, random)
    if name == "one big subject":
        strata = np.where(random.random(len(strata)) < 0.9, 0, strata)
    copies = 4 if name == "repeated" else 1
    count = len(key)
    common = random.normal(size=(count, 4))
    values = [SHARED**0.5 * common + (1 - SHARED) ** 0.5 * random.normal(size=(count, 4)) for _ in range(2)]
    strength = np.full(count, 6.0) if name == "near perfect" else 1.0 + subject_effects()[strata]
    for one in values:
        one[np.arange(count), key] += strength
    second = values[1]
    if name == "uniform gain":
        second[np.arange(count), key] += 0.15
    if name == "subject gain":
        share = np.bincount(strata, overlaps, 45) / np.maximum(np.bincount(strata, minlength=45), 1)
        second[np.arange(count), key] += 0.3 * (share > np.quantile(share, 0.8))[strata]
    if name == "subject habit":
        real = real_questions(folder)
        subjects, keys = (strata, key) if real is None else real[:2]
        shares = np.zeros((45, 4))
        np.add.at(shares, (subjects, keys), 1.0)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1.0)
        second += 2.0 * (shares - 0.25)[strata]
    if name == "kind habit":
        second[:, 0] -= 1.8 * (np.arange(count) % 4 == 0)
    scale = {"sharpened": 1.8, "cooled": 0.6}.get(name, 1.0)
    rows = np.tile(np.arange(count), copies)
    runs = [
        as_run(label, strata[rows], key[rows], one[rows], stored)
        for label, one in (("first", values[0]), ("second", scale * second))
    ]
    if name == "half unread":
        lost = random.random(len(rows)) < 0.5
        frame = runs[0].frame.with_columns(
            pl.when(pl.Series(lost)).then(None).otherwise("prediction").alias("prediction"),
            (pl.col("correct") & ~pl.Series(lost)).alias("correct"),
        )
        runs[0] = replace(runs[0], predictions=frame, scores=count_subject_scores(frame))
    if copies > 1:
        digests = pl.Series("prompt_digest", [f"{row:016x}" for row in rows])
        runs = [replace(run, predictions=run.frame.with_columns(digests)) for run in runs]
    listed = frozenset(runs[0].frame["question_id"].filter(pl.Series(overlaps[rows])))
    sizes = {} if name in ("one big subject", "repeated") else full_sizes()
    return compare_pair(runs[0], runs[1], ComparisonSettings(sizes=sizes, overlap=listed))


def foreign_task(name: str, n: int, seed: int, number: int, folder: str) -> dict[str, list[bool]]:
    """Claims made in ``number`` pairs of a foreign world."""
    random = np.random.default_rng([seed, n, *name.encode()])
    claims: dict[str, list[bool]] = defaultdict(list)
    for turn in range(number):
        pair = simulate_foreign(name, n, folder, random, turn % 2 == 0)
        for claim, made in said(pair).items():
            if claim.startswith((*FALSE_CLAIMS[name], *CONDITIONAL.get(name, ()))):
                claims[claim].append(made)
    return dict(claims)


def commands_task(n: int, seed: int, number: int) -> list[bool]:
    """Six null adapters in six commands, full and early in turn: whether any was called better or worse."""
    from kmmlu_fast.analysis.error_spending import make_ledgers, next_level
    from kmmlu_fast.analysis.sequential.control_variate import KnownQuestions, paired_stream
    from kmmlu_fast.analysis.sequential.like_population import decide_like
    from kmmlu_fast.runs.comparison_log import LoggedComparison, log_comparisons

    random = np.random.default_rng([seed, n, 7])
    made = []
    for _ in range(number):
        key, common = random.choice(4, size=n, p=KEY), random.normal(size=(n, 4))

        def answered(key: NDArray[np.int64] = key, common: Floats = common) -> NDArray[np.bool_]:
            values = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * random.normal(size=(n, 4))
            values[np.arange(n), key] += 1.0
            return np.asarray(values.argmax(axis=1) == key)

        base, any_claim = answered(), False
        with tempfile.TemporaryDirectory() as folder:
            for place in range(6):
                other = answered()
                blank = LoggedComparison(
                    adapter=str(place), name=str(place), time_utc="", questions=n, p_value=None
                )
                if place % 2:
                    entry = replace(blank, kind="early")
                    log = log_comparisons(Path(folder), [entry], next_level)
                    level = make_ledgers(log, {"now": entry})["now"].level
                    stream = paired_stream(base, other, KnownQuestions(n, key=key))
                    decision = decide_like(stream, level, 0.01)
                    any_claim |= decision.verdict in ("better", "worse")
                    entry = replace(entry, p_value=decision.p_value)
                    log_comparisons(Path(folder), [entry], next_level)
                    continue
                b, c = int((base & ~other).sum()), int((~base & other).sum())
                entry = replace(blank, p_value=float(mcnemar_midp(b, c)))
                log = log_comparisons(Path(folder), [entry], next_level)
                any_claim |= make_ledgers(log, {"now": entry})["now"].corrected_p_value < ALPHA
        made.append(any_claim)
    return made


def copies_task(seed: int) -> float:
    """Questions whose key is doubted by a base model and its six adapters: copies are no witnesses."""
    random = np.random.default_rng([seed, 11])
    strata = strata_of(2_250)
    key, common = random.choice(4, size=len(strata), p=KEY), random.normal(size=(len(strata), 4))
    runs = []
    for place in range(7):
        values = 0.95**0.5 * common + 0.05**0.5 * random.normal(size=(len(strata), 4))
        values[np.arange(len(strata)), key] += 1.0
        run = as_run(f"r{place}", strata, key, values, False)
        runs.append(
            replace(run, facts={"model": "owner/base", "adapter_digest": str(place) if place else None})
        )
    audit = audit_key(runs)
    return float(len(audit.against_key)) if audit else 0.0


def measure_foreign(config: SoundnessConfig, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """All worlds that nobody tuned to: shares of false claims by world and size, and whether they are within
    5 % plus two standard errors.
    """
    number = config.simulated // 5
    folder = str(config.kmmlu)
    if real_questions(folder) is None:
        note(f"{folder} has no KMMLU files: keys and overlap are invented")
    sizes = [size for size in config.sizes if size == 0 or size >= 225]
    jobs = {
        (name, n): pool.submit(
            foreign_task, name, n, config.seed, max(20, int(number * (FULL_SHARE if n == 0 else 1))), folder
        )
        for name in FOREIGN
        for n in sizes
    }
    repeats = max(100, config.simulated // 2)
    commands = {n: pool.submit(commands_task, n, config.seed, repeats) for n in sizes if n and n <= 2_250}
    shares: dict[str, dict[str, float]] = defaultdict(dict)
    conditional: dict[str, dict[str, float]] = defaultdict(dict)
    within = True
    for (name, n), future in jobs.items():
        for claim, made in future.result().items():
            share, where = float(np.mean(made)), f"{claim}, {name}"
            if claim.startswith(CONDITIONAL.get(name, ("-",))):
                conditional[where][str(n or 35_030)] = round(share, 4)
                continue
            shares[where][str(n or 35_030)] = round(share, 4)
            bound = 0.05 + 2 * (0.05 * 0.95 / len(made)) ** 0.5
            if share > bound:
                within = False
                note(f"{where}, {n or 35_030} questions: {share:.3f} > {bound:.3f}")
        note(f"{name}, {n or 'all'} questions")
    for n, waiting in commands.items():
        made = waiting.result()
        shares["better or worse, six commands"][str(n)] = round(float(np.mean(made)), 4)
        within &= float(np.mean(made)) <= 0.05 + 2 * (0.05 * 0.95 / len(made)) ** 0.5
    doubted = copies_task(config.seed)
    return {
        "foreign": shares,
        "conditional": conditional,
        "copies_doubted": doubted,
        "foreign_within": bool(within and doubted == 0),
    }


def measure_forms(config: SoundnessConfig, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Worlds with and without a change of written form: shares of false and of true claims by cause, and
    whether the false ones are within 5 % plus two standard errors.
    """
    number = max(20, config.simulated // 5)
    sizes = [size for size in config.sizes if 225 <= size <= 2_250]
    jobs = {
        (name, n): pool.submit(run_form_task, name, n, config.seed, number)
        for name in FORM_WORLDS
        for n in sizes
    }
    false: dict[str, dict[str, float]] = defaultdict(dict)
    power: dict[str, dict[str, float]] = defaultdict(dict)
    for (name, n), future in jobs.items():
        for claim, share in future.result().items():
            if claim in FALSE_FORM_CLAIMS[name]:
                false[f"{claim}, {name} world"][str(n)] = share
            elif claim in TRUE_FORM_CLAIMS.get(name, ()):
                power[f"{claim}, {name} world"][str(n)] = share
        note(f"form worlds: {name}, {n} questions")
    bound = 0.05 + 2 * (0.05 * 0.95 / number) ** 0.5
    within = all(share <= bound for shares in false.values() for share in shares.values())
    return {"forms": false, "forms_power": power, "forms_within": within}


def measure_samples(config: SoundnessConfig, pool: ProcessPoolExecutor) -> dict[str, dict[str, float]]:
    """Coverage of avg@8's two intervals, by world and size."""
    sizes = [n for n in config.sizes if n]
    jobs = {
        (name, n): pool.submit(measure_coverage, name, n, 8, config.seed, config.simulated)
        for name in SAMPLE_WORLDS
        for n in sizes
    }
    coverage: dict[str, dict[str, float]] = defaultdict(dict)
    for (name, n), future in jobs.items():
        for of, share in zip(("other questions", "the same questions"), future.result(), strict=True):
            coverage[f"avg@8, {of}, {name} world"][str(n)] = round(share, 4)
    return coverage


def measure(config: SoundnessConfig) -> dict[str, Any]:
    """All worlds and sizes; shares by sentence or interval, and n."""
    jobs = []
    for name, n in itertools.product([*WORLDS, "collapse", "margin", "many"], config.sizes):
        number = max(1, int(config.simulated * (FULL_SHARE if n == 0 else 1.0)))
        number = max(1, number // 4) if name == "many" else number
        jobs.append((name, n, number))
    results = {}
    foreign: dict[str, Any] = {}
    forms: dict[str, Any] = {}
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
        foreign = measure_foreign(config, pool)
        forms = measure_forms(config, pool)
        sampled = measure_samples(config, pool)
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
    coverage |= sampled
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
        **foreign,
        **forms,
        "simulated": config.simulated,
    }


def main(argv: list[str] | None = None) -> int:
    def body() -> None:
        config = parse_config(SoundnessConfig, argv, "python -m bench.soundness")
        if config.quick:
            config = config.model_copy(update={"simulated": 100, "truth_pairs": 4, "sizes": [225, 2_250]})
        result = measure(config)
        sizes = [str(size or 35_030) for size in config.sizes]
        shown = []
        for kind, title in (
            ("type_one", "Type-I error"),
            ("coverage", "Coverage of 95 % intervals"),
            ("power", "Power"),
            ("foreign", "False claims in worlds that nothing was tuned to"),
            ("conditional", "Claims made under an assumption that is false there"),
            ("forms", "False claims of form, letter habit or the rest"),
            ("forms_power", "Form, letter habit and the rest where they are the cause"),
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
