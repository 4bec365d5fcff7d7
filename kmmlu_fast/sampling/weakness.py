"""Where a model is weak, from few questions: empirical Bayes with other models' subject accuracies as the
prior mean.

In: right and total by subject, a prior accuracy by subject or none. Out: for each subject the raw accuracy,
the shrunk one and its 95 % interval. Knows nothing of files but the shipped prior, and nothing of questions.

Twenty questions a subject say little: of the eleven subjects that look weakest, the accuracies come out 9
points too low, and four of the eleven are others. Which subjects are hard is much the same for all models,
so their accuracies are where to start from:

    right_h ~ binomial(total_h, accuracy_h),   accuracy_h ~ beta(mean_h, k),   mean_h = a + b (prior_h - mean
    prior)

averaged over the level a, the slope b (near 1) and the concentration k by how well each explains what was
answered (the beta-binomial model; Morris 1983, JASA 78:47, Parametric Empirical Bayes Inference). Without a
prior b = 0: shrinkage to the mean of all subjects. Human accuracy is no prior (its correlation with models'
is -.19 to .16). The prior comes from public results on KMMLU's *test* split, 45 numbers by other models: the
data card says so.
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
SLOPE, SLOPE_DEVIATION = (
    1.0,
    0.5,
)  # what the prior's slope is expected to be: weak models spread less than strong ones
LEVELS, SLOPES = 15, 9  # points of the grid
CONCENTRATIONS = np.geomspace(
    2.0, 2000.0, 18
)  # questions' worth of the prior: subjects spread by 0.35 down to 0.01 around it
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SubjectPrior:
    """Other models' accuracy by subject (0-1), and where it comes from."""

    accuracy: dict[str, float]
    questions: dict[str, int]  # of the split it was measured on; {} where not stated
    source: str
    date: str


def read_subject_prior(path: Path | None = None) -> SubjectPrior:
    """The shipped table, or one of the same layout: source, date, subjects: {name: {accuracy, questions}}
    (or name: accuracy).
    """
    path = path or SHIPPED
    try:
        document: dict[str, Any] = read_yaml(path, str(path), DataError)
        entries = {
            name: value if isinstance(value, dict) else {"accuracy": value}
            for name, value in document["subjects"].items()
        }
        accuracy = {name: float(entry["accuracy"]) for name, entry in entries.items()}
        questions = {name: int(entry["questions"]) for name, entry in entries.items() if "questions" in entry}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, DataError) as error:
        raise DataError(
            f"{path}: is no table of subject accuracies ({str(error).splitlines()[0]}); "
            f"write source, date and subjects: {{Accounting: 0.54, ...}} as {SHIPPED.name} does"
        ) from error
    if bad := [name for name, value in accuracy.items() if name not in SUBJECTS or not 0 <= value <= 1]:
        raise DataError(f"{path}: {bad[0]}: {accuracy[bad[0]]} is no accuracy (0-1) of a KMMLU subject")
    return SubjectPrior(
        accuracy, questions, str(document.get("source", path)), str(document.get("date", "not stated"))
    )


def subject_posterior(scores: pl.DataFrame, prior: dict[str, float] | None) -> pl.DataFrame:
    """``scores`` (subject, correct, total) -> subject, raw, shrunk, low, high (accuracies 0-1), in the
    scores' order.

    Subjects that the prior does not know start from its mean. With one subject there is nothing to learn
    from others: raw is kept.
    """
    names = scores["subject"].to_list()
    correct, total = (scores[name].to_numpy().astype(float) for name in ("correct", "total"))
    known = np.array([np.nan if prior is None else prior.get(name, np.nan) for name in names])
    spread = (
        np.nan_to_num(known - np.nanmean(known), nan=0.0)
        if np.isfinite(known).any()
        else np.zeros(len(names))
    )
    if len(names) < 2:
        middle = correct / total
        return _posterior_frame(
            names, correct / total, middle, np.sqrt(np.maximum(middle * (1 - middle), 0.01) / total)
        )
    return _posterior_frame(names, correct / total, *_posterior_moments(correct, total, spread))


def _posterior_moments(correct: Floats, total: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Posterior means and standard deviations over the grid of level, slope and concentration."""
    from scipy.special import betaln

    middle = float(np.clip((correct / total).mean(), 0.02, 0.98))
    unsure = 4 * float(np.sqrt((middle * (1 - middle) / total).mean() / len(total) + 0.02 / len(total)))
    levels = middle + np.linspace(-unsure, unsure, LEVELS)
    steps = np.linspace(-2.5, 2.5, SLOPES)
    slopes, slope_weights = (
        (SLOPE + SLOPE_DEVIATION * steps, -(steps**2) / 2) if spread.any() else (np.zeros(1), np.zeros(1))
    )
    mean = np.clip(levels[:, None, None, None] + slopes[None, :, None, None] * spread, 0.01, 0.99)
    size = CONCENTRATIONS[:, None]
    right, wrong = mean * size, (1 - mean) * size
    evidence = (betaln(right + correct, wrong + total - correct) - betaln(right, wrong)).sum(axis=-1)
    # Flat in the standard deviation around the prior, which goes with size ** -0.5.
    evidence = evidence + slope_weights[None, :, None] - 0.5 * np.log(CONCENTRATIONS)
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    means = (correct + right) / (total + size)
    variances = means * (1 - means) / (total + size + 1)
    average = np.einsum("abk,abkh->h", weights, means)
    return average, np.sqrt(np.einsum("abk,abkh->h", weights, variances + (means - average) ** 2))


def _posterior_frame(names: list[str], raw: Floats, shrunk: Floats, error: Floats) -> pl.DataFrame:
    shrunk = np.clip(shrunk, 0.0, 1.0)
    ends = np.clip(shrunk - 1.96 * error, 0.0, 1.0), np.clip(shrunk + 1.96 * error, 0.0, 1.0)
    return pl.DataFrame({"subject": names, "raw": raw, "shrunk": shrunk, "low": ends[0], "high": ends[1]})
