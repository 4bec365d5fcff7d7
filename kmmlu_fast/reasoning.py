"""What reasoning, samples and rotations bought: a run's predictions in, the comparison as numbers, lines and one question's text out.

In: predictions (PREDICTION_SCHEMA), and the seconds of the pass where they are known. Out: a JSON-able dict for metrics.json, lines for
the terminal, a question's texts to read. Knows nothing of models or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from kmmlu_fast.extraction import STRICT
from kmmlu_fast.schema import LETTERS

DIRECT = "loglikelihood"  # read_by of a question that was answered without reasoning
_SHARES = (0.25, 0.5, 0.75)  # of questions reasoned about, in the what-if rows of a full run


def comparison(frame: pl.DataFrame, *, seconds: float | None = None, direct_seconds: float | None = None) -> dict[str, Any]:
    """Direct, full and budgeted reasoning; strict, lenient, forced; raw and debiased. Only what the run holds is in the dict.

    ``seconds``: the whole pass; ``direct_seconds``: the part of it that the direct prefills take. Costs of what was not run as such are
    marked ``estimated``: seconds then go by generated tokens.
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

    def row(name: str, predictions: pl.Series, tokens: int, asked: int, estimated: bool, with_direct: bool = True) -> dict[str, Any]:
        cost = None
        if reasoning_seconds is not None:
            share = tokens / total_generated if total_generated else 0.0
            cost = round((direct_seconds or 0.0) * with_direct + reasoning_seconds * share, 2)
        if name == "direct":
            cost = direct_seconds
        correct = int((predictions == frame["answer"]).fill_null(False).sum())
        return {
            "way": name, "accuracy": correct / len(frame), "correct": correct, "reasoned": asked,
            "output_tokens": tokens + (len(frame) if has_direct and with_direct else 0), "seconds": cost, "estimated": estimated,
        }  # fmt: skip

    rows = [row("direct", frame["direct_prediction"], 0, 0, False)] if has_direct else []
    asked = int(reasoned.sum())
    if asked < len(frame):
        rows.append(row("budgeted", frame["prediction"], total_generated, asked, False))
        return rows
    if has_direct and frame["margin"].null_count() == 0 and len(frame) >= 1 / _SHARES[0]:
        for share in _SHARES:
            below = float(frame["margin"].quantile(share, "lower") or 0.0)
            doubtful = frame["margin"] < below
            mixed = frame.select(pl.when(doubtful).then("prediction").otherwise("direct_prediction")).to_series()
            rows.append(row(f"budgeted, margin < {below:.3g}", mixed, int(generated.filter(doubtful).sum()), int(doubtful.sum()), True))
    without = frame.select(pl.when(~pl.col("forced")).then("prediction")).to_series()
    rows.append(row("chain of thought", frame["prediction"], total_generated, asked, False))
    rows.append(row("chain of thought, forced counted as wrong", without, total_generated, asked, False))
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
            lines.append(f"{row['way']:<42} {row['accuracy']:>8.4f} {row['reasoned']:>8} {row['output_tokens']:>13} {cost:>9}")
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
