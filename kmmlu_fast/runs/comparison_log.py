"""Looks at the test split, counted: which adapters were compared with a base run, and when.

In: a base's run directory, a comparison's outcome. Out: ``peeks.json`` beside the run's files, one entry an
adapter. Whoever tries six adapters on test and shows the best shows the luckiest; the count is what makes
its p honest. Knows nothing of statistics.
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
    """One adapter's first look at test against this base."""

    adapter: str  # digest of its weights
    name: str
    time_utc: str
    questions: int
    p_value: float | None
    difference: float = 0.0  # of accuracy over questions, adapter minus base, 0-1


def is_test_split_comparison(base: Run, other: Run) -> bool:
    """Whether the comparison is a look at test of an adapter of this base: a base without adapter, the same
    model, an adapter.
    """
    same = base.facts.get("model") is not None and base.facts.get("model") == other.facts.get("model")
    on_test = (
        base.predictions is not None and len(base.predictions) > 0 and base.predictions["split"][0] == "test"
    )
    return bool(
        same and on_test and not base.facts.get("adapter_digest") and other.facts.get("adapter_digest")
    )


def read_comparison_log(base: Run) -> list[LoggedComparison]:
    """The looks recorded so far; [] where there are none, or the file cannot be read."""
    if base.path is None:
        return []
    try:
        path = base.path / FILE
        found = (
            [LoggedComparison(**entry) for entry in parse_json(read_text(path), str(path))]
            if path.is_file()
            else []
        )
    except (RunError, TypeError):
        return []
    return [peek for peek in found if isinstance(peek.adapter, str) and isinstance(peek.name, str)]


def log_comparisons(base: Run, looked: list[tuple[Run, int, float | None, float]]) -> list[LoggedComparison]:
    """Add the adapters that are not recorded yet (run, questions, p, difference); returns those recorded
    *before* that are not among ``looked``.

    A run directory that cannot be written is left alone: the comparison is then counted by what it was given.
    """
    before = read_comparison_log(base)
    known = {peek.adapter for peek in before}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    fresh = [
        LoggedComparison(
            adapter=str(run.facts["adapter_digest"]),
            name=run.name,
            time_utc=now,
            questions=questions,
            p_value=p_value,
            difference=difference,
        )
        for run, questions, p_value, difference in looked
        if is_test_split_comparison(base, run) and str(run.facts["adapter_digest"]) not in known
    ]
    if fresh and base.path is not None:
        text = json.dumps([asdict(peek) for peek in [*before, *fresh]], ensure_ascii=False, indent=1) + "\n"
        with contextlib.suppress(OSError):
            write_bytes_atomically(base.path / FILE, text.encode())
    here = {str(run.facts.get("adapter_digest")) for run, _, _, _ in looked}
    return [peek for peek in before if peek.adapter not in here]
