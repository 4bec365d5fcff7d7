"""A run beside published figures, in words: the difference, that it is unpaired, and both protocols.

In: a run, ``PublishedFigure``s, a translator. Out: sentences, and the same as JSON-able data. Knows nothing
of how they are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kmmlu_fast.analysis.strata import IntervalEstimate
from kmmlu_fast.analysis.unpaired import unpaired_difference
from kmmlu_fast.reporting.wording.language import Translator, format_percent, format_points
from kmmlu_fast.runs.published import PUBLISHED_QUESTIONS, PublishedFigure
from kmmlu_fast.runs.run import Run


def published_lines(run: Run, figures: Sequence[PublishedFigure], t: Translator) -> list[str]:
    """Two sentences per figure."""
    lines = []
    for figure in figures:
        own, change = _compare_with_figure(run, figure)
        lines.append(
            t(
                "published",
                name=run.name,
                own=format_percent(own),
                model=figure.model,
                figure=format_percent(figure.figure / 100),
                diff=format_points(change.value),
                low=format_points(change.low, unit=False),
                high=format_points(change.high, unit=False),
            )
        )
        lines.append(
            t(
                "published_protocols",
                own=describe_protocol(run, t),
                theirs=figure.protocol,
                source=figure.source,
                date=str(figure.date),
            )
        )
    if figures and run.total < PUBLISHED_QUESTIONS:
        lines.append(t("published_part", name=run.name, n=f"{run.total:,}", total=f"{PUBLISHED_QUESTIONS:,}"))
    return lines


def _compare_with_figure(run: Run, figure: PublishedFigure) -> tuple[float, IntervalEstimate]:
    """The run's accuracy by the figure's metric, and the unpaired difference."""
    own = run.macro if figure.metric == "macro" else run.micro
    return own, unpaired_difference(own * run.total, run.total, figure.figure / 100, PUBLISHED_QUESTIONS)


def describe_protocol(run: Run, t: Translator) -> str:
    """How the run was asked, in a few words; what is not known is said."""
    facts = run.facts
    if not facts.get("prompt_style"):
        return t("protocol_not_known")
    parts = [str(facts["prompt_style"]), str(facts.get("output_type"))]
    return ", ".join([*parts, t("exemplars_shown", count=facts.get("num_fewshot", 0))])


def published_json(run: Run, figures: Sequence[PublishedFigure]) -> list[dict[str, Any]]:
    """The same for programs; shares 0-1."""
    rows = []
    for figure in figures:
        own, change = _compare_with_figure(run, figure)
        rows.append(
            {
                "run": run.name,
                "accuracy": own,
                **figure.model_dump(mode="json"),
                "difference": change.value,
                "low": change.low,
                "high": change.high,
                "paired": False,
            }
        )
    return rows
