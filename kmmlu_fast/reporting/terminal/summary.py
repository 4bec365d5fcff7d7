"""The summary that eval prints at its end.

In: finished runs. Out: Rich tables on stdout. Knows nothing of how the numbers are computed.
"""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmmlu_fast.analysis.accuracy import FEW
from kmmlu_fast.analysis.written_forms import summarise_letter_forms
from kmmlu_fast.core.untrusted_text import strip_control_characters
from kmmlu_fast.data.subjects import group_order
from kmmlu_fast.reporting.terminal.screens import print_fitted_table, wide_console
from kmmlu_fast.reporting.terminal.tables import forms_table, protocols_table
from kmmlu_fast.reporting.wording.form_text import low_mass_line
from kmmlu_fast.reporting.wording.language import Translator, format_percent, get_translator
from kmmlu_fast.reporting.wording.reasoning_text import reasoning_lines
from kmmlu_fast.runs.metrics import SubjectScore, SummaryMetrics, require_summary
from kmmlu_fast.runs.run import Run

_MOST_GROUPS = 6  # columns of supercategories


def print_summary(runs: list[Run], lang: str = "en") -> None:  # noqa: C901 - the parts of the table, in order
    """Headline, letters and weakest subjects of each run, then the run directories."""
    console, t = wide_console(), get_translator(lang, "report", "summary")
    by_exam: dict[str, list[Run]] = {}
    for run in runs:
        by_exam.setdefault(run.exam, []).append(run)
    early = [group for group in by_exam.values() if any(run.prefix is not None for run in group)]
    complete = [group for group in by_exam.values() if group not in early]
    for group in complete:
        for run in group:
            _summary_of(run)  # before anything is printed
    for group in complete:
        for title, table in (_headline_table(group, t), _letter_share_table(group, t)):
            console.print(title, highlight=False, markup=False)
            print_fitted_table(console, table, 1, 2, 3, len(table.columns) - 1)
        if forms := forms_table(group, t, [_state_label(run) for run in group]):
            print_fitted_table(console, forms, 1, 2, 3, len(forms.columns) - 1)
    for group in complete:
        for run in group:
            _print_notes(console, run, t)
        if any(run.pass_metrics.decision for run in group):
            for lines in _decision_lines(group, lang):
                text = "\n".join(_add_exam_title(lines, group[0], by_exam))
                console.print(text, highlight=False, markup=False, soft_wrap=True)
    for group in early:
        print("\n".join(_add_exam_title(_early_lines(group, lang), group[0], by_exam)))
    for run in runs:
        print(strip_control_characters(t("run_directory", path=run.path)))


def _decision_lines(group: list[Run], lang: str) -> list[list[str]]:
    """What ``--until-decided`` found, of runs that were asked to the end."""
    from kmmlu_fast.reporting.wording.early_stopping import decision_lines, recorded_decisions

    t = get_translator(lang, "early")
    return [decision_lines(pair, t) for pair in recorded_decisions(group)]


def _early_lines(group: list[Run], lang: str) -> list[str]:
    from kmmlu_fast.reporting.wording.early_stopping import early_stopping_lines, recorded_decisions

    return early_stopping_lines(group, recorded_decisions(group), lang)


def _summary_of(run: Run) -> SummaryMetrics:
    return require_summary(run.metrics, (run.path or Path(run.source)) / "metrics.json")


def _add_exam_title(lines: list[str], run: Run, by_exam: dict[str, list[Run]]) -> list[str]:
    """The lines, under the exam's name if there are several exams."""
    return [f"{_exam_label(run)}:", *lines] if len(by_exam) > 1 else lines


def _state_label(run: Run) -> str:
    protocol = (run.config.get("config") or {}).get("protocol")
    return strip_control_characters(f"{run.state} [{protocol}]" if protocol else run.state)


def print_protocols(runs: list[Run], protocols: list[str], lang: str = "en") -> None:
    """Per exam and model state, its numbers under each protocol; ``runs``: protocol by protocol."""
    from kmmlu_fast.analysis.protocol_effects import compare_protocols
    from kmmlu_fast.reporting.wording.protocol_text import protocol_sentences

    console, t = wide_console(), get_translator(lang, "report", "summary")
    each = len(runs) // len(protocols)
    for place in range(each):
        group = runs[place::each]
        rows = compare_protocols(group, protocols)
        console.print(t("protocols") + f" ({_exam_label(group[0])}, {group[0].state})", markup=False)
        print_fitted_table(console, protocols_table(rows, t), 1, 5, 6, 7)
        for line in [*protocol_sentences(rows, t), t("protocols_note")]:
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _exam_label(run: Run) -> str:
    return strip_control_characters(run.exam_title)


