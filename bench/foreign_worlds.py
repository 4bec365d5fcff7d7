"""Worlds that nothing was tuned to, for ``bench.soundness``: on the real keys, subjects and overlap list if
they are at hand.

    sharpened, cooled     the second run's log-probabilities, times 1.8 or 0.6; nothing else
    subject habit         the second run learned each subject's own key shares
    kind habit            the second run avoids A on a quarter of the questions
    near perfect          both runs at 99 %
    uniform gain          all questions alike; no leak
    subject gain          a gain in the subjects with most overlap; no leak
    half unread           half of the first run's answers could not be read; nothing else
    one big subject       nine tenths of the questions are of one subject
    repeated              every question is asked four times
    seeds                 three seeds of a recipe without effect, each 1 pp up or down by luck, and alike
    copies                a base model and its six adapters as witnesses against the key
    commands              six adapters that change nothing, one command after the other, early and full in
                          turn

In: a world, a number of questions and of pairs, a random generator. Out: claims made and truths held, pair
by pair, by kind (``foreign``, ``foreign_coverage``, ``conditional``) and name.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.simulated_runs import (
    KEY,
    SHARED,
    Codes,
    full_sizes,
    list_claims,
    list_intervals,
    make_run,
    make_strata,
    subject_effects,
)
from bench.tuned_worlds import Claims, Random
from kmmlu_fast.analysis.comparison import PairComparison, compare_pair
from kmmlu_fast.analysis.error_spending import make_ledgers, next_level
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.key_audit import audit_key
from kmmlu_fast.analysis.paired import ALPHA, mcnemar_midp
from kmmlu_fast.analysis.recipes import recipe_effect
from kmmlu_fast.analysis.sequential.control_variate import KnownQuestions, paired_stream
from kmmlu_fast.analysis.sequential.like_population import decide_like
from kmmlu_fast.contamination.overlap import overlap_ids
from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.data.dataset import read_frame
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.runs.comparison_log import LoggedComparison, log_comparisons
from kmmlu_fast.runs.run import count_subject_scores

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
# Said under an assumption that is false there: shown, not judged
CONDITIONAL = {"kind habit": ("remaining", "hidden")}
UNCHANGED = ("sharpened", "cooled", "near perfect", "one big subject", "repeated")  # no difference to find
Questions = tuple[Codes, Codes, NDArray[np.bool_]]  # subject, key, whether it overlaps with train


@cache
def real_questions(folder: str) -> Questions | None:
    """KMMLU's test questions; None without its files."""
    if not Path(folder).is_dir():
        return None
    frame = read_frame(folder, "test").log_and_unwrap()
    places = {name: place for place, name in enumerate(SUBJECTS)}
    subjects = frame["subject"].replace_strict(places, return_dtype=pl.Int64).to_numpy()
    key = frame["answer"].replace_strict(dict(zip(LETTERS, range(4), strict=True)), return_dtype=pl.Int64)
    return subjects, key.to_numpy(), frame["question_id"].is_in(overlap_ids(folder, "test")).to_numpy()


