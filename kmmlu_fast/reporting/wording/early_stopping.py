"""Runs that stopped early, in words: the decision, the accuracy interval, the cost, and what cannot be
concluded.

In: runs, at least one of them a prefix (``Run.prefix``) or decided before its full pass ended. Out: lines of
text, and the same as JSON. A prefix is compared with a prefix or a complete run by the sequential test alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from kmmlu_fast.analysis.planning import questions_to_narrow
from kmmlu_fast.analysis.protocol_differences import prompt_differences
from kmmlu_fast.analysis.sequential.adaptive_order import read_shared_order
from kmmlu_fast.analysis.sequential.betting import MARGIN, Decision, Verdict
from kmmlu_fast.analysis.sequential.question_order import QuestionOrder, compare_prefixes
from kmmlu_fast.analysis.sequential.several import decide_by_holm
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.reporting.wording.language import (
    Translator,
    format_percent,
    format_points,
    get_translator,
    p_value_clause,
)
from kmmlu_fast.runs.layout import read_question_order
from kmmlu_fast.runs.run import Run


@dataclass(frozen=True, slots=True)
class EarlyComparison:
    """Second against first; at least one of them stopped early."""

    first: str
    second: str
    decision: Decision


def compare_early_stopped(
    runs: Sequence[Run], different_prompts: bool = False, margin: float = MARGIN
) -> list[EarlyComparison]:
    """Every run against the first, on the questions that both have from the start of their order, at 5 % for
    all comparisons together.

    RunError if orders, questions, keys or prompts differ.
    """
    base, others = runs[0], runs[1:]
    for run in others:
        differing = prompt_differences(base, run)
        if base.facts.get("dataset_digest") != run.facts.get("dataset_digest"):
            differing = [*differing, "dataset_digest"]
        if differing and not different_prompts:
            raise RunError(
                f"{base.name} and {run.name} were asked differently ({'; '.join(differing)}), so a"
                " difference would not be due to the model alone; evaluate both alike, or give"
                " --different-prompts"
            )

    def decide(place: str, level: float, equal_level: float) -> Decision:
        run = others[int(place)]  # each adapter may have an adaptive order of its own
        early = any(each.prefix is not None for each in (base, run))
        order = shared_question_order([base, run] if early else runs)
        return compare_prefixes(order, base.frame, run.frame, level, margin, equal_level)

    decisions = decide_by_holm([str(place) for place in range(len(others))], decide)
    pairs = zip(others, decisions.values(), strict=True)
    return [EarlyComparison(base.name, run.name, decision) for run, decision in pairs]


def shared_question_order(runs: Sequence[Run]) -> QuestionOrder:
    """The random order that the early-stopped runs share; RunError if they have different ones."""
    early = [run for run in runs if run.prefix is not None and run.path is not None]
    stored = [(run.name, read_question_order(run.path)) for run in early if run.path is not None]
    prefix = early[0].prefix or {}
    asked = early[0].config.get("config") or {}
    source = (early[0].config.get("exam") or {}).get("dataset", asked.get("dataset"))
    public = early[0].exam == "kmmlu" and source != "sample" and asked.get("split") == "test"
    return read_shared_order(stored, int(prefix.get("seed", 0)), public)


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
    """The verdict with its interval, and the evidence."""
    decision = pair.decision
    at = decision.decided_at or decision.answers
    values = {
        "first": pair.first,
        "second": pair.second,
        "n": f"{decision.answers:,}",
        "total": f"{decision.total:,}",
        "at": f"{at:,}",
        "share": format_percent(at / decision.total, 1),
        "low": format_points(decision.low),
        "high": format_points(decision.high),
        "margin": format_points(decision.margin).lstrip("+"),
    }
    known = values["low"] == values["high"]  # every question was asked
    values["range"] = values["low"] if known else t("range", **values)
    exhausted = decision.verdict == "undecided" and decision.answers == decision.total
    e = f"= {decision.e_value:,.1f}" if decision.e_value < 1e6 else "> 1,000,000"
    p, alpha = p_value_clause(decision.p_value), f"{100 * decision.alpha:g}"
    verdict = t("exhausted" if exhausted else decision.verdict, **values)
    lines = [verdict, t("evidence", e=e, p=p, alpha=alpha)]
    if decision.verdict == "undecided" and not exhausted:
        half_width = (decision.high - decision.low) / 2
        wanted = decision.margin or MARGIN
        needed = questions_to_narrow(decision.answers, decision.total, half_width, wanted)
        if needed > decision.answers:
            lines.insert(1, t("needed", n=f"{needed:,}", difference=format_points(wanted).lstrip("+")))
    return lines


def recorded_decisions(runs: Sequence[Run]) -> list[EarlyComparison]:
    """The decisions that an evaluation wrote into its runs. RunError if eval cannot have written one."""
    pairs = []
    for run in runs:
        decision = (run.prefix or run.metrics).get("decision")
        if decision:
            pairs.append(EarlyComparison("base", state_name(run), _parse_decision(decision, run)))
    return pairs


def _parse_decision(record: dict[str, Any], run: Run) -> Decision:
    names = {field.name for field in fields(Decision)}
    numbers = [record.get(name) for name in sorted(names - {"verdict", "decided_at"})]
    numbers.append(record.get("decided_at") or 0)
    valid = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in numbers)
    if not valid or set(record) != names or record["verdict"] not in get_args(Verdict) or record["total"] < 1:
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
        }
        for pair in pairs
    ]
    about = [{"name": run.name, "questions": run.total, "prefix": run.prefix} for run in runs]
    return {"runs": about, "comparisons": rows, "subjects": t("no_subjects")}


def _run_line(run: Run, t: Translator) -> str:
    name = run.name if run.config.get("adapter") is None and run.kind != "run" else state_name(run)
    if run.prefix is None:
        return t("complete", name=name, total=f"{run.total:,}", accuracy=format_percent(run.micro))
    low, high = (format_percent(end) for end in run.prefix["accuracy"])
    return t("prefix_of", name=name, n=f"{run.total:,}", total=f"{run.prefix['total']:,}", low=low, high=high)


def _cost_line(run: Run, t: Translator) -> str | None:
    speed, full = ((run.prefix or run.metrics).get(name) or {} for name in ("speed", "full_pass"))
    if not all(part.get(name) for part in (speed, full) for name in ("questions", "seconds")):
        return None
    return t(
        "cost",
        name=state_name(run),
        asked=f"{speed['questions']:,}",
        spent=f"{speed['seconds']:,.0f}",
        total=f"{full['questions']:,}",
        full=f"{full['seconds']:,.0f}",
    )
