"""Runs that stopped early, in words: what is decided, what a prefix says, what it cost, and what it does not
say.

In: runs of which one at least is a prefix (``Run.prefix``), or was decided on the way to the full pass. Out:
lines of text, and the same as JSON. A prefix is compared with a prefix or a complete run by the sequential
test alone. Prints what it is told to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from kmmlu_fast.analysis.protocol_differences import prompt_differences
from kmmlu_fast.analysis.sequential.betting import ALPHA, MARGIN, Decision, Verdict
from kmmlu_fast.analysis.sequential.question_order import QuestionOrder, compare_prefixes, make_question_order
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
    """Second against first, where one at least stopped early."""

    first: str
    second: str
    decision: Decision


def compare_early_stopped(
    runs: Sequence[Run], different_prompts: bool = False, margin: float = MARGIN
) -> list[EarlyComparison]:
    """Every run against the first, on the questions both have from the beginning of their order, at 5 % for
    all together.

    RunError where orders, questions, keys or prompts differ.
    """
    order = shared_question_order(runs)
    base, others = runs[0], runs[1:]
    for run in others:
        differing = prompt_differences(base, run)
        if base.facts.get("dataset_digest") != run.facts.get("dataset_digest"):
            differing = [*differing, "dataset_digest"]
        if differing and not different_prompts:
            raise RunError(
                f"{base.name} and {run.name} were asked differently ({'; '.join(differing)}), so no "
                "difference would be the model's alone; evaluate both alike, or give --different-prompts"
            )
    level = ALPHA / len(others)
    return [
        EarlyComparison(base.name, run.name, compare_prefixes(order, base.frame, run.frame, level, margin))
        for run in others
    ]


def shared_question_order(runs: Sequence[Run]) -> QuestionOrder:
    """The one random order of the runs that stopped early; RunError where they have two."""
    early = [run for run in runs if run.prefix is not None and run.path is not None]
    orders = [read_question_order(run.path) for run in early if run.path is not None]
    for run, order in zip(early[1:], orders[1:], strict=True):
        if not order.equals(orders[0]):
            raise RunError(
                f"{early[0].name} and {run.name} stopped early in two random orders, or over different "
                "questions; evaluate both with the same --seed and questions, or finish one of them"
            )
    found = early[0].prefix or {}
    asked = early[0].config.get("config") or {}
    source = (early[0].config.get("exam") or {}).get("dataset", asked.get("dataset"))
    public = early[0].exam == "kmmlu" and source != "sample" and asked.get("split") == "test"
    first = orders[0]
    return make_question_order(
        first["question_id"].to_list(), first["answer"].to_list(), int(found.get("seed", 0)), public
    )


def early_stopping_lines(runs: Sequence[Run], found: Sequence[EarlyComparison], lang: str) -> list[str]:
    """All of it, the verdicts first."""
    t = get_translator(lang, "early")
    lines = [line for pair in found for line in decision_lines(pair, t)]
    lines += [_run_line(run, t) for run in runs]
    lines += [line for run in runs if (line := _cost_line(run, t))]
    if any(run.prefix is not None for run in runs):
        lines += [t("no_subjects"), t("go_on")]
    return lines


def decision_lines(pair: EarlyComparison, t: Translator) -> list[str]:
    """The verdict with its interval, and the evidence."""
    decision = pair.decision
    at = decision.decided_at or decision.answers
    values = {"n": f"{decision.answers:,}", "total": f"{decision.total:,}", "at": f"{at:,}"}
    values |= {
        "low": format_points(decision.low),
        "high": format_points(decision.high),
        "share": format_percent(at / decision.total, 1),
    }
    values |= {
        "first": pair.first,
        "second": pair.second,
        "margin": format_points(decision.margin).lstrip("+"),
    }
    known = values["low"] == values["high"]  # every question was asked
    values["range"] = values["low"] if known else t("range", **values)
    over = decision.verdict == "undecided" and decision.answers == decision.total
    verdict = t("exhausted" if over else decision.verdict, **values)
    e = f"= {decision.e_value:,.1f}" if decision.e_value < 1e6 else "> 1,000,000"
    return [
        verdict,
        t("evidence", e=e, p=p_value_clause(decision.p_value), alpha=f"{100 * decision.alpha:g}"),
    ]


def recorded_decisions(runs: Sequence[Run]) -> list[EarlyComparison]:
    """What an evaluation decided and wrote into its runs. RunError where it is no decision."""
    found = []
    for run in runs:
        decision = (run.prefix or run.metrics).get("decision")
        if decision:
            found.append(EarlyComparison("base", state_name(run), _parse_decision(decision, run)))
    return found


def _parse_decision(found: dict[str, Any], run: Run) -> Decision:
    names = {field.name for field in fields(Decision)}
    numbers = [found.get(name) for name in sorted(names - {"verdict", "decided_at"})]
    numbers.append(found.get("decided_at") or 0)
    right = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in numbers)
    if not right or set(found) != names or found["verdict"] not in get_args(Verdict) or found["total"] < 1:
        raise RunError(
            f"{run.source}: its decision is {bounded_repr(found)}, which no evaluation wrote; run eval with"
            " --overwrite"
        )
    return Decision(**found)


def state_name(run: Run) -> str:
    """Base, or the adapter's name."""
    adapter = run.config.get("adapter")
    return str(adapter["name"]) if adapter else "base"


def early_stopping_json(runs: Sequence[Run], found: Sequence[EarlyComparison], lang: str) -> dict[str, Any]:
    """The same, JSON-able; shares and differences 0-1."""
    t = get_translator(lang, "early")
    rows = [
        {
            "verdict": decision_lines(pair, t),
            "first": pair.first,
            "second": pair.second,
            "sequential": asdict(pair.decision),
        }
        for pair in found
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
