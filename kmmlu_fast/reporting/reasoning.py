"""How chain of thought is shown: lines for the terminal, a section for the report.

In: a run's reasoning metrics (``analysis.reasoning``). Out: texts and rows. Knows nothing of how they were
counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kmmlu_fast.reporting.language import Texts, percent

WAYS = {
    "direct": "direct",
    "budgeted": "budgeted",
    "what_if": "budgeted, had it been margin < {below}",
    "full": "chain of thought",
    "full_unforced": "chain of thought, forced counted wrong",
}
_SAMPLE_KEYS = {"first": "first_sample", "majority": "majority", "some": "any_sample"}


def comparison_lines(result: Mapping[str, Any]) -> list[str]:
    """The comparison for a terminal; [] where there is nothing to compare."""
    lines: list[str] = []
    if "read_by" in result:
        lines.append(
            "answers read: " + ", ".join(f"{name} {count}" for name, count in result["read_by"].items())
        )
        lines.append("by rung: " + ", ".join(f"{name} {count}" for name, count in result["rungs"].items()))
        lines.append(f"{'way':<42} {'accuracy':>8} {'reasoned':>8} {'output tokens':>13} {'seconds':>9}")
        for row in result["ways"]:
            cost = "-" if row["seconds"] is None else f"{'~' if row['estimated'] else ''}{row['seconds']:.1f}"
            name = WAYS[row["way"]].format(below=f"{row['below'] or 0:.3g}")
            lines.append(
                f"{name:<42} {row['accuracy']:>8.4f} {row['reasoned']:>8} {row['output_tokens']:>13}"
                f" {cost:>9}"
            )
    if samples := result.get("samples"):
        lines.append(
            f"{samples['num_samples']} samples: first {samples['accuracy_first_sample']:.4f}, majority"
            f" {samples['accuracy_majority']:.4f}, any {samples['accuracy_any_sample']:.4f}, agreement"
            f" {samples['agreement']:.4f}"
        )
    if turned := result.get("rotations"):
        lines.append(
            f"accuracy raw {turned['accuracy_raw']:.4f}, debiased {turned['accuracy_debiased']:.4f};"
            f" {turned['changed']} letters changed"
        )
        for name in ("raw", "debiased", "answer"):
            lines.append(
                f"{name + ' letters':<16} "
                + " ".join(f"{k} {v:.3f}" for k, v in turned[f"letter_share_{name}"].items())
            )
    return lines


def section(runs: Sequence[tuple[str, Mapping[str, Any]]], t: Texts) -> list[dict[str, Any]]:
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
            shares = {key: percent(samples[f"accuracy_{long}"]) for key, long in _SAMPLE_KEYS.items()}
            lines.append(
                t(
                    "samples_line",
                    num=samples["num_samples"],
                    agreement=percent(samples["agreement"]),
                    **shares,
                )
            )
        if turned := found.get("rotations"):
            raw, debiased = percent(turned["accuracy_raw"]), percent(turned["accuracy_debiased"])
            lines.append(t("rotations_line", raw=raw, debiased=debiased, changed=f"{turned['changed']:,}"))
        ways = [
            {
                "name": t(f"way_{row['way']}", below=f"{row['below'] or 0:.3g}"),
                "accuracy": percent(row["accuracy"]),
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


def show(row: Mapping[str, Any]) -> str:
    """One prediction for reading: how it was answered and every text."""
    head = (
        f"{row['question_id']}: answer {row['answer']}, prediction {row['prediction'] or 'none'} "
        f"({'correct' if row['correct'] else 'wrong'}, read by {row['read_by'] or 'nothing'})"
    )
    facts = [
        f"{name} {row[key]:.3f}" if isinstance(row[key], float) else f"{name} {row[key]}"
        for name, key in (
            ("direct", "direct_prediction"),
            ("debiased", "debiased_prediction"),
            ("margin", "margin"),
            ("agreement", "confidence"),
        )
        if row.get(key) is not None
    ]
    letters = row.get("sample_predictions") or []
    texts = [
        f"--- sample {i + 1}{f', {letters[i]}' if i < len(letters) and letters[i] else ''}"
        f" ---\n{text.strip()}"
        for i, text in enumerate(row.get("texts") or [])
    ]
    return "\n".join(
        [head, *([", ".join(facts)] if facts else []), *(texts or ["no text: answered by log-probabilities"])]
    )
