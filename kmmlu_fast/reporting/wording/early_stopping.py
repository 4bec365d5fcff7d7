"""Runs that stopped early, in words: the decision, the accuracy interval, the cost, and what cannot be
concluded.

In: runs that stopped early (``Run.prefix``) or were decided before their full pass ended; comparisons. Out:
lines of text, and the same as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, get_args

from kmmlu_fast.analysis.planning import questions_to_narrow
from kmmlu_fast.analysis.protocol_differences import setting_differences
from kmmlu_fast.analysis.sequential.betting import MARGIN, Decision, Population, Verdict
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.reporting.early_pairs import EarlyComparison
from kmmlu_fast.reporting.wording.language import (
    Translator,
    format_percent,
    format_points,
    get_translator,
    p_value_clause,
)
from kmmlu_fast.reporting.wording.letter_habit import unsigned_interval
from kmmlu_fast.reporting.wording.verdict import circumstance_cautions, unknown_notes
from kmmlu_fast.runs.run import Run


def early_stopping_lines(runs: Sequence[Run], pairs: Sequence[EarlyComparison], lang: str) -> list[str]:
    """The verdicts, then the runs, their cost, and what cannot be concluded."""
    t = get_translator(lang, "early")
    lines = [line for pair in pairs for line in decision_lines(pair, t)]
    lines += [_run_line(run, t) for run in runs]
    lines += [line for run in runs if (line := _cost_line(run, t))]
    if any(run.prefix is not None for run in runs):
        lines += [t("no_subjects"), t("go_on")]
    return lines


def decision_lines(pair: EarlyComparison, t: Translator) -> list[str]:
    """Cautions, the verdict with its interval, the evidence, and what is not known."""
    return [
        *circumstance_cautions(pair.prompt_differences, pair.setting_differences, t),
        *_leak_lines(pair, t),
        _verdict_sentence(pair, t),
        *_needed_lines(pair.decision, t),
        *_clean_lines(pair, t),
        *_evidence_lines(pair, t),
        *unknown_notes(pair.overlap_known, pair.protocol_unknown, t),
    ]


def _verdict_sentence(pair: EarlyComparison, t: Translator) -> str:
    decision = pair.decision
    at = decision.decided_at or decision.answers
    values = {
        "first": pair.first,
        "second": pair.second,
        "n": f"{decision.answers:,}",
        "total": f"{decision.total:,}",
        "at": f"{at:,}",
        "share": format_percent(at / decision.total, 1),
        "margin": format_points(decision.margin).lstrip("+"),
        **_ends(decision),
    }
    known = decision.low == decision.high  # every question was asked
    values["range"] = values["high"] if known else t("range", **values)
    exhausted = decision.verdict == "undecided" and decision.answers == decision.total
    key = "exhausted" if exhausted else decision.verdict
    if (
        decision.population == "like"
        and decision.verdict == "undecided"
        and decision.high - decision.low > 1.9
    ):
        return t("like_open", **values)
    return t(key if decision.population == "these" else f"like_{key}", **values)


def _needed_lines(decision: Decision, t: Translator) -> list[str]:
    """How many questions would settle it, if it is undecided and some are left."""
    if decision.verdict != "undecided" or decision.answers == decision.total:
        return []
    half_width, wanted = (decision.high - decision.low) / 2, decision.margin or MARGIN
    needed = questions_to_narrow(decision.answers, decision.total, half_width, wanted)
    if needed <= decision.answers:
        return []
    return [t("needed", n=f"{needed:,}", difference=format_points(wanted).lstrip("+"))]


def _ends(decision: Decision) -> dict[str, str]:
    return {"low": format_points(decision.low, unit=False), "high": format_points(decision.high)}


def _leak_lines(pair: EarlyComparison, t: Translator) -> list[str]:
    """A caution if the change is significantly larger on questions that overlap training data."""
    gap, clean = pair.overlap_gap, pair.clean
    if gap is None or clean is None or not gap.significant or gap.value * _direction(pair.decision) <= 0:
        return []
    ends = {f"gap_{name}": end for name, end in unsigned_interval(gap.low, gap.high).items()}
    return [t("leaked_early", gap=format_points(abs(gap.value)).lstrip("+"), **ends, **_ends(clean))]


def _direction(decision: Decision) -> float:
    return decision.low + decision.high


def _clean_lines(pair: EarlyComparison, t: Translator) -> list[str]:
    if pair.clean is None or _leak_lines(pair, t):
        return []
    return [t("clean_early", count=f"{pair.overlapping:,}", **_ends(pair.clean))]


def _evidence_lines(pair: EarlyComparison, t: Translator) -> list[str]:
    """The test's evidence; a complete pass without a verdict has none to show."""
    decision = pair.decision
    if decision.verdict == "undecided" and decision.answers == decision.total:
        return []
    e = f"= {decision.e_value:,.1f}" if decision.e_value < 1e6 else "> 1,000,000"
    p, alpha = p_value_clause(decision.p_value), f"{100 * decision.alpha:.3g}"
    return [t("evidence" if decision.population == "these" else "like_evidence", e=e, p=p, alpha=alpha)]


