"""How chain of thought is shown: lines for the terminal, a section for the report.

In: a run's reasoning metrics (``analysis.reasoning``). Out: texts and rows. Knows nothing of how they were
counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from kmmlu_fast.reporting.wording.language import Translator, format_percent

_SAMPLE_KEYS = {"first": "first_sample", "majority": "majority", "some": "any_sample"}


def reasoning_lines(result: Mapping[str, Any], t: Translator) -> list[str]:
    """The comparison for a terminal; [] where there is nothing to compare. ``t``: report and summary."""
    lines: list[str] = []
    if "read_by" in result:
        rungs = ", ".join(f"{name} {count}" for name, count in result["rungs"].items())
        lines += [t("answers_read", **result["read_by"]), t("rungs", rungs=rungs)]
        names = ("way", "accuracy", "reasoned", "output_tokens", "seconds")
        lines.append(_table_line(*(t(name) for name in names)))
        for row in result["ways"]:
            cost = "-" if row["seconds"] is None else f"{'~' if row['estimated'] else ''}{row['seconds']:.1f}"
            name = t(f"way_{row['way']}", below=f"{row['below'] or 0:.3g}")
            accuracy, counts = f"{row['accuracy']:.4f}", (str(row["reasoned"]), str(row["output_tokens"]))
            lines.append(_table_line(name, accuracy, *counts, cost))
    if samples := result.get("samples"):
        shares = {key: f"{samples[f'accuracy_{long}']:.4f}" for key, long in _SAMPLE_KEYS.items()}
        lines.append(
            t("samples", num=samples["num_samples"], agreement=f"{samples['agreement']:.4f}", **shares)
        )
    if turned := result.get("rotations"):
        raw, debiased = (f"{turned[f'accuracy_{name}']:.4f}" for name in ("raw", "debiased"))
        lines.append(t("rotations", raw=raw, debiased=debiased, changed=turned["changed"]))
        for name in ("raw", "debiased", "answer"):
            shown = " ".join(f"{k} {v:.3f}" for k, v in turned[f"letter_share_{name}"].items())
            label = t(f"shares_{name}")
            lines.append(f"{_pad_text(label, 16)} {shown}")
    return lines


def _table_line(name: str, *values: str) -> str:
    """A line of the table of ways; Korean letters are two cells wide."""
    widths = (8, 10, 13, 9)
    cells = (" " * (width - cell_len(value)) + value for value, width in zip(values, widths, strict=True))
    return f"{_pad_text(name, 42)} {' '.join(cells)}"


def _pad_text(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def reasoning_section(runs: Sequence[tuple[str, Mapping[str, Any]]], t: Translator) -> list[dict[str, Any]]:
    """The HTML report's section, as strings: an entry for each (name, metrics) that reasoned,
    sampled or rotated.
    """
    shown = []
    for name, metrics in runs:
        found = metrics.get("reasoning") or {}
        lines = (
            [t("read_by_line", **{key: f"{count:,}" for key, count in found["read_by"].items()})]
            if "read_by" in found
            else []
        )
        if samples := found.get("samples"):
            shares = {key: format_percent(samples[f"accuracy_{long}"]) for key, long in _SAMPLE_KEYS.items()}
            lines.append(
                t(
                    "samples_line",
                    num=samples["num_samples"],
                    agreement=format_percent(samples["agreement"]),
                    **shares,
                )
            )
        if turned := found.get("rotations"):
            raw, debiased = (
                format_percent(turned["accuracy_raw"]),
                format_percent(turned["accuracy_debiased"]),
            )
            lines.append(t("rotations_line", raw=raw, debiased=debiased, changed=f"{turned['changed']:,}"))
        ways = [
            {
                "name": t(f"way_{row['way']}", below=f"{row['below'] or 0:.3g}"),
                "accuracy": format_percent(row["accuracy"]),
                "reasoned": f"{row['reasoned']:,}",
                "tokens": f"{row['output_tokens']:,}",
                "seconds": (
                    "–"
                    if row["seconds"] is None
                    else f"{'~' if row['estimated'] else ''}{row['seconds']:,.1f}"
                ),
            }
            for row in found.get("ways", [])
        ]
        if found:
            shown.append({"name": name, "lines": lines, "ways": ways})
    return shown
