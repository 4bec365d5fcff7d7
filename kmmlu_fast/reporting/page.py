"""One self-contained report.html.

In: runs, the first being the base; the dataset's frame for texts. Out: an HTML file that opens from disk and asks nothing of a network.
Everything that came from data or a model is escaped by the template, or packed and set as text in the page; a content security policy
stands behind both. Knows nothing of models.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.comparison import Settings
from kmmlu_fast.analysis.headline import headline
from kmmlu_fast.analysis.key_audit import MIN_RUNS, audit_key
from kmmlu_fast.core.version import __version__
from kmmlu_fast.reporting import charts, explorer, figures, reasoning, sections
from kmmlu_fast.reporting.comparing import compared
from kmmlu_fast.reporting.language import Texts, table, texts
from kmmlu_fast.reporting.verdict import key_lines, verdict
from kmmlu_fast.runs.run import Run, refuse_prefixes

ASSETS = Path(__file__).parent / "assets"
MAX_BYTES = 10_000_000


def render(
    runs: list[Run],
    questions: pl.DataFrame | None,
    settings: Settings,
    lang: str,
    figure_folder: Path | None = None,
    plan: Path | None = None,
    exams: dict[str, Any] | None = None,
) -> str:
    """The report's HTML. ``questions``: the dataset's frame, for texts; ``figure_folder``: charts are written there as well.
    ``exams``: the table of several exams (``reporting.exams``), where the runs are of several."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    t = texts(lang, "report")
    settings = replace(settings, questions=settings.questions if settings.questions is not None else questions)
    pairs, refused = compared(runs, settings)
    focus = pairs[0] if pairs else None
    rows = [sections.with_constant(headline(run, settings.overlap, settings.sizes), run, settings.overlap) for run in runs]
    other = next((row for row in rows if focus and row["name"] == focus.second), None)
    drawn = figures.figures(runs, focus, rows, questions, plan, t, lang)
    if figure_folder is not None:
        for figure in drawn:
            charts.save(figure.draw(charts.FIGURE), figure_folder, figure.id)
    shown = [run for run in runs if focus is None or run.name == focus.second]
    warnings = [f"{run.name}: {warning}" for run in shown for warning in sections.adapter_card(run).get("warnings") or []]
    columns, changed = sections.subjects_table(focus, t, lang) if focus else ([], [])
    words = table("explorer", lang)
    css, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    context = {
        "t": t,
        "lang": lang,
        "version": __version__,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "title": t("title", exam=runs[0].exam_title, names=" · ".join(run.name for run in runs[:3]) + (" …" if len(runs) > 3 else "")),
        "css": Markup(css),
        "script": Markup(script),
        "script_hash": Markup(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"),
        "licence": t("licence", exam=runs[0].exam_title, licence=runs[0].licence),
        "exams": exams,
        "hero": sections.hero(runs[0], rows[0], focus, warnings, t, lang),
        "cards": sections.cards(rows[0], focus, other, t),
        **sections.runs_table(rows, pairs, runs[0].name, lang),
        "refused": [t("not_comparable", first=runs[0].name, second=name, why=why) for name, why in refused],
        "others": [{"first": pair.first, "second": pair.second, "lines": verdict(pair, t, lang)} for pair in pairs[1:]],
        "charts": [_chart(figure) for figure in drawn],
        "matrix": sections.matrix(runs, lang),
        "key_lines": key_lines(audit_key(runs, questions), t) if len(runs) >= MIN_RUNS else [],
        "reasoning": reasoning.section([(run.name, run.metrics) for run in runs], t),
        "subjects": changed,
        "subject_columns": columns,
        "facts": sections.facts(runs, t),
        "has_texts": questions is not None,
        "method": [
            t("method_1"),
            *([t("method_2")] if focus is None or focus.letters else []),
            t("method_3"),
        ],
    }
    if focus:
        context["note_subjects"] = t("subjects_note", first=focus.first, second=focus.second, count=len(changed))
    present = [
        ("exams", exams is not None),
        ("summary", True),
        ("all_runs", len(runs) > 1),
        ("charts", True),
        ("matrix", bool(context["matrix"])),
        ("key_audit", bool(context["key_lines"])),
        ("reasoning", bool(context["reasoning"])),
        ("all_subjects", bool(changed)),
        ("explorer", any(run.predictions is not None for run in runs)),
        ("facts", True),
        ("method", True),
    ]
    anchors = {"all_runs": "runs", "all_subjects": "subjects", "key_audit": "key"}
    context["nav"] = [(anchors.get(name, name), t(name)) for name, there in present if there]
    page = environment.get_template("report.html.j2")
    shell = page.render({**context, "data": None})
    return page.render(
        {**context, "data": _data(runs, questions, settings, lang, words, MAX_BYTES - len(shell.encode()) - 100_000, context, t)}
    )


def _chart(figure: figures.Figure) -> dict[str, Any]:
    from markupsafe import Markup

    colours = charts.run_colours(6, charts.PAGE)
    legend = [
        {"name": name, "colour": charts.PAGE[key.lstrip("|")] if not key.isdigit() else colours[int(key)], "tick": key.startswith("|")}
        for name, key in figure.legend
    ]
    svg = charts.to_svg(figure.draw(charts.PAGE), charts.PAGE, figure.id)
    return {
        "id": f"chart-{figure.id}",
        "title": figure.title,
        "note": figure.note,
        "size": figure.size,
        "legend": legend,
        "svg": Markup(svg),
    }


def _data(
    runs: list[Run],
    questions: pl.DataFrame | None,
    settings: Settings,
    lang: str,
    words: dict[str, str],
    room: int,
    context: dict[str, Any],
    t: Texts,
) -> Any:
    """The explorer's packed data; generated texts are thinned out until it fits into ``room`` bytes."""
    from markupsafe import Markup

    if all(run.predictions is None for run in runs):
        return None
    budget = explorer.TEXT_BUDGET_BYTES
    while True:
        document = explorer.document(runs, questions, settings.overlap, lang, budget)
        packed = explorer.pack({**document, "words": words})
        left_out = sum(run.get("texts_left_out", 0) for run in document["runs"])
        if len(packed) <= room or budget < 1_000:
            break
        budget //= 2
    if left_out:
        context["method"].append(t("method_texts", count=f"{left_out:,}"))
    return Markup(packed)


def write_report(
    runs: list[Run],
    path: Path,
    questions: pl.DataFrame | None,
    settings: Settings,
    lang: str,
    figure_folder: Path | None = None,
    plan: Path | None = None,
    exams: dict[str, Any] | None = None,
) -> int:
    """Write the HTML file; returns its size in bytes."""
    from kmmlu_fast.core.files import write_bytes_atomically

    refuse_prefixes(runs)
    page = render(runs, questions, settings, lang, figure_folder, plan, exams).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, page)
    return len(page)
