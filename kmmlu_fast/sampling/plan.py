"""How many questions to draw from each subject.

In: scores by subject (``subject, correct, total``), the pool's size per subject. Out: the plan as a frame.
Knows nothing of single questions.

Strategies:
    strategic     ``weak_share`` of the size in proportion to the weak subjects' errors, the rest evenly
    uniform       evenly over all subjects
    proportional  in proportion to the pool, as a plain random draw would
    errors        only questions that the run got wrong, of any subject (``draw.draw_wrong_questions``)

Targets become whole numbers by largest remainder, so the sizes sum exactly. A subject that cannot fill its
quota gives what it has; the shortfall goes to subjects with room, in proportion to their targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.data.subjects import SUBJECTS, subject_order

GROUPS = {name: subject.supercategory for name, subject in SUBJECTS.items()}


def find_weak_subjects(
    scores: pl.DataFrame,
    fraction: float | None = None,
    named: Sequence[str] = (),
    accuracy: dict[str, float] | None = None,
) -> list[str]:
    """The named subjects; else the ``fraction`` with the lowest accuracy; else those below micro accuracy.

    Sorted by name. ``accuracy`` replaces the raw accuracy, which is noisy with few questions
    (``weakness.subject_posterior`` gives a shrunk one).
    """
    if named:
        return sorted(named)
    if accuracy is None:
        raw = scores.select("subject", pl.col("correct") / pl.col("total"))
        accuracy = dict(raw.iter_rows())
    if fraction is not None:
        count = max(1, round(fraction * len(accuracy)))
        return sorted(sorted(accuracy, key=lambda name: (accuracy[name], name))[:count])
    micro = sum(scores["correct"]) / sum(scores["total"])
    return sorted(name for name, value in accuracy.items() if value < micro)


def largest_remainder(targets: dict[str, float], total: int) -> dict[str, int]:
    """Whole numbers that sum to ``total`` in proportion to ``targets``; equal remainders go by name."""
    weight = sum(targets.values())
    exact = {name: target * total / weight for name, target in targets.items()}
    whole = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (-round(exact[name] - whole[name], 9), name))
    for name in by_remainder[: total - sum(whole.values())]:
        whole[name] += 1
    return whole


def allocate_quotas(
    targets: dict[str, float], supply: dict[str, int], size: int
) -> tuple[dict[str, int], dict[str, int]]:
    """(quota, drawn): quotas by largest remainder, and what is drawn after supply capped them.

    Both sum to ``size``.
    """
    available = sum(supply.get(name, 0) for name in targets)
    if available < size:
        raise ConfigError(
            f"--size {size} is larger than the {available} questions to draw from; lower --size, or raise"
            " --max-repeats"
        )
    quota = largest_remainder(targets, size)
    drawn = {name: min(count, supply.get(name, 0)) for name, count in quota.items()}
    while missing := size - sum(drawn.values()):
        open_subjects = [name for name in targets if drawn[name] < supply.get(name, 0)]
        # Once no open subject has a target, all of them share the rest evenly.
        room = {name: targets[name] for name in open_subjects if targets[name] > 0}
        for name, count in largest_remainder(room or dict.fromkeys(open_subjects, 1.0), missing).items():
            drawn[name] = min(drawn[name] + count, supply[name])
    return quota, drawn


def make_sampling_plan(
    scores: pl.DataFrame | None,
    supply: dict[str, int],
    size: int,
    strategy: str = "strategic",
    weak: Sequence[str] = (),
    weak_share: float = 0.7,
    capacity: dict[str, int] | None = None,
    posterior: pl.DataFrame | None = None,
    groups: Mapping[str, str] = GROUPS,
) -> pl.DataFrame:
    """The plan, one row per subject in table order: subject, supercategory, total, correct, errors, accuracy,
    shrunk, low, high, weak, weight (share of the weak part), target, quota, supply (distinct questions),
    drawn, shortfall, received.

    ``weak``: the subjects in the weak part, which is in proportion to their errors: 1 - shrunk if there is a
    ``posterior`` (``weakness.subject_posterior`` of the scores), else the raw number.

    ``supply`` names the subjects to draw from, 0 if the pool has none. ``capacity`` (default: the supply) is
    the number of rows each can give with repeats. ``groups``: their supercategories. ConfigError if size and
    supply do not fit.
    """
    if not any(supply.values()):
        raise ConfigError(
            "the pool is empty: no training questions are left for these subjects; see what was dropped, or"
            " choose other --subjects"
        )
    counted = {} if scores is None else _counts_by_subject(scores)
    errors: dict[str, float] = {name: total - correct for name, (total, correct) in counted.items()}
    if posterior is not None:
        errors = {name: 1.0 - shrunk for name, shrunk in posterior.select("subject", "shrunk").iter_rows()}
    weak_errors: dict[str, float] = {}
    if strategy == "strategic":
        weak_errors = {name: errors.get(name, 0) for name in weak if name in supply}
    if strategy == "strategic" and not sum(weak_errors.values()):
        raise ConfigError(
            "no weak subject with errors among those to draw from; name some with --weak-subjects, or use"
            " --strategy uniform"
        )
    if strategy == "proportional":
        targets = {name: size * count / sum(supply.values()) for name, count in supply.items()}
    else:
        even = size * (1 - weak_share if strategy == "strategic" else 1) / len(supply)
        targets = dict.fromkeys(supply, even)
    for name, count in weak_errors.items():
        targets[name] += size * weak_share * count / sum(weak_errors.values())
    quota, drawn = allocate_quotas(targets, capacity or supply, size)
    return sampling_plan_frame(counted, weak_errors, targets, quota, supply, drawn, posterior, groups)


def make_errors_plan(
    scores: pl.DataFrame,
    supply: dict[str, int],
    drawn: dict[str, int],
    groups: Mapping[str, str] = GROUPS,
) -> pl.DataFrame:
    """The plan of ``draw_wrong_questions``: quotas are what was drawn; ``supply`` counts wrong answers."""
    targets = {name: float(count) for name, count in drawn.items()}
    return sampling_plan_frame(_counts_by_subject(scores), {}, targets, drawn, supply, drawn, groups=groups)


def _counts_by_subject(scores: pl.DataFrame) -> dict[str, tuple[int, int]]:
    """(total, correct) by subject."""
    rows = scores.select("subject", "total", "correct").iter_rows()
    return {name: (total, correct) for name, total, correct in rows}


def sampling_plan_frame(
    counted: dict[str, tuple[int, int]],
    weak_errors: dict[str, float],
    targets: dict[str, float],
    quota: dict[str, int],
    supply: dict[str, int],
    drawn: dict[str, int],
    posterior: pl.DataFrame | None = None,
    groups: Mapping[str, str] = GROUPS,
) -> pl.DataFrame:
    """The plan's rows, in the subject table's order."""
    names = list(subject_order(set(supply)))
    counts = [counted.get(name, (None, None)) for name in names]
    whole = dict.fromkeys(("total", "correct", "quota", "supply", "drawn"), pl.Int64)
    frame = pl.DataFrame(
        {
            "subject": names,
            "supercategory": [groups.get(name, "") for name in names],
            "total": [total for total, _ in counts],
            "correct": [correct for _, correct in counts],
            "weak": [name in weak_errors for name in names],
            "weak_errors": [weak_errors.get(name, 0) for name in names],
            "target": [targets[name] for name in names],
            "quota": [quota[name] for name in names],
            "supply": [supply[name] for name in names],
            "drawn": [drawn[name] for name in names],
        },
        schema_overrides={**whole, "target": pl.Float64, "weak_errors": pl.Float64},
        strict=False,
    )
    all_errors = pl.col("weak_errors").sum()
    weight = pl.when(all_errors > 0).then(pl.col("weak_errors") / all_errors).otherwise(0.0)
    intervals = pl.DataFrame(
        schema={"subject": pl.String, **dict.fromkeys(("shrunk", "low", "high"), pl.Float64)}
    )
    if posterior is not None:
        intervals = posterior.select(intervals.columns)
    frame = frame.join(intervals, on="subject", how="left", maintain_order="left")
    return frame.select(
        "subject",
        "supercategory",
        "total",
        "correct",
        (pl.col("total") - pl.col("correct")).alias("errors"),
        (pl.col("correct") / pl.col("total")).alias("accuracy"),
        "shrunk",
        "low",
        "high",
        "weak",
        weight.alias("weight"),
        "target",
        "quota",
        "supply",
        "drawn",
        (pl.col("quota") - pl.col("drawn")).clip(lower_bound=0).alias("shortfall"),
        (pl.col("drawn") - pl.col("quota")).clip(lower_bound=0).alias("received"),
    )
