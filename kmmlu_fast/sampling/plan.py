"""How many questions of which subject: a part in proportion to each subject's expected errors, the rest
evenly.

In: scores by subject, sizes of the pool. Out: a plan, written beside the data. Knows nothing of single
questions.
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
    """Subjects named; else the ``fraction`` with the lowest accuracy; else those below micro accuracy. By
    name.

    ``accuracy`` (``weakness.subject_posterior``'s shrunk one) instead of the raw one, which few questions make noisy.
    """
    if named:
        return sorted(named)
    raw = {
        subject: correct / total
        for subject, correct, total in scores.select("subject", "correct", "total").iter_rows()
    }
    accuracy = raw if accuracy is None else accuracy
    if fraction is not None:
        count = max(1, round(fraction * len(accuracy)))
        return sorted(sorted(accuracy, key=lambda name: (accuracy[name], name))[:count])
    micro = sum(scores["correct"]) / sum(scores["total"])
    return sorted(name for name, value in accuracy.items() if value < micro)


def largest_remainder(targets: dict[str, float], total: int) -> dict[str, int]:
    """Whole numbers that sum to ``total``, in proportion to ``targets``; equal remainders by name."""
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
    """(quota, drawn): largest remainder without caps, and what is drawn once supply has capped
    it. Both sum to ``size``.
    """
    available = sum(supply.get(name, 0) for name in targets)
    if available < size:
        raise ConfigError(
            f"--size {size} is larger than the {available} questions there are to draw from; lower --size, or"
            " allow --max-repeats"
        )
    quota = largest_remainder(targets, size)
    drawn = {name: min(count, supply.get(name, 0)) for name, count in quota.items()}
    while missing := size - sum(drawn.values()):
        room = {
            name: targets[name] for name in targets if drawn[name] < supply.get(name, 0) and targets[name] > 0
        }
        # With every target used up, whoever has questions left shares the rest evenly.
        room = room or {name: 1.0 for name in targets if drawn[name] < supply.get(name, 0)}
        for name, count in largest_remainder(room, missing).items():
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
    """The plan, one row a subject in table order: subject, supercategory, total, correct, errors, accuracy,
    shrunk, low, high, weak, weight (share of the weak part), target, quota, supply (distinct questions),
    drawn, shortfall, received.

    ``posterior``: ``weakness.subject_posterior`` of the scores; the weak part is then in proportion to its errors (1
    - shrunk), else to the raw number of errors. ``weak``: the subjects that take part in it.

    ``supply`` names the subjects to draw from, 0 where the pool has none; ``capacity`` (default: the supply)
    is how many rows each can give with its questions repeated; ``groups``: their supercategories. ConfigError
    where size and supply do not fit.
    """
    if not any(supply.values()):
        raise ConfigError(
            "the pool is empty: no training questions are left for these subjects; see what was dropped, or"
            " choose other --subjects"
        )
    counted = (
        {
            name: (total, correct)
            for name, total, correct in scores.select("subject", "total", "correct").iter_rows()
        }
        if scores is not None
        else {}
    )
    errors: dict[str, float] = {name: total - correct for name, (total, correct) in counted.items()}
    if posterior is not None:
        errors = {name: 1.0 - shrunk for name, shrunk in posterior.select("subject", "shrunk").iter_rows()}
    weak_errors = (
        {name: errors.get(name, 0) for name in weak if name in supply} if strategy == "strategic" else {}
    )
    if strategy == "strategic" and not sum(weak_errors.values()):
        raise ConfigError(
            "no weak subject with errors among those to draw from; name some by --weak-subjects, or use"
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
    """The plan of ``draw_errors``, which has no quotas: what was drawn is what was aimed at;
    ``supply`` counts wrong answers.
    """
    counted = {
        name: (total, correct)
        for name, total, correct in scores.select("subject", "total", "correct").iter_rows()
    }
    targets = {name: float(count) for name, count in drawn.items()}
    return sampling_plan_frame(counted, {}, targets, drawn, supply, drawn, groups=groups)


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
    columns = (
        "subject",
        "supercategory",
        "total",
        "correct",
        "weak",
        "weak_errors",
        "target",
        "quota",
        "supply",
        "drawn",
    )
    rows = [
        (
            n,
            groups.get(n, ""),
            *counted.get(n, (None, None)),
            n in weak_errors,
            weak_errors.get(n, 0),
            targets[n],
            quota[n],
            supply[n],
            drawn[n],
        )
        for n in subject_order(set(supply))
    ]
    whole = dict.fromkeys(("total", "correct", "quota", "supply", "drawn"), pl.Int64)
    frame = pl.DataFrame(
        rows,
        schema=columns,
        orient="row",
        schema_overrides={**whole, "target": pl.Float64, "weak_errors": pl.Float64},
    )
    all_errors = pl.col("weak_errors").sum()
    weight = pl.when(all_errors > 0).then(pl.col("weak_errors") / all_errors).otherwise(0.0)
    known = pl.DataFrame(
        schema={"subject": pl.String, **dict.fromkeys(("shrunk", "low", "high"), pl.Float64)}
    )
    shown = known if posterior is None else posterior.select(known.columns)
    frame = frame.join(shown, on="subject", how="left", maintain_order="left")
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
