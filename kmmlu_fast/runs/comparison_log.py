"""A log of comparisons on the test split: which adapters were compared with a base run, and when.

In: a base's run directory, a comparison's outcome. Out: ``peeks.json`` in that directory, one entry per
adapter. The best of six adapters tried on test is also the luckiest; counting them keeps its p-value honest.
Knows nothing of statistics.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from dataclasses import asdict, dataclass

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.core.reading import parse_json, read_text
from kmmlu_fast.runs.run import Run

FILE = "peeks.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedComparison:
    """One adapter's first comparison with this base on test."""

    adapter: str  # digest of its weights
    name: str
    time_utc: str
    questions: int
    p_value: float | None
    difference: float = 0.0  # of accuracy over questions, adapter minus base, 0-1


def is_test_split_comparison(base: Run, other: Run) -> bool:
    """Whether a base without an adapter is compared on test with an adapter of the same model."""
    model = base.facts.get("model")
    if model is None or model != other.facts.get("model"):
        return False
    if base.predictions is None or base.predictions.is_empty() or base.predictions["split"][0] != "test":
        return False
    return bool(other.facts.get("adapter_digest") and not base.facts.get("adapter_digest"))


def read_comparison_log(base: Run) -> list[LoggedComparison]:
    """The comparisons logged so far; [] if there are none, or if the file cannot be read."""
    if base.path is None or not (base.path / FILE).is_file():
        return []
    path = base.path / FILE
    try:
        logged = [LoggedComparison(**entry) for entry in parse_json(read_text(path), str(path))]
    except (RunError, TypeError):
        return []
    return [entry for entry in logged if isinstance(entry.adapter, str) and isinstance(entry.name, str)]


def log_comparisons(
    base: Run, comparisons: list[tuple[Run, int, float | None, float]]
) -> list[LoggedComparison]:
    """Log the adapters that are new (run, questions, p-value, difference). Returns the entries from *before*
    whose adapters are not among ``comparisons``.

    A run directory that cannot be written is skipped: only the current comparisons then count.
    """
    before = read_comparison_log(base)
    known = {entry.adapter for entry in before}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    new = [
        LoggedComparison(
            adapter=str(run.facts["adapter_digest"]),
            name=run.name,
            time_utc=now,
            questions=questions,
            p_value=p_value,
            difference=difference,
        )
        for run, questions, p_value, difference in comparisons
        if is_test_split_comparison(base, run) and str(run.facts["adapter_digest"]) not in known
    ]
    if new and base.path is not None:
        text = json.dumps([asdict(entry) for entry in [*before, *new]], ensure_ascii=False, indent=1) + "\n"
        with contextlib.suppress(OSError):
            write_bytes_atomically(base.path / FILE, text.encode())
    compared = {str(run.facts.get("adapter_digest")) for run, _, _, _ in comparisons}
    return [entry for entry in before if entry.adapter not in compared]
