"""The table that eval leaves on the terminal.

In: finished runs. Out: Rich tables on stdout. Knows nothing of how the numbers came about.
"""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmmlu_fast.core.untrusted_text import strip_control_characters
from kmmlu_fast.data.subjects import group_order
from kmmlu_fast.reporting.charts.answer_figures import FEW
from kmmlu_fast.reporting.terminal.screens import print_fitted_table, wide_console
from kmmlu_fast.reporting.wording.early_stopping import (
    decision_lines,
    early_stopping_lines,
    recorded_decisions,
)
from kmmlu_fast.reporting.wording.language import Translator, format_percent, get_translator
from kmmlu_fast.reporting.wording.reasoning_text import reasoning_lines
from kmmlu_fast.runs.checks import check_summary_metrics
from kmmlu_fast.runs.run import Run

_MOST_GROUPS = 6  # columns of supercategories


def print_summary(runs: list[Run], lang: str = "en") -> None:
    """Headline, letters and weakest subjects of each run; names the run directories last."""
    console, t = wide_console(), get_translator(lang, "report", "summary")
    by_exam: dict[str, list[Run]] = {}
    for run in runs:
        by_exam.setdefault(run.exam, []).append(run)
    early = [some for some in by_exam.values() if any(run.prefix is not None for run in some)]
    complete = [some for some in by_exam.values() if some not in early]
    for run in (run for some in complete for run in some):
        if run.path is not None:
            check_summary_metrics(run.metrics, run.path / "metrics.json")
    for some in complete:
        for title, table in (_headline_table(some, t), _letter_share_table(some, t)):
            console.print(title, highlight=False, markup=False)
            print_fitted_table(console, table, 1, 2, 3, len(table.columns) - 1)
    for some in complete:
        for run in some:
            _print_notes(console, run, t)
        for pair in recorded_decisions(some):
            lines = decision_lines(pair, get_translator(lang, "early"))
            console.print(
                "\n".join(_add_exam_title(lines, some[0], by_exam)),
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
    for some in early:
        print(
            "\n".join(
                _add_exam_title(early_stopping_lines(some, recorded_decisions(some), lang), some[0], by_exam)
            )
        )
    for run in runs:
        print(strip_control_characters(t("run_directory", path=run.path)))


def _add_exam_title(lines: list[str], run: Run, by_exam: dict[str, list[Run]]) -> list[str]:
    """The lines under the exam's name, where there are several exams."""
    return [f"{_exam_label(run)}:", *lines] if len(by_exam) > 1 else lines


def _state_label(run: Run) -> str:
    return strip_control_characters(run.state)


def _exam_label(run: Run) -> str:
    return strip_control_characters(run.exam_title)


def _headline_table(runs: list[Run], t: Translator) -> tuple[str, Table]:
    found = runs[0].metrics
    title = t(
        "heading",
        exam=_exam_label(runs[0]),
        questions=f"{found['num_questions']:,}",
        subjects=len(found["subjects"]),
    )
    table = Table(box=SIMPLE)
    table.add_column(t("state"))
    for name in ("micro", "interval", "macro"):
        table.add_column(t(name), justify="right")
    groups = group_order(set(runs[0].metrics["supercategories"]))[:_MOST_GROUPS]
    for name in groups:
        table.add_column(t.supercategory(name), justify="right")
    table.add_column(t("unparsed"), justify="right")
    for run in runs:
        found = run.metrics
        micro = found["micro"]
        table.add_row(
            Text(_state_label(run)),
            format_percent(micro["accuracy"]),
            f"{format_percent(micro['ci_low'])}–{format_percent(micro['ci_high'])}",
            format_percent(found["macro"]["accuracy"]),
            *(format_percent(found["supercategories"][name]["accuracy"], 1) for name in groups),
            f"{found['unparsed']:,}",
        )
    baselines = runs[0].metrics["baselines"]
    best = baselines["best_constant"]
    table.add_section()
    table.add_row(
        t("always", letter=best["letter"]),
        format_percent(best["accuracy"]),
        *[""] * (len(table.columns) - 2),
    )
    if run.exam != "kmmlu":
        table.add_row(t("guessing"), format_percent(baselines["uniform"]), *[""] * (len(table.columns) - 2))
    if all(_has_enough_questions(score) for score in runs[0].metrics["subjects"].values()):
        majority = format_percent(baselines["subject_majority"])
        table.add_row(t("majority"), majority, *[""] * (len(table.columns) - 2))
    return title, table


def _has_enough_questions(score: dict[str, Any]) -> bool:
    """Whether a subject has questions enough to be called weak, or to have a majority letter."""
    return int(score["total"]) >= FEW


def _letter_share_table(runs: list[Run], t: Translator) -> tuple[str, Table]:
    table = Table(box=SIMPLE)
    table.add_column("")
    letters = list(runs[0].metrics["answer_letter_share"])
    for letter in letters:
        table.add_column(letter, justify="right")
    table.add_row(
        t("key"), *(format_percent(runs[0].metrics["answer_letter_share"][letter], 1) for letter in letters)
    )
    for run in runs:
        shares = run.metrics["predicted_letter_share"]
        table.add_row(
            Text(t("predicted", state=_state_label(run))),
            *(format_percent(shares[letter], 1) for letter in letters),
        )
        recall = run.metrics["recall"]
        shown = (format_percent(recall[letter], 1) for letter in letters)
        table.add_row(Text(t("recalled", state=_state_label(run))), *shown)
    return t("letter_shares"), table


def _print_notes(console: Console, run: Run, t: Translator) -> None:
    found = run.metrics
    enough = [(name, score) for name, score in found["subjects"].items() if _has_enough_questions(score)]
    weakest = sorted(enough, key=lambda item: item[1]["accuracy"])[:5]
    names = ", ".join(
        f"{t.subject(name) if t.lang == 'ko' else name} {format_percent(score['accuracy'], 0)}"
        for name, score in weakest
    )
    state, micro = _state_label(run), found["micro"]["accuracy"]
    lines = [t("weakest", state=state, names=names)] if names else []
    if (run.config.get("config") or {}).get("limit"):
        lines.append(t("limited", state=state))
    if (debiased := found.get("accuracy_debiased")) is not None:
        lines.append(t("rotated", state=state, raw=format_percent(micro), debiased=format_percent(debiased)))
    if found.get("forced"):
        without = format_percent(found["accuracy_without_forced"])
        lines.append(t("answers_forced", state=state, count=f"{found['forced']:,}", accuracy=without))
    speed, engine = found["speed"], found["engine"]
    lines.append(
        t(
            "speed",
            state=state,
            questions=f"{speed['questions']:,}",
            seconds=f"{speed['seconds']:.1f}",
            rate=speed["questions_per_sec"],
            tokens=f"{speed['prompt_tokens_per_sec']:,.0f}",
            start=engine.get("start_sec", 0),
            hits=f"{engine.get('prefix_cache_hit_rate', 0):.1%}",
        )
    )
    lines += [f"{state}: {line}" for line in reasoning_lines(found.get("reasoning") or {}, t)]
    if found.get("adapter_shift"):
        nats = f"{found['adapter_shift']['largest_nats']:.4f}"
        lines.append(t("applied", state=state, nats=nats))
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