def recorded_decisions(runs: Sequence[Run]) -> list[EarlyComparison]:
    """The decisions that an evaluation wrote into its runs. RunError if eval cannot have written one."""
    pairs = []
    for run in runs:
        decision = run.pass_metrics.decision
        if decision:
            pairs.append(_recorded_comparison(run, decision, runs))
    return pairs


def _recorded_comparison(run: Run, decision: dict[str, Any], runs: Sequence[Run]) -> EarlyComparison:
    base = next((other for other in runs if not other.config.get("adapter")), None)
    return EarlyComparison(
        first="base",
        second=state_name(run),
        decision=_parse_decision(decision, run),
        setting_differences=() if base is None else tuple(setting_differences(base, run)),
    )


def _parse_decision(record: dict[str, Any], run: Run) -> Decision:
    record = {"population": "these", **record}  # which was the only one
    names = {field.name for field in fields(Decision)}
    numbers = [record.get(name) for name in sorted(names - {"verdict", "decided_at", "population"})]
    numbers.append(record.get("decided_at") or 0)
    valid = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in numbers)
    valid = valid and set(record) == names and record["population"] in get_args(Population)
    if not valid or record["verdict"] not in get_args(Verdict) or record["total"] < 1:
        raise RunError(
            f"{run.source}: its decision is {bounded_repr(record)}, which no evaluation wrote; run eval with"
            " --overwrite"
        )
    return Decision(**record)


def state_name(run: Run) -> str:
    """The adapter's name, or "base"."""
    adapter = run.config.get("adapter")
    return str(adapter["name"]) if adapter else "base"


def early_stopping_json(runs: Sequence[Run], pairs: Sequence[EarlyComparison], lang: str) -> dict[str, Any]:
    """``early_stopping_lines`` as JSON-able data; shares and differences 0-1."""
    t = get_translator(lang, "early")
    rows = [
        {
            "verdict": decision_lines(pair, t),
            "first": pair.first,
            "second": pair.second,
            "sequential": asdict(pair.decision),
            "clean": asdict(pair.clean) if pair.clean else None,
            "overlap_gap": asdict(pair.overlap_gap) if pair.overlap_gap else None,
        }
        for pair in pairs
    ]
    about = [
        {"name": run.name, "questions": run.total, "prefix": run.prefix.to_json() if run.prefix else None}
        for run in runs
    ]
    return {"runs": about, "comparisons": rows, "subjects": t("no_subjects")}


def _run_line(run: Run, t: Translator) -> str:
    name = run.name if run.config.get("adapter") is None and run.kind != "run" else state_name(run)
    if run.prefix is None:
        return t("complete", name=name, total=f"{run.total:,}", accuracy=format_percent(run.micro))
    low, high = (format_percent(end) for end in run.prefix.accuracy)
    return t("prefix_of", name=name, n=f"{run.total:,}", total=f"{run.prefix.total:,}", low=low, high=high)


def _cost_line(run: Run, t: Translator) -> str | None:
    speed, full = run.pass_metrics.speed, run.pass_metrics.full_pass
    if speed is None or full is None or not (speed.questions and speed.seconds and full.seconds):
        return None
    return t(
        "cost",
        name=state_name(run),
        asked=f"{speed.questions:,}",
        spent=f"{speed.seconds:,.0f}",
        total=f"{full.questions:,}",
        full=f"{full.seconds:,.0f}",
    )
