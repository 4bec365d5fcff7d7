"""A run as one row for experiment trackers (``--report-to``).

In: a ``Run``. Out: ``TrackedResult``: accuracies 0-1 and settings; no text of questions or models. Knows
nothing of the trackers.
"""

from __future__ import annotations

from typing import Any

from kmmlu_fast.machine.trackers import TrackedResult
from kmmlu_fast.runs.run import Run

_SETTINGS = (
    "model",
    "adapter",
    "dataset",
    "split",
    "limit",
    "prompt_style",
    "output_type",
    "num_fewshot",
    "dtype",
    "quantization",
    "engine",
    "seed",
)


def tracked_run(run: Run) -> TrackedResult:
    """Accuracy by subject and supercategory, unparsed answers and letter shares; of a run that stopped early
    its questions and the interval of its accuracy."""
    config: dict[str, Any] = run.config.get("config") or run.config
    settings = {name: config.get(name) for name in _SETTINGS if config.get(name) not in (None, [])}
    return TrackedResult(
        name=run.path.name if run.path is not None else run.name,
        numbers={name: float(value) for name, value in _run_numbers(run).items() if value is not None},
        settings=settings,
    )


def _run_numbers(run: Run) -> dict[str, float | None]:
    if run.prefix is not None:
        low, high = run.prefix.accuracy
        return {"questions": run.prefix.questions, "accuracy/low": low, "accuracy/high": high}
    metrics = run.metrics
    numbers: dict[str, float | None] = {"questions": metrics.num_questions, "unparsed": metrics.unparsed}
    for name, score in (("micro", metrics.micro), ("macro", metrics.macro)):
        if score is not None:
            numbers |= {f"accuracy/{name}": score.accuracy, f"accuracy/{name}_stderr": score.stderr}
    numbers |= {f"supercategory/{name}": score.accuracy for name, score in metrics.supercategories.items()}
    numbers |= {f"subject/{name}": score.accuracy for name, score in metrics.subjects.items()}
    return numbers | {f"letter/{name}": share for name, share in metrics.predicted_letter_share.items()}
