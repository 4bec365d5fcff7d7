"""The log of comparisons on the test split: which adapters were compared with a base run, how, and at which
error level.

In: a base's run directory, comparisons. Out: ``peeks.json`` in that directory, one entry per adapter and kind
of comparison. Early and full comparisons share it: the best of six adapters tried on test is also the
luckiest, however each was tried. Commands that run at the same time write one after the other. Knows nothing
of statistics: the level comes from the caller.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.core.locks import Lock, acquire_lock
from kmmlu_fast.core.notes import log_as_warnings
from kmmlu_fast.core.reading import parse_json, read_text
from kmmlu_fast.runs.run import Run

FILE = "peeks.json"
_WAIT_SEC = 30.0  # a writer holds the lock for milliseconds
Kind = Literal["full", "early", "recipe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedComparison:
    """One comparison of an adapter with this base on test. ``batch`` and ``level`` are fixed when it is first
    logged.
    """

    adapter: str  # digest of its weights
    name: str
    time_utc: str
    questions: int
    p_value: float | None  # None while an early comparison is running
    difference: float = 0.0  # of accuracy over questions, adapter minus base, 0-1
    kind: Kind = "full"  # early: by the sequential test
    batch: int = -1  # comparisons of one command share a batch; -1: written before there were batches
    level: float = 0.0  # error level of the whole batch, 0-1; 0: written before there were levels

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes it the same comparison. More questions are new evidence for a full comparison; an early
        one is valid at any number of questions.
        """
        return (self.adapter, self.kind, 0 if self.kind == "early" else self.questions)


LevelRule = Callable[[Sequence[LoggedComparison], int], float]  # entries so far, new ones -> level


def is_test_split_comparison(base: Run, other: Run) -> bool:
    """Whether a base without an adapter is compared on test with an adapter of the same model."""
    model = base.facts.get("model")
    if model is None or model != other.facts.get("model"):
        return False
    if base.predictions is None or base.predictions.is_empty() or base.predictions["split"][0] != "test":
        return False
    return bool(other.facts.get("adapter_digest") and not base.facts.get("adapter_digest"))


def new_comparison(
    run: Run, *, questions: int, p_value: float | None, difference: float, kind: Kind = "full"
) -> LoggedComparison:
    """An entry for the adapter's run, not logged yet."""
    return LoggedComparison(
        adapter=str(run.facts["adapter_digest"]),
        name=run.name,
        time_utc="",
        questions=questions,
        p_value=p_value,
        difference=difference,
        kind=kind,
    )


def read_comparison_log(folder: Path | None) -> list[LoggedComparison]:
    """The comparisons logged beside a base so far; of a damaged log, those that can be read."""
    return _read_log(folder)[0]


def _read_log(folder: Path | None) -> tuple[list[LoggedComparison], bool]:
    """The readable entries, and whether that is all that the file holds."""
    path = None if folder is None else folder / FILE
    if path is None or not path.is_file():
        return [], True
    try:
        rows = parse_json(read_text(path), str(path))
    except RunError:
        return [], False
    entries: list[LoggedComparison] = []
    for row in rows if isinstance(rows, list) else []:
        with contextlib.suppress(TypeError):
            entry = LoggedComparison(**row)
            entries += [entry] if _is_valid(entry) else []
    return entries, isinstance(rows, list) and len(entries) == len(rows)


def _is_valid(entry: LoggedComparison) -> bool:
    numbers = [entry.questions, entry.difference, entry.batch, entry.level]
    numbers += [] if entry.p_value is None else [entry.p_value]
    texts = (entry.adapter, entry.name, entry.kind)
    return all(isinstance(text, str) for text in texts) and all(
        isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers
    )


def log_comparisons(
    folder: Path | None, comparisons: Sequence[LoggedComparison], level_rule: LevelRule
) -> list[LoggedComparison]:
    """Log what is new as one batch, at the level that ``level_rule`` gives it, and update what is known.
    Returns the whole log.

    A directory that cannot be written is skipped: only the log so far and these comparisons then count. A
    damaged log is kept beside the new one, and said: what cannot be read no longer counts.
    RunError if another command keeps the log locked.
    """
    with _lock_log(folder):
        return _log_locked(folder, comparisons, level_rule)


def _lock_log(folder: Path | None) -> Lock | contextlib.nullcontext[None]:
    """Two commands that read the same log would each spend the error budget that is left for one."""
    if folder is None:
        return contextlib.nullcontext()
    in_use = RunError(f"{folder / FILE}: another command has kept it locked; wait for it, or end it")
    try:
        return acquire_lock(folder / f".{FILE}.lock", in_use, wait_sec=_WAIT_SEC)
    except OSError:  # cannot be written, so nothing is logged
        return contextlib.nullcontext()


def _log_locked(
    folder: Path | None, comparisons: Sequence[LoggedComparison], level_rule: LevelRule
) -> list[LoggedComparison]:
    before, is_whole = _read_log(folder)
    given = {entry.key: entry for entry in comparisons}
    entries = []
    for entry in before:
        again = given.pop(entry.key, None)
        if again is not None and again.p_value is not None:
            entry = replace(
                entry, p_value=again.p_value, difference=again.difference, questions=again.questions
            )
        entries.append(entry)
    if given:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        batch = 1 + max((entry.batch for entry in before), default=-1)
        level = level_rule(before, len(given))
        entries += [replace(entry, time_utc=now, batch=batch, level=level) for entry in given.values()]
    if entries != before and folder is not None:
        text = json.dumps([asdict(entry) for entry in entries], ensure_ascii=False, indent=1) + "\n"
        with contextlib.suppress(OSError):
            if not is_whole:
                _set_aside(folder / FILE)
            write_bytes_atomically(folder / FILE, text.encode())
    return entries


def _set_aside(path: Path) -> None:
    """Keep a damaged log under a name of its own, and say so."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    kept = next(name for name in names if not name.exists())
    path.rename(kept)
    lost = f"it is kept as {kept.name}, and comparisons that cannot be read there do not count"
    log_as_warnings([f"{path}: is damaged; {lost}"])
