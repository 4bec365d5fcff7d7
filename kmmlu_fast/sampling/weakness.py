"""Where a model is weak, from few questions: empirical Bayes with other models' subject accuracies as the
prior mean.

In: correct and total by subject, optionally a prior accuracy by subject. Out: per subject the raw accuracy,
the shrunk one and its 95 % interval. The only file it reads is the prior; it knows nothing of questions.

Twenty questions per subject are few: the accuracies of the eleven subjects that look weakest are 9 points too
low on average, and four of the eleven are not among the weakest. Mostly the same subjects are hard for all
models, so other models' accuracies are the starting point:

    correct_h ~ binomial(total_h, accuracy_h),   accuracy_h ~ beta(mean_h, k),
    mean_h = a + b (prior_h - mean prior)

averaged over the level a, the slope b (near 1) and the concentration k, weighted by how well each explains
the answers (the beta-binomial model; Morris 1983, JASA 78:47, Parametric Empirical Bayes Inference). Without
a prior b = 0, which shrinks to the mean of all subjects. Human accuracy is not a useful prior (its
correlation with models' is -.19 to .16). The shipped prior comes from public results of other models on
KMMLU's *test* split (45 numbers), which the data card states.

Subjects are looked at because they look weak, and accuracies have heavier tails than a beta: intervals of
1.96 posterior deviations hold the accuracies of the eleven weakest in 92.5 and 91 % (25 public runs, 20 and
50 questions per subject), of 2.24 in 96 and 94 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.reading import read_yaml
from kmmlu_fast.data.subjects import SUBJECTS

SHIPPED = Path(__file__).parent / "subject_prior.yaml"
SLOPE, SLOPE_DEVIATION = 1.0, 0.5  # expected slope of the prior: weak models spread less than strong ones
LEVELS, SLOPES = 15, 9  # points of the grid
# The prior's weight in questions: subjects deviate from it by 0.35 down to 0.01.
CONCENTRATIONS = np.geomspace(2.0, 2000.0, 18)
REACH = 2.24  # posterior deviations to either end of the interval
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SubjectPrior:
    """Other models' accuracy by subject (0-1), and its source."""

    accuracy: dict[str, float]
    questions: dict[str, int]  # of the split it was measured on; {} if not stated
    source: str
    date: str


def read_subject_prior(path: Path | None = None) -> SubjectPrior:
    """The shipped table, or a file of the same layout; a subject's entry may also be just its accuracy."""
    path = path or SHIPPED
    accuracy: dict[str, float] = {}
    questions: dict[str, int] = {}
    try:
        document: dict[str, Any] = read_yaml(path, str(path), DataError)
        for name, value in document["subjects"].items():
            entry = value if isinstance(value, dict) else {"accuracy": value}
            accuracy[name] = float(entry["accuracy"])
            if "questions" in entry:
                questions[name] = int(entry["questions"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, DataError) as error:
        raise DataError(
            f"{path}: is not a table of subject accuracies ({str(error).splitlines()[0]}); "
            f"write source, date and subjects: {{Accounting: 0.54, ...}} as in {SHIPPED.name}"
        ) from error
    for name, share in accuracy.items():
        if name not in SUBJECTS or not 0 <= share <= 1:
            raise DataError(f"{path}: {name}: {share} is not an accuracy (0-1) of a KMMLU subject")
    source, date = str(document.get("source", path)), str(document.get("date", "not stated"))
    return SubjectPrior(accuracy, questions, source, date)


def subject_posterior(scores: pl.DataFrame, prior: dict[str, float] | None) -> pl.DataFrame:
    """``scores`` (subject, correct, total) -> subject, raw, shrunk, low, high (accuracies 0-1), same order.

    Subjects missing from the prior start from its mean. A single subject keeps its raw accuracy.
    """
    names = scores["subject"].to_list()
    correct, total = (scores[name].to_numpy().astype(float) for name in ("correct", "total"))
    raw = correct / total
    if len(names) < 2:
        return _posterior_frame(names, raw, raw, np.sqrt(np.maximum(raw * (1 - raw), 0.01) / total))
    known = np.array([(prior or {}).get(name, np.nan) for name in names])
    spread = np.zeros(len(names))
    if np.isfinite(known).any():
        spread = np.nan_to_num(known - np.nanmean(known), nan=0.0)
    return _posterior_frame(names, raw, *_posterior_moments(correct, total, spread))


def _posterior_moments(correct: Floats, total: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Posterior means and standard deviations over the grid of level, slope and concentration."""
    from scipy.special import betaln

    middle = float(np.clip((correct / total).mean(), 0.02, 0.98))
    unsure = 4 * float(np.sqrt((middle * (1 - middle) / total).mean() / len(total) + 0.02 / len(total)))
    levels = middle + np.linspace(-unsure, unsure, LEVELS)
    slopes, slope_weights = np.zeros(1), np.zeros(1)
    if spread.any():
        steps = np.linspace(-2.5, 2.5, SLOPES)
        slopes, slope_weights = SLOPE + SLOPE_DEVIATION * steps, -(steps**2) / 2
    mean = np.clip(levels[:, None, None, None] + slopes[None, :, None, None] * spread, 0.01, 0.99)
    size = CONCENTRATIONS[:, None]
    right, wrong = mean * size, (1 - mean) * size
    evidence = (betaln(right + correct, wrong + total - correct) - betaln(right, wrong)).sum(axis=-1)
    # Flat in the standard deviation around the prior, which is proportional to size ** -0.5.
    evidence = evidence + slope_weights[None, :, None] - 0.5 * np.log(CONCENTRATIONS)
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    means = (correct + right) / (total + size)
    variances = means * (1 - means) / (total + size + 1)
    average = np.einsum("abk,abkh->h", weights, means)
    return average, np.sqrt(np.einsum("abk,abkh->h", weights, variances + (means - average) ** 2))


def _posterior_frame(names: list[str], raw: Floats, shrunk: Floats, error: Floats) -> pl.DataFrame:
    shrunk = np.clip(shrunk, 0.0, 1.0)
    ends = np.clip(shrunk - REACH * error, 0.0, 1.0), np.clip(shrunk + REACH * error, 0.0, 1.0)
    return pl.DataFrame({"subject": names, "raw": raw, "shrunk": shrunk, "low": ends[0], "high": ends[1]})