def _headline_table(runs: list[Run], t: Translator) -> tuple[str, Table]:
    metrics = _summary_of(runs[0])
    questions, subjects = f"{metrics.num_questions:,}", len(metrics.subjects)
    title = t("heading", exam=_exam_label(runs[0]), questions=questions, subjects=subjects)
    table = Table(box=SIMPLE)
    table.add_column(t("state"))
    for name in ("micro", "interval", "macro"):
        table.add_column(t(name), justify="right")
    groups = group_order(set(metrics.supercategories))[:_MOST_GROUPS]
    for name in groups:
        table.add_column(t.supercategory(name), justify="right")
    table.add_column(t("unparsed"), justify="right")
    for run in runs:
        scores = _summary_of(run)
        table.add_row(
            Text(_state_label(run)),
            format_percent(scores.micro.accuracy),
            f"{format_percent(scores.micro.ci_low)}–{format_percent(scores.micro.ci_high)}",
            format_percent(scores.macro.accuracy),
            *(format_percent(scores.supercategories[name].accuracy, 1) for name in groups),
            f"{scores.unparsed:,}",
        )
    baselines = metrics.baselines
    best = baselines.best_constant
    table.add_section()
    table.add_row(t("always", letter=best.letter), format_percent(best.accuracy))
    if runs[0].exam != "kmmlu":
        table.add_row(t("guessing"), format_percent(baselines.uniform))
    if all(_has_enough_questions(score) for score in metrics.subjects.values()):
        table.add_row(t("majority"), format_percent(baselines.subject_majority))
    return title, table


def _has_enough_questions(score: SubjectScore) -> bool:
    """Whether a subject has enough questions to be called weak, or to have a majority letter."""
    return score.total >= FEW


def _letter_share_table(runs: list[Run], t: Translator) -> tuple[str, Table]:
    table = Table(box=SIMPLE)
    table.add_column("")
    key_shares = _summary_of(runs[0]).answer_letter_share
    for letter in key_shares:
        table.add_column(letter, justify="right")

    def add_row(label: str, shares: dict[str, float | None]) -> None:
        table.add_row(Text(label), *(format_percent(shares[letter], 1) for letter in key_shares))

    add_row(t("key"), key_shares)
    for run in runs:
        add_row(t("predicted", state=_state_label(run)), _summary_of(run).predicted_letter_share)
        add_row(t("recalled", state=_state_label(run)), _summary_of(run).recall)
    return t("letter_shares"), table


def _print_notes(console: Console, run: Run, t: Translator) -> None:
    metrics, state = _summary_of(run), _state_label(run)
    summary = summarise_letter_forms(run.predictions) if run.predictions is not None else None
    low_mass = low_mass_line(summary, t)
    lines = [f"{state}: {low_mass}"] if low_mass else []
    enough = [(name, score) for name, score in metrics.subjects.items() if _has_enough_questions(score)]
    weakest = []
    for name, score in sorted(enough, key=lambda item: item[1].accuracy or 0.0)[:5]:
        label = t.subject(name) if t.lang == "ko" else name
        weakest.append(f"{label} {format_percent(score.accuracy, 0)}")
    if weakest:
        lines.append(t("weakest", state=state, names=", ".join(weakest)))
    if (run.config.get("config") or {}).get("limit"):
        lines.append(t("limited", state=state))
    if (debiased := metrics.accuracy_debiased) is not None:
        raw = format_percent(metrics.micro.accuracy)
        lines.append(t("rotated", state=state, raw=raw, debiased=format_percent(debiased)))
    if metrics.forced:
        without = format_percent(metrics.accuracy_without_forced)
        lines.append(t("answers_forced", state=state, count=f"{metrics.forced:,}", accuracy=without))
    speed, engine = metrics.speed, metrics.engine
    lines.append(
        t(
            "speed",
            state=state,
            questions=f"{speed.questions:,}",
            seconds=f"{speed.seconds:.1f}",
            rate=speed.questions_per_sec,
            tokens=f"{speed.prompt_tokens_per_sec:,.0f}",
            start=engine.start_sec,
            hits=f"{engine.prefix_cache_hit_rate:.1%}",
        )
    )
    lines += [f"{state}: {line}" for line in reasoning_lines(metrics.reasoning, t)]
    if metrics.adapter_shift:
        lines.append(t("applied", state=state, nats=f"{metrics.adapter_shift.largest_nats:.4f}"))
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
