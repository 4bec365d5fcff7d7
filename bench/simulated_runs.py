"""Simulated runs for ``bench.soundness``: utilities as predictions, and which claims and intervals a
comparison of two of them holds.

In: a subject per question, the key, utilities (n, 4). Out: a ``Run`` as if it had been evaluated; a
comparison's claims and intervals by name. No model, no data set; knows no world.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.endpoints import Endpoint
from kmmlu_fast.analysis.recalibration import FEWEST
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.reporting.wording.letter_habit import classify_letter_prior
from kmmlu_fast.runs.run import Run, count_subject_scores, fill_prediction_columns
from kmmlu_fast.sampling.weakness import read_subject_prior

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
KEY = np.array([0.1, 0.3, 0.3, 0.3])
SHARED = 0.8  # of the noise's variance that both runs have in common
PRIOR_CLAIMS = ("not_prior", "partly_prior", "reversed")


@cache
def full_sizes() -> dict[str, int]:
    """Questions of each subject of the whole test."""
    return read_subject_prior().questions


@cache
def subject_effects() -> Floats:
    """How much easier each subject is, in utility: fixed, not part of what varies."""
    return np.random.default_rng(1).normal(0, 0.35, len(SUBJECTS))


def make_strata(n: int) -> Codes:
    """Each question's subject: an equal number a subject; all 35,030 for 0."""
    if n == 0:
        return np.repeat(np.arange(45), [full_sizes()[name] for name in SUBJECTS])
    return np.repeat(np.arange(45), n // 45)


def make_answers(strata: Codes, key: Codes, values: Floats) -> pl.DataFrame:
    """The answers of the letters with the highest ``values`` (n, 4), without log-probabilities."""
    names, groups = list(SUBJECTS), [subject.supercategory for subject in SUBJECTS.values()]
    predicted = np.asarray(LETTERS)[values.argmax(axis=1)]
    answer = np.asarray(LETTERS)[key]
    return pl.DataFrame(
        {"answer": answer, "prediction": predicted, "correct": answer == predicted}
    ).with_columns(
        pl.Series("subject", np.asarray(names)[strata]),
        pl.Series("supercategory", np.asarray(groups)[strata]),
        pl.Series("question_id", [f"{names[h]}/test/{i}" for i, h in enumerate(strata)]),
        pl.lit("test").alias("split"),
    )


def make_run(name: str, strata: Codes, key: Codes, values: Floats, stored: bool) -> Run:
    """Utilities as a run's predictions, with log-probabilities if ``stored``."""
    frame = make_answers(strata, key, values)
    if stored:
        top = values - values.max(axis=1, keepdims=True)
        logprobs = top - np.log(np.exp(top).sum(axis=1, keepdims=True))
        frame = frame.with_columns(
            pl.Series(column, logprobs[:, i]) for i, column in enumerate(LOGPROB_COLUMNS)
        )
    return wrap_answers(name, frame)


def wrap_answers(name: str, frame: pl.DataFrame) -> Run:
    """Simulated answers as a run."""
    frame = fill_prediction_columns(frame)
    return Run(
        name=name,
        kind="run",
        source=name,
        predictions=frame,
        scores=count_subject_scores(frame),
        facts={"prompt_style": "simulated"},
    )


def _said_endpoints(pair: PairComparison) -> tuple[Endpoint, ...]:
    """Those that a verdict speaks of: with fewer questions temperature and habit are not fitted out."""
    return pair.endpoints if pair.micro.n >= FEWEST else ()


def list_intervals(pair: PairComparison) -> dict[str, tuple[float, float, float]]:
    """Every interval of a comparison: (value, low, high)."""
    means = {"micro": pair.micro, "macro": pair.macro}
    parts: dict[str, Any] = {name: (part.difference, part.low, part.high) for name, part in means.items()}
    assert pair.letters is not None  # four options
    for split in pair.letters.splits:
        for name in ("letter_prior", "remaining"):
            part = getattr(split, name)
            parts[f"{name} ({split.model})"] = (part.value, part.low, part.high)
    if pair.letters.by_subject is not None:
        own = pair.letters.by_subject  # another quantity by log-probabilities than by letters alone
        kind = pair.letters.method
        parts[f"remaining (each subject's habit, {kind})"] = (own.value, own.low, own.high)
    for endpoint in _said_endpoints(pair):
        parts[endpoint.name] = (endpoint.difference, endpoint.low, endpoint.high)
    if pair.overlap_gap is not None:
        parts["overlap gap"] = (pair.overlap_gap.value, pair.overlap_gap.low, pair.overlap_gap.high)
    return parts


def list_claims(pair: PairComparison) -> dict[str, bool]:
    """Which claims the verdict makes."""
    assert pair.letters is not None  # four options
    meaning = classify_letter_prior(pair)
    kind = "log-probabilities" if pair.letters.method == "logprobs" else "letters"
    claims = {
        "micro": pair.significant,
        "macro": pair.macro.significant,
        "opposite": pair.micro_macro_opposed,
        "subject changes": len(pair.changed_subjects()) > 0,
    }
    if pair.letters.splits:
        claims |= {f"remaining ({kind})": meaning in PRIOR_CLAIMS, f"hidden ({kind})": meaning == "hidden"}
    if endpoints := _said_endpoints(pair):
        claims["log score"] = endpoints[0].better != 0
    if pair.overlap_gap is not None:
        claims["overlap gap"] = pair.overlap_gap.significant
    return claims
