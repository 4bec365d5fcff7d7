"""What reasoning, samples and rotations gained and cost.

In: predictions (PREDICTION_SCHEMA), and the seconds of the pass if known. Out: the part ``reasoning``
of its metrics. Knows nothing of models or files.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import polars as pl

from kmmlu_fast.analysis.accuracy import letters_of_frame
from kmmlu_fast.analysis.budget_curve import BudgetPoint, compute_budget_curve
from kmmlu_fast.analysis.sample_variance import estimate_sampled_accuracy
from kmmlu_fast.prompting.answer_extraction import STRICT
from kmmlu_fast.prompting.vote_stopping import VoteStopping, count_samples_drawn, majority_vote
from kmmlu_fast.runs.metrics import Reasoning

DIRECT = "loglikelihood"  # read_by of a question answered without reasoning
GENERATED = ("exact_match", "pattern")  # read_by of generate_until
_SHARES = (0.25, 0.5, 0.75)  # of the questions with reasoning, in the what-if rows of a full run


def compare_reasoning(
    frame: pl.DataFrame, *, seconds: float | None = None, direct_seconds: float | None = None
) -> Reasoning | None:
    """Direct, full and budgeted reasoning; strict, lenient, forced; raw and debiased. Parts that the run does
    not have are None; None if it has none.

    ``seconds``: the whole pass; ``direct_seconds``: the part spent on direct prefills. In ``ways``
    a full run shows what a budgeted one would have answered, at an ``estimated`` cost: seconds by generated
    tokens.
    """
    result: dict[str, Any] = {}
    if frame["texts"].null_count() < len(frame) or frame["direct_prediction"].null_count() < len(frame):
        result["read_by"] = count_read_by(frame)
        counts = frame["read_by"].fill_null("unparsed").value_counts()
        result["rungs"] = dict(sorted(counts.iter_rows(), key=lambda item: -item[1]))
        if _has_reasoning(frame):
            result["ways"] = _compare_ways(frame, seconds, direct_seconds)
    if frame["sample_predictions"].null_count() < len(frame):
        result["samples"] = _sample_summary(frame.drop_nulls("sample_predictions"))
    if points := compute_budget_curve(frame):
        result["budgets"] = [_budget_point(point) for point in points]
    if frame["debiased_prediction"].null_count() < len(frame):
        result["rotations"] = _rotation_summary(frame)
    return Reasoning.model_validate(result) if result else None


def reasoning_part(
    frame: pl.DataFrame, *, seconds: float | None = None, direct_seconds: float | None = None
) -> dict[str, Any]:
    """``compare_reasoning`` as a part of metrics.json: {} if the run reasoned nowhere."""
    reasoning = compare_reasoning(frame, seconds=seconds, direct_seconds=direct_seconds)
    return {} if reasoning is None else {"reasoning": reasoning.to_json()}


def count_read_by(frame: pl.DataFrame) -> dict[str, int]:
    """How many answers were read strictly, leniently, forced, not at all, or directly (no reasoning)."""
    rule, forced = pl.col("read_by"), pl.col("forced")
    direct = pl.col("texts").is_null() & (rule == DIRECT)
    strict = rule.is_in((*STRICT, *GENERATED)) & ~forced
    counts = frame.select(
        strict=strict.sum(),
        lenient=(rule.is_not_null() & ~strict & ~forced & ~direct).sum(),
        forced=forced.sum(),
        unparsed=pl.col("prediction").is_null().sum(),
        direct=direct.sum(),
    )
    return {name: int(value or 0) for name, value in counts.row(0, named=True).items()}


def _has_reasoning(frame: pl.DataFrame) -> bool:
    """Whether texts are of chain of thought: those of generate_until have no direct answers, and some are not
    read.
    """
    generated = frame["read_by"].is_null() | frame["read_by"].is_in(GENERATED)
    return not (generated.all() and frame["direct_prediction"].null_count() == len(frame))


def _compare_ways(
    frame: pl.DataFrame, seconds: float | None, direct_seconds: float | None
) -> list[dict[str, Any]]:
    """One row per way to answer the same questions, cheapest first."""
    reasoned = frame["texts"].is_not_null()
    direct_tokens = frame["direct_prediction"].is_not_null().cast(pl.Int32)
    generated = (frame["output_tokens"] - direct_tokens).cast(pl.Int64)
    total_generated = int(generated.filter(reasoned).sum())
    reasoning_seconds = None if seconds is None else max(0.0, seconds - (direct_seconds or 0.0))
    has_direct = frame["direct_prediction"].null_count() == 0

    def row(
        way: str, predictions: pl.Series, tokens: int, asked: int, below: float | None = None
    ) -> dict[str, Any]:
        cost = direct_seconds
        if way != "direct":
            cost = None
            if reasoning_seconds is not None:
                share = tokens / total_generated if total_generated else 0.0
                cost = (direct_seconds or 0.0) + reasoning_seconds * share
        correct = int((predictions == frame["answer"]).fill_null(False).sum())
        return {
            "way": way,
            "below": below,
            "accuracy": correct / len(frame),
            "correct": correct,
            "reasoned": asked,
            "output_tokens": tokens + (len(frame) if has_direct else 0),
            "seconds": None if cost is None else round(cost, 2),
            "estimated": below is not None,
        }

    rows = [row("direct", frame["direct_prediction"], 0, 0)] if has_direct else []
    asked = int(reasoned.sum())
    if asked < len(frame):
        rows.append(row("budgeted", frame["prediction"], total_generated, asked))
        return rows
    if has_direct and frame["margin"].null_count() == 0 and len(frame) >= 1 / _SHARES[0]:
        for share in _SHARES:
            below = float(frame["margin"].quantile(share, "lower") or 0.0)
            doubtful = frame["margin"] < below
            mixed = frame["prediction"].zip_with(doubtful, frame["direct_prediction"])
            tokens = int(generated.filter(doubtful).sum())
            rows.append(row("what_if", mixed, tokens, int(doubtful.sum()), below))
    unforced = frame.select(pl.when(~pl.col("forced")).then("prediction")).to_series()
    rows.append(row("full", frame["prediction"], total_generated, asked))
    rows.append(row("full_unforced", unforced, total_generated, asked))
    return rows


def _sample_summary(frame: pl.DataFrame) -> dict[str, Any]:
    first = frame["sample_predictions"].list.first() == frame["answer"]
    any_right = frame.select(pl.col("sample_predictions").list.contains(pl.col("answer"))).to_series()
    drawn = frame["sample_predictions"].list.len()
    summary = {
        "num_samples": int(drawn.max() or 0),  # type: ignore[arg-type]
        "accuracy_first_sample": _mean_or_zero(first),
        "accuracy_majority": _mean_or_zero(frame["correct"]),
        "accuracy_any_sample": _mean_or_zero(any_right),
        "agreement": _mean_or_zero(frame["confidence"]),
        "average": _average_accuracy(frame, int(drawn.min() or 1)),  # type: ignore[arg-type]
    }
    if drawn.n_unique() > 1:
        summary["drawn"] = float(drawn.mean())  # type: ignore[arg-type]
    elif (drawn.max() or 0) > 2:  # type: ignore[operator]
        summary["stopping"] = [_replay_stopping(frame, rule) for rule in ("exact", "likely")]
    return summary


def _average_accuracy(frame: pl.DataFrame, samples: int) -> dict[str, Any]:
    """avg@k of the first k samples, which every question has: later ones were drawn where the vote was open,
    so counting them would weigh doubtful questions more.
    """
    letters = pl.col("sample_predictions").list
    right = sum(
        (letters.get(place) == pl.col("answer")).fill_null(False).cast(pl.Int64) for place in range(samples)
    )
    counts = frame.select(pl.lit(0, dtype=pl.Int64) + right).to_series()
    estimate = estimate_sampled_accuracy(counts.to_numpy(), samples)
    return {**asdict(estimate), "sampling_share": estimate.sampling_share}


def _replay_stopping(frame: pl.DataFrame, rule: VoteStopping) -> dict[str, Any]:
    """What --vote-stopping would have left of these samples: how many, their tokens, the votes."""
    kept_tokens = all_tokens = drawn = right = changed = 0
    has_tokens = frame["sample_tokens"].null_count() == 0
    rows = frame.select("sample_predictions", "sample_tokens", "prediction", "answer").iter_rows()
    for letters, tokens, prediction, answer in rows:
        count = count_samples_drawn(letters, rule)
        drawn += count
        if has_tokens:
            kept_tokens += sum(tokens[:count])
            all_tokens += sum(tokens)
        vote = prediction if count == len(letters) else majority_vote(letters[:count], None)[0]
        right += vote == answer
        changed += vote != prediction
    return {
        "rule": rule,
        "samples": drawn / len(frame),
        "tokens": kept_tokens / all_tokens if all_tokens else None,
        "accuracy": right / len(frame),
        "changed": changed,
    }


def _budget_point(point: BudgetPoint) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "budget": point.budget,
        "accuracy": point.accuracy,
        "ci_low": point.low,
        "ci_high": point.high,
        "cut": point.cut,
        "tokens": point.tokens,
    }
    if change := point.change:
        shown |= {"difference": change.difference, "low": change.low, "high": change.high}
        shown |= {"p_holm": point.p_holm, "significant": point.significant}
    return shown


def _rotation_summary(frame: pl.DataFrame) -> dict[str, Any]:
    def shares(column: str) -> dict[str, float]:
        return {letter: _mean_or_zero(frame[column] == letter) for letter in letters_of_frame(frame)}

    return {
        "accuracy_raw": _mean_or_zero(frame["correct"]),
        "accuracy_debiased": _mean_or_zero(frame["debiased_prediction"] == frame["answer"]),
        "changed": int((frame["prediction"] != frame["debiased_prediction"]).sum()),
        "letter_share_raw": shares("prediction"),
        "letter_share_debiased": shares("debiased_prediction"),
        "letter_share_answer": shares("answer"),
    }


def _mean_or_zero(values: pl.Series) -> float:
    return float(values.fill_null(0).mean() or 0.0)  # type: ignore[arg-type]
