"""What an evaluation that may stop early leaves behind: the record of a state, and an interval drawn as a
line.

In: a state and the seconds it took, a decision; an interval. Out: JSON-able values; text. Knows neither
engines nor files.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from kmmlu_fast.analysis.sequential.betting import Decision
from kmmlu_fast.evaluation.early_stopping.passes import ModelStateProgress

_WIDTH = 31  # characters of the drawn interval


def early_stop_outcome(
    state: ModelStateProgress, seconds: float, decision: Decision | None
) -> dict[str, Any]:
    """Decision, speed, and what the full pass would cost: an estimate from this session's rate, None if it
    asked nothing.
    """
    count, total = state.asked_now, len(state.order)
    full = {"questions": total, "seconds": round(seconds / count * total, 1) if count else None}

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
    return {"decision": None if decision is None else asdict(decision), "full_pass": full, "speed": speed}


def draw_interval_line(low: float, high: float) -> str:
    """An interval as a line of characters, zero in the middle: -20 pp [        |  ---     ] +20 pp; what is
    beyond is cut.
    """
    edge = next((edge for edge in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if max(-low, high) <= edge), 1.0)
    places = np.linspace(-edge, edge, _WIDTH)
    inside = (places >= low - edge / _WIDTH) & (places <= high + edge / _WIDTH)
    middle = _WIDTH // 2
    line = "".join("|" if place == middle else "-" if inside[place] else " " for place in range(_WIDTH))
    return f"{-100 * edge:g} [{line}] {100 * edge:+g}"