def draw_questions(n: int, folder: str, random: Random) -> Questions:
    """``n`` of the real questions, an equal number a subject (0: all); invented ones without the files."""
    real = real_questions(folder)
    if real is None:
        strata = make_strata(n)
        return strata, random.choice(4, size=len(strata), p=KEY), random.random(len(strata)) < 0.11
    if n == 0:
        return real
    rows = [random.choice(np.flatnonzero(real[0] == h), n // 45, replace=False) for h in range(45)]
    chosen = np.concatenate(rows)
    return real[0][chosen], real[1][chosen], real[2][chosen]


def simulate_foreign(name: str, n: int, folder: str, random: Random, stored: bool) -> PairComparison:
    """One pair of a world that nothing was tuned to."""
    strata, key, overlaps = draw_questions(n, folder, random)
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
        make_run(label, strata[rows], key[rows], one[rows], stored)
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


def count_foreign_claims(name: str, n: int, random: Random, number: int, folder: str) -> Claims:
    """Claims made, and intervals that hold the truth if it is 0, in ``number`` pairs."""
    made: Claims = defaultdict(lambda: defaultdict(list))
    for turn in range(number):
        pair = simulate_foreign(name, n, folder, random, turn % 2 == 0)
        for claim, is_made in list_claims(pair).items():
            if claim.startswith(FALSE_CLAIMS[name]):
                made["foreign"][f"{claim}, {name}"].append(is_made)
            elif claim.startswith(CONDITIONAL.get(name, ("-",))):
                made["conditional"][f"{claim}, {name}"].append(is_made)
        zero = ("micro", "macro", "overlap gap") if name in UNCHANGED else ("overlap gap",)
        for interval, (_, low, high) in list_intervals(pair).items():
            if interval in zero:
                made["foreign_coverage"][f"{interval}, {name}"].append(low <= 0.0 <= high)
    return {kind: dict(claims) for kind, claims in made.items()}


def count_seed_claims(n: int, random: Random, number: int) -> Claims:
    """Three seeds of a recipe that has no effect: each seed moves the strength on the key by chance (about
    1 pp), or not at all.
    """
    made: Claims = defaultdict(lambda: defaultdict(list))
    strata = make_strata(n)
    for turn in range(number):
        deviation, name = ((0.035, "seeds that vary"), (0.0, "seeds alike"))[turn % 2]
        key, common = random.choice(4, size=len(strata), p=KEY), random.normal(size=(len(strata), 4))
        runs = []
        for place in range(4):
            values = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * random.normal(size=(len(strata), 4))
            moved = random.normal(0.0, deviation) if place else 0.0
            values[np.arange(len(strata)), key] += 1.0 + moved + subject_effects()[strata]
            runs.append(make_run(str(place), strata, key, values, False))
        effect = recipe_effect("recipe", runs[0], runs[1:])
        made["foreign"][f"recipe, {name}"].append(effect.significant)
        made["foreign_coverage"][f"recipe, {name}"].append(effect.low <= 0.0 <= effect.high)
    return {kind: dict(claims) for kind, claims in made.items()}


def count_command_claims(n: int, random: Random, number: int) -> Claims:
    """Six null adapters in six commands, full and early in turn: whether any was called better or worse."""
    made = [_claims_in_commands(n, random) for _ in range(number)]
    return {"foreign": {"better or worse, six commands": made}}


def _claims_in_commands(n: int, random: Random) -> bool:
    key, common = random.choice(4, size=n, p=KEY), random.normal(size=(n, 4))

    def answer_questions() -> NDArray[np.bool_]:
        values = SHARED**0.5 * common + (1 - SHARED) ** 0.5 * random.normal(size=(n, 4))
        values[np.arange(n), key] += 1.0
        return np.asarray(values.argmax(axis=1) == key)

    base, any_claim = answer_questions(), False
    with tempfile.TemporaryDirectory() as folder:
        for place in range(6):
            other = answer_questions()
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
    return any_claim


def count_copy_claims(n: int, random: Random, number: int) -> Claims:
    """Whether a base model and its six adapters put any key in doubt: copies are not witnesses."""
    made = []
    for _ in range(number):
        strata = make_strata(n)
        key, common = random.choice(4, size=len(strata), p=KEY), random.normal(size=(len(strata), 4))
        runs = []
        for place in range(7):
            values = 0.95**0.5 * common + 0.05**0.5 * random.normal(size=(len(strata), 4))
            values[np.arange(len(strata)), key] += 1.0
            run = make_run(f"r{place}", strata, key, values, False)
            facts = {"model": "owner/base", "adapter_digest": str(place) if place else None}
            runs.append(replace(run, facts=facts))
        audit = audit_key(runs)
        made.append(audit is not None and len(audit.against_key) > 0)
    return {"foreign": {"keys in doubt, copies": made}}
