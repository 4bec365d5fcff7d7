"""The record of a model state in an evaluation that may stop early, and an interval drawn as text.

In: a state, its seconds and a decision; an interval. Out: JSON-able values; text. Knows neither engines nor
files.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from kmmlu_fast.analysis.sequential.betting import Decision
from kmmlu_fast.analysis.sequential.several import RaceState
from kmmlu_fast.evaluation.early_stopping.passes import ModelStateProgress

_WIDTH = 31  # characters of the drawn interval


def early_stop_outcome(
    state: ModelStateProgress, seconds: float, decision: Decision | None
) -> dict[str, Any]:
    """Decision, speed, and the cost of the full pass at this session's rate (None if it asked nothing)."""
    count, total = state.asked_now, len(state.order)
    full_pass = {"questions": total, "seconds": round(seconds / count * total, 1) if count else None}

    def rate(amount: int, digits: int) -> float:
        return round(amount / seconds, digits) if seconds else 0.0

    speed = {
        "questions": count,
        "seconds": round(seconds, 3),
        "questions_per_sec": rate(count, 2),
        "prompt_tokens_per_sec": rate(state.prompt_tokens, 1),
        "output_tokens_per_sec": rate(state.output_tokens, 1),
        "questions_before": len(state.right) - count,
    }
    return {"decision": asdict(decision) if decision else None, "full_pass": full_pass, "speed": speed}


def draw_interval_line(low: float, high: float) -> str:
    """An interval in pp as text, zero in the middle, clipped at the ends: -20 [        |  ---     ] +20."""
    edge = next((edge for edge in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if max(-low, high) <= edge), 1.0)
    places = np.linspace(-edge, edge, _WIDTH)
    inside = (places >= low - edge / _WIDTH) & (places <= high + edge / _WIDTH)
    middle = _WIDTH // 2
    marks = ["-" if is_inside else " " for is_inside in inside]
    marks[middle] = "|"
    line = "".join(marks)
    return f"{-100 * edge:g} [{line}] {100 * edge:+g}"


def describe_race(race: RaceState) -> str:
    """Which adapter is best, in one line."""
    lost = "; ".join(f"{loser} lost to {winner}" for loser, winner in race.lost_to.items())
    if race.best is None:
        state = f"not decided which is best of {', '.join(race.left)}"
    elif len(race.left) == 1:
        state = f"{race.best} is the best"
    else:
        others = ", ".join(name for name in race.left if name != race.best)
        state = f"{race.best} is the best, or within the margin of the best ({others} could be)"
    return f"race: {state}" + (f"; {lost}" if lost else "")


def round_to_two_digits(count: int) -> int:
    """1,968 -> 2,000: a forecast is no more precise than that."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return max(1, round(count / step) * step)
