"""Chain of thought in words: lines for the terminal, a section for the report.

In: a run's reasoning metrics (``analysis.reasoning``). Out: texts and rows. Knows nothing of how they are
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len

from kmmlu_fast.reporting.wording.language import Translator, format_percent
from kmmlu_fast.reporting.wording.sampling_text import BUDGET_COLUMN_KEYS, sample_lines, view_budgets
from kmmlu_fast.runs.metrics import Reasoning, Way

_SAMPLE_KEYS = {"first": "first_sample", "majority": "majority", "some": "any_sample"}


def reasoning_lines(result: Reasoning | None, t: Translator) -> list[str]:
    """The comparison for a terminal; [] if there is nothing to compare. ``t``: report and summary."""
    lines: list[str] = []
    if result is None:
        return lines
    if result.read_by is not None:
        rungs = ", ".join(f"{name} {count}" for name, count in result.rungs.items())
        lines += [t("answers_read", **dict(result.read_by)), t("rungs", rungs=rungs)]
        names = ("way", "accuracy", "reasoned", "output_tokens", "seconds")
        lines.append(_table_line(*(t(name) for name in names)))
        for row in result.ways:
            accuracy, seconds = f"{row.accuracy:.4f}", _format_seconds(row, ".1f") or "-"
            counts = (str(row.reasoned), str(row.output_tokens))
            lines.append(_table_line(_method_name(row, t), accuracy, *counts, seconds))
    if samples := result.samples:
        shares = {key: f"{getattr(samples, f'accuracy_{long}'):.4f}" for key, long in _SAMPLE_KEYS.items()}
        agreement = f"{samples.agreement:.4f}"
        lines.append(t("samples", num=samples.num_samples, agreement=agreement, **shares))
    lines += sample_lines(result.samples, t)
    if budgets := view_budgets(result, t):
        lines.append(t("budget_heading") + ":")
        lines += _plain_table([[t(name) for name in BUDGET_COLUMN_KEYS], *budgets.rows])
        lines.append(budgets.line)
    if rotations := result.rotations:
        raw, debiased = f"{rotations.accuracy_raw:.4f}", f"{rotations.accuracy_debiased:.4f}"
        lines.append(t("rotations", raw=raw, debiased=debiased, changed=rotations.changed))
        for name in ("raw", "debiased", "answer"):
            letters = " ".join(f"{k} {v:.3f}" for k, v in getattr(rotations, f"letter_share_{name}").items())
            label = t(f"shares_{name}")
            lines.append(f"{_pad_text(label, 16)} {letters}")
    return lines


def _method_name(row: Way, t: Translator) -> str:
    return t(f"way_{row.way}", below=f"{row.below or 0:.3g}")


def _format_seconds(row: Way, spec: str) -> str:
    """The seconds, "~" before an estimate; "" if unknown."""
    if row.seconds is None:
        return ""
    return f"{'~' if row.estimated else ''}{row.seconds:{spec}}"


def _table_line(name: str, *values: str) -> str:
    """A line of the table of methods; Korean letters are two cells wide."""
    widths = (8, 10, 13, 9)
    cells = (" " * (width - cell_len(value)) + value for value, width in zip(values, widths, strict=True))
    return f"{_pad_text(name, 42)} {' '.join(cells)}"


def _plain_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their columns aligned, the first column to the left."""
    widths = [max(cell_len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [
            " " * (width - cell_len(cell)) + cell for cell, width in zip(others, widths[1:], strict=True)
        ]
        lines.append("  ".join([_pad_text(first, widths[0]), *cells]))
    return lines


def _pad_text(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def reasoning_section(runs: Sequence[tuple[str, Reasoning | None]], t: Translator) -> list[dict[str, Any]]:
    """The HTML report's section, as strings: an entry for each (name, reasoning) with reasoning, samples or
    rotations.
    """
    sections = []
    for name, result in runs:
        if result is None:
            continue
        lines = []
        if result.read_by is not None:
            lines.append(t("read_by_line", **{key: f"{n:,}" for key, n in result.read_by}))
        if samples := result.samples:
            shares = {
                key: format_percent(getattr(samples, f"accuracy_{long}"))
                for key, long in _SAMPLE_KEYS.items()
            }
            agreement = format_percent(samples.agreement)
            lines.append(t("samples_line", num=samples.num_samples, agreement=agreement, **shares))
        lines += sample_lines(result.samples, t)
        if rotations := result.rotations:
            raw = format_percent(rotations.accuracy_raw)
            debiased = format_percent(rotations.accuracy_debiased)
            changed = f"{rotations.changed:,}"
            lines.append(t("rotations_line", raw=raw, debiased=debiased, changed=changed))
        ways = [
            {
                "name": _method_name(row, t),
                "accuracy": format_percent(row.accuracy),
                "reasoned": f"{row.reasoned:,}",
                "tokens": f"{row.output_tokens:,}",
                "seconds": _format_seconds(row, ",.1f") or "–",
            }
            for row in result.ways
        ]
        sections.append({"name": name, "lines": lines, "ways": ways, "budgets": view_budgets(result, t)})
    return sections
