"""The context of the report's template, in one language.

In: ``ReportData``, output options, a translator. Out: a context for ``assets/report.html.j2``, which escapes
its texts. Knows nothing of files, of charts (``page_charts``) and of the packed data (``page_data``).
"""

from __future__ import annotations

import datetime
from typing import Any

import polars as pl

from kmmlu_fast.analysis.accuracy import FEW
from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.key_audit import MIN_RUNS
from kmmlu_fast.analysis.written_forms import summarise_letter_forms
from kmmlu_fast.core.version import __version__
from kmmlu_fast.reporting import human_accuracy
from kmmlu_fast.reporting.html import sections, tables
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording import error_text, exam_text, form_text, protocol_text, reasoning_text
from kmmlu_fast.reporting.wording.language import Translator
from kmmlu_fast.reporting.wording.recipe_text import key_audit_lines, recipe_sentence
from kmmlu_fast.reporting.wording.sampling_text import BUDGET_COLUMN_KEYS
from kmmlu_fast.runs.run import Run

# Sections in order, and the anchors that differ from the section's name.
SECTIONS = (
    *(
        "exams",
        "summary",
        "recipes",
        "all_runs",
        "charts",
        "forms",
        "protocols",
        "matrix",
        "key_audit",
        "reasoning",
    ),
    *("all_subjects", "errors_section", "explorer", "facts", "method"),
)
_ANCHORS = {"all_runs": "runs", "all_subjects": "subjects", "key_audit": "key", "errors_section": "errors"}


def report_context(
    report: ReportData, errors: error_text.ErrorCounts | None, t: Translator, *, with_texts: bool
) -> dict[str, Any]:
    """Everything but the charts (``page_charts``) in one language."""
    runs, focus = report.runs, report.focus
    texts = report.questions if with_texts else None
    columns, changed = tables.subject_change_rows(focus, t) if focus else ([], [])
    board = tables.leaderboard_data(report.headlines, report.pairs, t, report.ranks)
    shown: dict[str, Any] = {
        **_page_metadata(report, t),
        **board,
        **hero_and_cards(report, focus, t),
        "exams": exam_text.exams_section(report.exams, report.base.exam_title, t) if report.exams else None,
        "recipes": [recipe_sentence(recipe, t) for recipe in report.recipes],
        "refused": [
            t("not_comparable", first=runs[0].name, second=name, why=why) for name, why in report.refused
        ],
        "others": tables.verdict_rows(report.pairs, board["runs"], t) if len(report.pairs) > 1 else [],
        "forms": form_text.form_table_rows(runs, t),
        "form_columns": [t(name) for name in form_text.FORM_COLUMN_KEYS],
        "protocols": protocol_text.protocol_section(runs, t),
        "protocol_columns": [t(name) for name in protocol_text.PROTOCOL_COLUMN_KEYS],
        "matrix": tables.subject_matrix(runs, t),
        "key_lines": key_audit_lines(report.key_audit, t) if len(runs) >= MIN_RUNS else [],
        "reasoning": reasoning_text.reasoning_section([(run.name, run.metrics.reasoning) for run in runs], t),
        "budget_columns": [t(name) for name in BUDGET_COLUMN_KEYS],
        "errors": None if errors is None else error_text.errors_section(errors, texts, t),
        "subjects": changed,
        "subject_columns": columns,
        "facts": sections.run_facts_section(runs, t),
        "has_data": bool(report.answered),
        "has_texts": texts is not None,
        "texts_left_out": not with_texts,
        "human_note": _human_accuracy_note(texts, t),
    }
    if focus:
        shown["note_subjects"] = t(
            "subjects_note", first=focus.first, second=focus.second, count=len(changed)
        )
    shown["nav"] = _navigation_links(shown, t)
    notes = [_few_questions_note(runs, t)]
    if focus is None and runs[0].predictions is not None:  # a pair's verdict says it itself
        notes.append(form_text.low_mass_line(summarise_letter_forms(runs[0].predictions), t) or "")
    shown["hero"]["cautions"] = [*shown["hero"]["cautions"], *filter(None, notes)]
    return shown


def hero_and_cards(report: ReportData, pair: PairComparison | None, t: Translator) -> dict[str, Any]:
    """Headline and tiles of a pair, or of the first run."""
    by_name = {row.name: row for row in report.headlines}
    row = report.headlines[0]
    other = by_name.get(pair.second) if pair else None
    hero = sections.hero_section(report.base, row, pair, _training_warnings(report.runs, pair), t)
    return {"hero": hero, "cards": sections.hero_cards(row, pair, other, t)}


def _page_metadata(report: ReportData, t: Translator) -> dict[str, Any]:
    """Everything around the sections: title, licence, how to read the report."""
    base, names = report.base, [run.name for run in report.runs]
    method = [t("method_1"), t("method_2"), t("method_3")]
    if report.focus is not None and not report.focus.letters:
        del method[1]
    title = " · ".join(names[:3]) + (" …" if len(names) > 3 else "")
    return {
        "t": t,
        "lang": t.lang,
        "version": __version__,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "title": t("title", exam=base.exam_title, names=title),
        "licence": t("licence", exam=base.exam_title, licence=base.licence),
        "method": method,
    }


def _navigation_links(shown: dict[str, Any], t: Translator) -> list[tuple[str, str]]:
    """(anchor, name) of the present sections."""
    always = {"summary", "charts", "facts", "method"}
    present = {
        "all_runs": len(shown["runs"]) > 1,
        "key_audit": shown["key_lines"],
        "all_subjects": shown["subjects"],
        "errors_section": shown["errors"],
        "explorer": shown["has_data"],
    }
    names = [name for name in SECTIONS if name in always or present.get(name, shown.get(name))]
    if len(shown["runs"]) > 2:  # the leaderboard leads
        names.remove("all_runs")
        names.insert(names.index("summary"), "all_runs")
    return [(_ANCHORS.get(name, name), t(name)) for name in names]


def _training_warnings(runs: list[Run], pair: PairComparison | None) -> list[str]:
    """Training's warnings about the second run of ``pair``, or about all runs."""
    lines = []
    for run in runs:
        if pair is None or run.name == pair.second:
            warnings = sections.read_adapter_card(run).get("warnings") or []
            lines += [f"{run.name}: {warning}" for warning in warnings]
    return lines


def _few_questions_note(runs: list[Run], t: Translator) -> str:
    """A caution if most subjects have too few questions to judge any one of them."""
    totals = runs[0].scores["total"]
    few = int((totals < FEW).sum())
    if len(totals) > 1 and few > len(totals) / 2:
        return t("few_questions", few=few, all=len(totals), limit=FEW)
    return ""


def _human_accuracy_note(questions: pl.DataFrame | None, t: Translator) -> str:
    """The footnote on human accuracy: which subjects are wholly unknown, and which partly."""
    if questions is None:
        return ""
    wholly = ", ".join(t.subject(name) for name in human_accuracy.wholly_unknown_subjects(questions))
    partly = ", ".join(
        f"{t.subject(name)} {unknown}/{total}"
        for name, unknown, total in human_accuracy.partly_unknown_subjects(questions)
    )
    notes = []
    if wholly:
        notes.append(t("human_unknown", names=wholly))
    if partly:
        notes.append(t("human_partly", names=partly))
    return " ".join(notes)
