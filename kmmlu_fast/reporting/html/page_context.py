"""What the report's template shows, in one language.

In: findings, output options, words. Out: a context for ``assets/report.html.j2``, whose texts it escapes.
Knows nothing of files, nor of the packed data beside it.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.key_audit import MIN_RUNS
from kmmlu_fast.core.version import __version__
from kmmlu_fast.reporting import human_accuracy
from kmmlu_fast.reporting.charts import answer_figures, drawing, figure_files
from kmmlu_fast.reporting.charts.figure import Figure
from kmmlu_fast.reporting.html import sections, tables
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording import error_text, exam_text, reasoning_text
from kmmlu_fast.reporting.wording.language import Translator
from kmmlu_fast.reporting.wording.recipe_text import key_audit_lines, recipe_sentence
from kmmlu_fast.runs.run import Run

# Sections in their order, and the anchors of those that have another name than their text.
SECTIONS = (
    *("exams", "summary", "recipes", "all_runs", "charts", "matrix", "key_audit", "reasoning"),
    *("all_subjects", "errors_section", "explorer", "facts", "method"),
)
_ANCHORS = {"all_runs": "runs", "all_subjects": "subjects", "key_audit": "key", "errors_section": "errors"}


def report_context(
    found: ReportData, plan: Path | None, t: Translator, *, with_texts: bool
) -> dict[str, Any]:
    """Everything in one language; ``plan``: a sampling plan to chart."""
    runs, focus = found.runs, found.focus
    columns, changed = tables.subject_change_rows(focus, t) if focus else ([], [])
    board = tables.leaderboard_data(found.headlines, found.pairs, t)
    shown: dict[str, Any] = {
        **_page_metadata(found, t),
        **board,
        **hero_and_cards(found, focus, t),
        "exams": exam_text.exams_section(found.exams, found.base.exam_title, t) if found.exams else None,
        "recipes": [recipe_sentence(recipe, t) for recipe in found.recipes],
        "refused": [
            t("not_comparable", first=runs[0].name, second=name, why=why) for name, why in found.refused
        ],
        "others": tables.verdict_rows(found.pairs, board["runs"], t) if len(found.pairs) > 1 else [],
        "charts": [_render_chart(figure, t) for figure in answer_figures.report_figures(found, plan, t)],
        "matrix": tables.subject_matrix(runs, t),
        "key_lines": key_audit_lines(found.key_audit, t) if len(runs) >= MIN_RUNS else [],
        "reasoning": reasoning_text.reasoning_section([(run.name, run.metrics) for run in runs], t),
        "errors": error_text.errors_section(
            found, answer_figures.runs_in_focus(found), t, with_texts=with_texts
        ),
        "subjects": changed,
        "subject_columns": columns,
        "facts": sections.run_facts_section(runs, t),
        "has_data": bool(found.answered),
        "has_texts": found.questions is not None and with_texts,
        "texts_left_out": not with_texts,
        "human_note": _human_accuracy_note(found.questions, t) if with_texts else "",
    }
    if focus:
        shown["note_subjects"] = t(
            "subjects_note", first=focus.first, second=focus.second, count=len(changed)
        )
    shown["nav"] = _navigation_links(shown, t)
    if few := _few_questions_note(runs, t):
        shown["hero"]["cautions"] = [*shown["hero"]["cautions"], few]
    return shown


def hero_and_cards(found: ReportData, pair: PairComparison | None, t: Translator) -> dict[str, Any]:
    """Headline and tiles of a pair, or of the only run."""
    by_name = {row.name: row for row in found.headlines}
    row = found.headlines[0]
    other = by_name.get(pair.second) if pair else None
    hero = sections.hero_section(found.base, row, pair, _training_warnings(found.runs, pair), t)
    return {"hero": hero, "cards": sections.hero_cards(row, pair, other, t)}


def _page_metadata(found: ReportData, t: Translator) -> dict[str, Any]:
    """What stands around the sections: titles, licence, how to read it."""
    base, names = found.base, [run.name for run in found.runs]
    letters = [] if found.focus is not None and not found.focus.letters else [t("method_2")]
    return {
        "t": t,
        "lang": t.lang,
        "version": __version__,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "title": t(
            "title", exam=base.exam_title, names=" · ".join(names[:3]) + (" …" if len(names) > 3 else "")
        ),
        "licence": t("licence", exam=base.exam_title, licence=base.licence),
        "method": [t("method_1"), *letters, t("method_3")],
    }


def _navigation_links(shown: dict[str, Any], t: Translator) -> list[tuple[str, str]]:
    """(anchor, name) of the sections that there are."""
    always = {"summary", "charts", "facts", "method"}
    there = {
        "all_runs": len(shown["runs"]) > 1,
        "key_audit": shown["key_lines"],
        "all_subjects": shown["subjects"],
        "errors_section": shown["errors"],
        "explorer": shown["has_data"],
    }
    names = [name for name in SECTIONS if name in always or there.get(name, shown.get(name))]
    if len(shown["runs"]) > 2:  # the leaderboard leads
        names.remove("all_runs")
        names.insert(names.index("summary"), "all_runs")
    return [(_ANCHORS.get(name, name), t(name)) for name in names]


def _training_warnings(runs: list[Run], pair: PairComparison | None) -> list[str]:
    """What training warned of, for the run in question."""
    shown = [run for run in runs if pair is None or run.name == pair.second]
    return [
        f"{run.name}: {warning}"
        for run in shown
        for warning in sections.read_adapter_card(run).get("warnings") or []
    ]


def _few_questions_note(runs: list[Run], t: Translator) -> str:
    """Said where most subjects have too few questions to speak of one of them."""
    totals = runs[0].scores["total"]
    few = int((totals < answer_figures.FEW).sum())
    return (
        t("few_questions", few=few, all=len(totals), limit=answer_figures.FEW)
        if len(totals) > 1 and few > len(totals) / 2
        else ""
    )


def _human_accuracy_note(questions: pl.DataFrame | None, t: Translator) -> str:
    """The footnote on human accuracy: of which subjects nothing is known, and of which only a part."""
    if questions is None:
        return ""
    wholly = ", ".join(t.subject(name) for name in human_accuracy.wholly_unknown_subjects(questions))
    partly = ", ".join(
        f"{t.subject(name)} {few}/{all_}"
        for name, few, all_ in human_accuracy.partly_unknown_subjects(questions)
    )
    return " ".join(
        [
            *([t("human_unknown", names=wholly)] if wholly else []),
            *([t("human_partly", names=partly)] if partly else []),
        ]
    )


def _render_chart(figure: Figure, t: Translator) -> dict[str, Any]:
    from markupsafe import Markup

    colours = drawing.run_colours(6, drawing.PAGE)
    legend = [
        {
            "name": name,
            "colour": drawing.PAGE[key.lstrip("|")] if not key.isdigit() else colours[int(key)],
            "tick": key.startswith("|"),
        }
        for name, key in figure.legend
    ]
    drawn = figure.draw(drawing.PAGE)
    svg = drawing.chart_to_svg(drawn, drawing.PAGE, f"{t.lang}-{figure.id}")
    return {
        "id": f"chart-{figure.id}",
        "title": figure.title,
        "note": figure.note,
        "size": figure.size,
        "legend": legend,
        "svg": Markup(svg),
        "table": figure_files.chart_table_rows(drawn),
    }
