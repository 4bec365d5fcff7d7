"""What reasoning, samples and rotations bought: a run's predictions in, the comparison as numbers, lines and one question's text out.

In: predictions (PREDICTION_SCHEMA), and the seconds of the pass where they are known. Out: a JSON-able dict for metrics.json, lines for
the terminal, a question's texts to read. Knows nothing of models or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from kmmlu_fast.extraction import STRICT
from kmmlu_fast.language import Texts, percent
from kmmlu_fast.schema import LETTERS

DIRECT = "loglikelihood"  # read_by of a question that was answered without reasoning
WAYS = {
    "direct": "direct",
    "budgeted": "budgeted",
    "what_if": "budgeted, had it been margin < {below}",
    "full": "chain of thought",
    "full_unforced": "chain of thought, forced counted wrong",
}
_SHARES = (0.25, 0.5, 0.75)  # of questions reasoned about, in the what-if rows of a full run


def comparison(frame: pl.DataFrame, *, seconds: float | None = None, direct_seconds: float | None = None) -> dict[str, Any]:
    """Direct, full and budgeted reasoning; strict, lenient, forced; raw and debiased. Only what the run holds is in the dict.

    ``seconds``: the whole pass; ``direct_seconds``: the part of it that the direct prefills take. ``ways`` are named by ``WAYS``; a full
    run tells what a budgeted one would have answered, at an ``estimated`` cost: seconds by generated tokens.
    """
    result: dict[str, Any] = {}
    if frame["texts"].null_count() < len(frame) or frame["direct_prediction"].null_count() < len(frame):
        result["read_by"] = read_by(frame)
        result["rungs"] = dict(sorted(frame["read_by"].fill_null("unparsed").value_counts().iter_rows(), key=lambda item: -item[1]))
        result["ways"] = _ways(frame, seconds, direct_seconds)
    if frame["sample_predictions"].null_count() < len(frame):
        result["samples"] = _samples(frame.drop_nulls("sample_predictions"))
    if frame["debiased_prediction"].null_count() < len(frame):
        result["rotations"] = _rotations(frame)
    return result


def read_by(frame: pl.DataFrame) -> dict[str, int]:
    """How many answers were read strictly, leniently, forced, not at all, or without reasoning (``direct``)."""
    rung, forced = pl.col("read_by"), pl.col("forced")
    direct = pl.col("texts").is_null() & (rung == DIRECT)
    strict = rung.is_in(STRICT) & ~forced
    counts = frame.select(
        strict=strict.sum(),
        lenient=(rung.is_not_null() & ~strict & ~forced & ~direct).sum(),
        forced=forced.sum(),
        unparsed=pl.col("prediction").is_null().sum(),
        direct=direct.sum(),
    )
    return {name: int(value or 0) for name, value in counts.row(0, named=True).items()}


def _ways(frame: pl.DataFrame, seconds: float | None, direct_seconds: float | None) -> list[dict[str, Any]]:
    """One row a way to answer the same questions, cheapest first."""
    reasoned = frame["texts"].is_not_null()
    generated = frame.select(
        (pl.col("output_tokens") - pl.col("direct_prediction").is_not_null().cast(pl.Int32)).cast(pl.Int64)
    ).to_series()
    total_generated = int(generated.filter(reasoned).sum())
    reasoning_seconds = None if seconds is None else max(0.0, seconds - (direct_seconds or 0.0))
    has_direct = frame["direct_prediction"].null_count() == 0

    def row(way: str, predictions: pl.Series, tokens: int, asked: int, below: float | None = None) -> dict[str, Any]:
        cost = None
        if way == "direct":
            cost = None if direct_seconds is None else round(direct_seconds, 2)
        elif reasoning_seconds is not None:
            cost = round((direct_seconds or 0.0) + reasoning_seconds * (tokens / total_generated if total_generated else 0.0), 2)
        correct = int((predictions == frame["answer"]).fill_null(False).sum())
        return {
            "way": way, "below": below, "accuracy": correct / len(frame), "correct": correct, "reasoned": asked,
            "output_tokens": tokens + (len(frame) if has_direct else 0), "seconds": cost, "estimated": below is not None,
        }  # fmt: skip

    rows = [row("direct", frame["direct_prediction"], 0, 0)] if has_direct else []
    asked = int(reasoned.sum())
    if asked < len(frame):
        rows.append(row("budgeted", frame["prediction"], total_generated, asked))
        return rows
    if has_direct and frame["margin"].null_count() == 0 and len(frame) >= 1 / _SHARES[0]:
        for share in _SHARES:
            below = float(frame["margin"].quantile(share, "lower") or 0.0)
            doubtful = frame["margin"] < below
            mixed = frame.select(pl.when(doubtful).then("prediction").otherwise("direct_prediction")).to_series()
            rows.append(row("what_if", mixed, int(generated.filter(doubtful).sum()), int(doubtful.sum()), below))
    without = frame.select(pl.when(~pl.col("forced")).then("prediction")).to_series()
    rows.append(row("full", frame["prediction"], total_generated, asked))
    rows.append(row("full_unforced", without, total_generated, asked))
    return rows


def _samples(frame: pl.DataFrame) -> dict[str, Any]:
    first = frame["sample_predictions"].list.first() == frame["answer"]
    some = frame.select(pl.col("sample_predictions").list.contains(pl.col("answer"))).to_series()
    return {
        "num_samples": int(frame["sample_predictions"].list.len().max() or 0),  # type: ignore[arg-type]
        "accuracy_first_sample": _mean(first),
        "accuracy_majority": _mean(frame["correct"]),
        "accuracy_any_sample": _mean(some),
        "agreement": _mean(frame["confidence"]),
    }


def _rotations(frame: pl.DataFrame) -> dict[str, Any]:
    def shares(column: str) -> dict[str, float]:
        return {letter: _mean(frame[column] == letter) for letter in LETTERS}

    return {
        "accuracy_raw": _mean(frame["correct"]),
        "accuracy_debiased": _mean(frame["debiased_prediction"] == frame["answer"]),
        "changed": int((frame["prediction"] != frame["debiased_prediction"]).sum()),
        "letter_share_raw": shares("prediction"),
        "letter_share_debiased": shares("debiased_prediction"),
        "letter_share_answer": shares("answer"),
    }


def _mean(values: pl.Series) -> float:
    return float(values.fill_null(0).mean() or 0.0)  # type: ignore[arg-type]


def comparison_lines(result: Mapping[str, Any]) -> list[str]:
    """The comparison for a terminal; [] where there is nothing to compare."""
    lines: list[str] = []
    if "read_by" in result:
        lines.append("answers read: " + ", ".join(f"{name} {count}" for name, count in result["read_by"].items()))
        lines.append("by rung: " + ", ".join(f"{name} {count}" for name, count in result["rungs"].items()))
        lines.append(f"{'way':<42} {'accuracy':>8} {'reasoned':>8} {'output tokens':>13} {'seconds':>9}")
        for row in result["ways"]:
            cost = "-" if row["seconds"] is None else f"{'~' if row['estimated'] else ''}{row['seconds']:.1f}"
            name = WAYS[row["way"]].format(below=f"{row['below'] or 0:.3g}")
            lines.append(f"{name:<42} {row['accuracy']:>8.4f} {row['reasoned']:>8} {row['output_tokens']:>13} {cost:>9}")
    if samples := result.get("samples"):
        lines.append(
            f"{samples['num_samples']} samples: first {samples['accuracy_first_sample']:.4f}, majority {samples['accuracy_majority']:.4f}, "
            f"any {samples['accuracy_any_sample']:.4f}, agreement {samples['agreement']:.4f}"
        )
    if turned := result.get("rotations"):
        lines.append(
            f"accuracy raw {turned['accuracy_raw']:.4f}, debiased {turned['accuracy_debiased']:.4f}; {turned['changed']} letters changed"
        )
        for name in ("raw", "debiased", "answer"):
            lines.append(f"{name + ' letters':<16} " + " ".join(f"{k} {v:.3f}" for k, v in turned[f"letter_share_{name}"].items()))
    return lines


def section(runs: Sequence[tuple[str, Mapping[str, Any]]], t: Texts) -> list[dict[str, Any]]:
    """The HTML report's section, as strings: an entry for each (name, metrics) that reasoned, sampled or rotated."""
    shown = []
    for name, metrics in runs:
        found = metrics.get("reasoning") or {}
        lines = [t("read_by_line", **{key: f"{count:,}" for key, count in found["read_by"].items()})] if "read_by" in found else []
        if samples := found.get("samples"):
            shares = {key: percent(samples[f"accuracy_{long}"]) for key, long in _SAMPLE_KEYS.items()}
            lines.append(t("samples_line", num=samples["num_samples"], agreement=percent(samples["agreement"]), **shares))
        if turned := found.get("rotations"):
            raw, debiased = percent(turned["accuracy_raw"]), percent(turned["accuracy_debiased"])
            lines.append(t("rotations_line", raw=raw, debiased=debiased, changed=f"{turned['changed']:,}"))
        ways = [
            {
                "name": t(f"way_{row['way']}", below=f"{row['below'] or 0:.3g}"),
                "accuracy": percent(row["accuracy"]),
                "reasoned": f"{row['reasoned']:,}",
                "tokens": f"{row['output_tokens']:,}",
                "seconds": "–" if row["seconds"] is None else f"{'~' if row['estimated'] else ''}{row['seconds']:,.1f}",
            }
            for row in found.get("ways", [])
        ]
        if found:
            shown.append({"name": name, "lines": lines, "ways": ways})
    return shown


_SAMPLE_KEYS = {"first": "first_sample", "majority": "majority", "some": "any_sample"}


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
        f"--- sample {i + 1}{f', {letters[i]}' if i < len(letters) and letters[i] else ''} ---\n{text.strip()}"
        for i, text in enumerate(row.get("texts") or [])
    ]
    return "\n".join([head, *([", ".join(facts)] if facts else []), *(texts or ["no text: answered by log-probabilities"])])
