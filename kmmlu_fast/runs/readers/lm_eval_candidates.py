"""Which runs lm-evaluation-harness's outputs hold, and which of them are meant.

In: outputs, and a choice (model, group, "5-shot", time). Out: ``LmEvalCandidate`` records: one per model,
task group, number of shots and settings, the oldest first. Of one measured more than once the latest counts.
Knows nothing of samples and scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.readers.lm_eval_files import LmEvalOutput
from kmmlu_fast.runs.readers.lm_eval_tasks import (
    LmEvalTask,
    iter_lm_eval_tasks,
    lm_eval_model_name,
    lm_eval_settings_key,
)
from kmmlu_fast.runs.readers.source import RunSource


@dataclass(frozen=True, slots=True, kw_only=True)
class LmEvalCandidate:
    """The tasks of one run: one model, group, number of shots and way of asking."""

    model: str
    group: str
    shots: int | None
    stamp: str  # of its latest output
    tasks: tuple[LmEvalTask, ...]
    name: str = ""
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        """What it can be chosen by."""
        return {
            "model": self.model,
            "group": self.group,
            "shots": "" if self.shots is None else f"{self.shots}-shot",
            "stamp": self.stamp,
        }

    def is_called(self, word: str) -> bool:
        short = self.model.rsplit("/", 1)[-1]
        return word in (self.name, short, *self.labels.values())


def find_lm_eval_candidates(outputs: list[LmEvalOutput], source: RunSource) -> list[LmEvalCandidate]:
    """Every run that the outputs hold, named."""
    grouped: dict[tuple[Any, ...], list[LmEvalTask]] = {}
    for output in outputs:
        for task in iter_lm_eval_tasks(output, source):
            key = (
                lm_eval_model_name(output, source),
                task.group,
                task.shots,
                lm_eval_settings_key(output, task.name),
            )
            grouped.setdefault(key, []).append(task)
    candidates = []
    for (model, group, shots, _), tasks in grouped.items():
        for kept, notes in _latest_tasks(tasks, f"{model} {group}", source):
            stamp = max(task.output.stamp for task in kept)
            candidates.append(
                LmEvalCandidate(
                    model=model, group=group, shots=shots, stamp=stamp, tasks=tuple(kept), notes=notes
                )
            )
    candidates = sorted(candidates, key=lambda candidate: (candidate.stamp, candidate.model, candidate.group))
    return _name_candidates(candidates)


def _latest_tasks(
    tasks: list[LmEvalTask], label: str, source: RunSource
) -> list[tuple[list[LmEvalTask], tuple[str, ...]]]:
    """One measured more than once counts as it was measured last. Outputs over different subjects belong
    together; those that share some of their subjects are ambiguous unless one is chosen.
    """
    by_time: dict[tuple[str, Path], list[LmEvalTask]] = {}
    for task in tasks:
        by_time.setdefault((task.output.stamp, task.output.folder), []).append(task)
    times = sorted(by_time, key=lambda place: (place[0], str(place[1])), reverse=True)
    words = (source.choice or "").split(",")
    named = [place for place in times if place[0] and place[0] in words]
    if named:
        times = named
    kept = list(by_time[times[0]])
    replaced, joined = [], [times[0][0]]
    for place in times[1:]:
        known = {task.subject.name for task in kept}
        own = {task.subject.name for task in by_time[place]}
        if place[0] != times[0][0] and own <= known:
            replaced.append(place[0])
        elif not own & known:
            kept += by_time[place]
            joined.append(place[0])
        else:
            choices = " or ".join(f"{source.path}:{stamp}" for stamp, _ in times[:5] if stamp)
            raise RunError(
                f"{source.argument}: holds {len(times)} outputs of {label} that share some of their subjects,"
                f" but not all ({', '.join(f'{p[0]} in {p[1]}' for p in times[:5])}); name one"
                f"{f', as {choices}' if choices else ': give its results file'}"
            )
    notes = []
    if replaced:
        notes.append(
            f"{source.argument}: {label} was measured {len(replaced) + 1} times; the latest is taken"
            f" ({joined[0]}), not {', '.join(replaced)}"
        )
    if len(joined) > 1:
        notes.append(
            f"{source.argument}: {label} is put together from {len(joined)} outputs over different subjects"
            f" ({', '.join(reversed(joined))})"
        )
    return [(kept, tuple(notes))]


def _name_candidates(candidates: list[LmEvalCandidate]) -> list[LmEvalCandidate]:
    """Each called by its model, and by whatever sets it apart from others of the same model."""
    named = []
    for candidate in candidates:
        same = [other for other in candidates if other.model == candidate.model]
        words = [candidate.model]
        for label in ("group", "shots", "stamp"):
            varies = len({other.labels[label] for other in same}) > 1
            apart = len({tuple(other.labels[name] for name in ("group", "shots")) for other in same})
            if varies and (label != "stamp" or apart < len(same)):
                words.append(candidate.labels[label])
        named.append(replace(candidate, name=" ".join(word for word in words if word)))
    return named


def choose_lm_eval_candidates(
    candidates: list[LmEvalCandidate], source: RunSource
) -> tuple[list[LmEvalCandidate], list[str]]:
    """The candidates that the choice names, and words of it that must be filters."""
    if not source.choice:
        return candidates, []
    whole = [candidate for candidate in candidates if candidate.is_called(source.choice)]
    if whole:
        return whole, []
    filters, chosen = [], candidates
    for word in source.choice.split(","):
        called = [candidate for candidate in chosen if candidate.is_called(word.strip())]
        if called:
            chosen = called
        elif any(candidate.is_called(word.strip()) for candidate in candidates):
            raise RunError(f"{source.argument}: no run has all of {source.choice}; {_listing(candidates)}")
        else:
            filters.append(word.strip())
    return chosen, filters


def _listing(candidates: Iterable[LmEvalCandidate]) -> str:
    names = [f"{candidate.name} ({len(candidate.tasks)} subjects)" for candidate in candidates]
    return f"it holds {', '.join(names[:10])}"
