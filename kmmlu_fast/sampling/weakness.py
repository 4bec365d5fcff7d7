"""Where a model is weak, from few questions: empirical Bayes with other models' subject accuracies as the prior mean.

In: right and total by subject, a prior accuracy by subject or none. Out: for each subject the raw accuracy, the shrunk one and its 95 %
interval. Knows nothing of files but the shipped prior, and nothing of questions.

Twenty questions a subject say little: of the eleven subjects that look weakest, the accuracies come out 9 points too low, and four of
the eleven are others. Which subjects are hard is much the same for all models, so their accuracies are where to start from:

    right_h ~ binomial(total_h, accuracy_h),   accuracy_h ~ normal(a + b (prior_h - mean prior), tau^2)

with the level a and the slope b (near 1) by restricted maximum likelihood, averaged over tau (Morris 1983, JASA 78:47, Parametric
Empirical Bayes Inference). Without a prior b = 0: shrinkage to the mean. Human accuracy is no prior (its correlation with models' is -.19 to .16).
The prior comes from public results on KMMLU's *test* split, 45 numbers by other models: the data card says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.data.subjects import SUBJECTS

SHIPPED = Path(__file__).parent / "subject_prior.yaml"
SLOPE, SLOPE_DEVIATION = 1.0, 0.5  # what the prior's slope is expected to be: weak models spread less than strong ones
TAUS = np.linspace(0.01, 0.25, 25)  # of how far subjects lie from what the prior expects
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SubjectPrior:
    """Other models' accuracy by subject (0-1), and where it comes from."""

    accuracy: dict[str, float]
    questions: dict[str, int]  # of the split it was measured on; {} where not stated
    source: str
    date: str


def read_prior(path: Path | None = None) -> SubjectPrior:
    """The shipped table, or one of the same layout: source, date, subjects: {name: {accuracy, questions}} (or name: accuracy)."""
    import yaml

    path = path or SHIPPED
    try:
        document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = {name: value if isinstance(value, dict) else {"accuracy": value} for name, value in document["subjects"].items()}
        accuracy = {name: float(entry["accuracy"]) for name, entry in entries.items()}
        questions = {name: int(entry["questions"]) for name, entry in entries.items() if "questions" in entry}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise DataError(
            f"{path}: is no table of subject accuracies ({str(error).splitlines()[0]}); "
            f"write source, date and subjects: {{Accounting: 0.54, ...}} as {SHIPPED.name} does"
        ) from error
    if bad := [name for name, value in accuracy.items() if name not in SUBJECTS or not 0 <= value <= 1]:
        raise DataError(f"{path}: {bad[0]}: {accuracy[bad[0]]} is no accuracy (0-1) of a KMMLU subject")
    return SubjectPrior(accuracy, questions, str(document.get("source", path)), str(document.get("date", "not stated")))


def posterior(scores: pl.DataFrame, prior: dict[str, float] | None) -> pl.DataFrame:
    """``scores`` (subject, correct, total) -> subject, raw, shrunk, low, high (accuracies 0-1), in the scores' order.

    Subjects that the prior does not know start from its mean. With one subject there is nothing to learn from others: raw is kept.
    """
    names = scores["subject"].to_list()
    correct, total = (scores[name].to_numpy().astype(float) for name in ("correct", "total"))
    raw = correct / total
    if len(names) < 2:
        return _frame(names, raw, raw, np.sqrt(np.maximum(raw * (1 - raw), 0.01) / total))
    known = np.array([np.nan if prior is None else prior.get(name, np.nan) for name in names])
    design = np.nan_to_num(known - np.nanmean(known), nan=0.0) if np.isfinite(known).any() else None
    start, noise = raw, np.full(len(raw), 0.25) / total
    for _ in range(4):  # the binomial variance is taken at the shrunk accuracy: a raw 0 of 5 is not certain
        middle = np.clip(start, 0.05, 0.95)
        noise = middle * (1 - middle) / total
        start, error = _shrunk(raw, noise, design)
    return _frame(names, raw, start, error)


def _shrunk(raw: Floats, noise: Floats, design: Floats | None) -> tuple[Floats, Floats]:
    """Posterior means and standard deviations, averaged over how well each tau fits (flat in tau): tau itself is not known."""
    columns = np.ones((len(raw), 1)) if design is None else np.column_stack([np.ones(len(raw)), design])
    means, variances, fits = [], [], []
    for tau in TAUS:
        variance = tau**2 + noise
        precision = columns.T @ (columns / variance[:, None])
        right = columns.T @ (raw / variance)
        if design is not None:
            precision[1, 1] += SLOPE_DEVIATION**-2
            right[1] += SLOPE * SLOPE_DEVIATION**-2
        covariance = np.linalg.inv(precision)
        slope = covariance @ right
        fit, trust = columns @ slope, tau**2 / variance
        unsure = np.einsum("ij,jk,ik->i", columns, covariance, columns)
        means.append(trust * raw + (1 - trust) * fit)
        variances.append(trust * noise + (1 - trust) ** 2 * unsure)
        extra = 0.0 if design is None else float((slope[1] - SLOPE) ** 2) / SLOPE_DEVIATION**2
        fits.append(-0.5 * (np.log(variance).sum() + ((raw - fit) ** 2 / variance).sum() + np.linalg.slogdet(precision)[1] + extra))
    weights = np.exp(np.array(fits) - max(fits))
    weights /= weights.sum()
    mean = weights @ np.array(means)
    return mean, np.sqrt(weights @ (np.array(variances) + (np.array(means) - mean) ** 2))


def _frame(names: list[str], raw: Floats, shrunk: Floats, error: Floats) -> pl.DataFrame:
    shrunk = np.clip(shrunk, 0.0, 1.0)
    ends = np.clip(shrunk - 1.96 * error, 0.0, 1.0), np.clip(shrunk + 1.96 * error, 0.0, 1.0)
    return pl.DataFrame({"subject": names, "raw": raw, "shrunk": shrunk, "low": ends[0], "high": ends[1]})
