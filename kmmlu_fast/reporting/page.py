"""One self-contained report.html.

In: runs, the first being the base; the dataset's frame for texts. Out: an HTML file that opens from disk and
asks nothing of a network. Everything that came from data or a model is escaped by the template, or packed and
set as text in the page; a content security policy stands behind both. Knows nothing of models.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.comparison import Comparison, Settings
from kmmlu_fast.analysis.headline import headline
from kmmlu_fast.analysis.key_audit import MIN_RUNS, KeyAudit, audit_key
from kmmlu_fast.core.version import __version__
from kmmlu_fast.reporting import charts, errors, explorer, figure_files, figures, human, reasoning, sections
from kmmlu_fast.reporting.comparing import compared
from kmmlu_fast.reporting.language import LANGUAGES, Texts, subject_name, supercategory_name, table, texts
from kmmlu_fast.reporting.verdict import key_lines
from kmmlu_fast.runs.run import Run, refuse_prefixes

ASSETS = Path(__file__).parent / "assets"
MAX_BYTES = 10_000_000
SCRIPTS = ("view.js", "pairs.js", "report.js")
SHARED_WORDS = (
    "better",
    "worse",
    "same",
    "unit_pair",
    "eyebrow_pair",
    "short_micro",
    "short_macro",
    "card_changed",
    "card_changed_sub",
    "card_subjects",
    "card_subjects_sub",
    "subjects_note",
    "base",
    "significant",
)


def render(
    runs: list[Run],
    questions: pl.DataFrame | None,
    settings: Settings,
    lang: str,
    figure_folder: Path | None = None,
    plan: Path | None = None,
    exams: dict[str, Any] | None = None,
    *,
    with_texts: bool = True,
    figure_width: float | None = None,
) -> str:
    """The report's HTML. ``questions``: the dataset's frame, for texts; ``figure_folder``: charts are written
    there as well, to fit ``figure_width`` inches where that is given; without ``with_texts`` no text of a
    question or of a model stands in it. ``exams``: the table of several exams (``reporting.exams``), where
    the runs are of several.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    settings = replace(
        settings, questions=settings.questions if settings.questions is not None else questions
    )
    pairs, refused = compared(runs, settings)
    rows = [
        sections.with_constant(headline(run, settings.overlap, settings.sizes), run, settings.overlap)
        for run in runs
    ]
    audit = audit_key(runs, questions) if len(runs) >= MIN_RUNS else None
    found = _Found(runs, pairs, refused, rows, questions, settings, plan, with_texts, exams, audit)
    if figure_folder is not None:
        t = texts(lang, "report")
        for figure in figures.figures(runs, pairs[0] if pairs else None, rows, questions, plan, t, lang):
            figure_files.save(figure, figure_folder, figure_width)
    css, script = _asset("report.css"), "".join(_asset(name) for name in SCRIPTS)
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2")
    other = next(name for name in LANGUAGES if name != lang)
    context = {
        **_context(found, lang),
        "css": Markup(css),
        "script": Markup(script),
        "script_hash": Markup(
            f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        ),
        "inner": False,
        "other_lang": other,
    }
    second = _context(found, other)

    def whole(data: Any) -> str:
        inner = page.render({**second, "inner": True, "other_lang": lang})
        return page.render({**context, "other_page": Markup(inner), "data": data})

    packed, left_out = _data(found, lang, MAX_BYTES - len(whole(None).encode()) - 100_000)
    if left_out:
        for part in (context, second):
            part["method"].append(part["t"]("method_texts", count=f"{left_out:,}"))
    return whole(packed)


@dataclass(frozen=True, slots=True)
class _Found:
    """All that both languages of a page are made from."""

    runs: list[Run]
    pairs: list[Comparison]
    refused: list[tuple[str, str]]
    rows: list[dict[str, Any]]
    questions: pl.DataFrame | None
    settings: Settings
    plan: Path | None
    with_texts: bool
    exams: dict[str, Any] | None
    audit: KeyAudit | None

    @property
    def answered(self) -> list[Run]:
        return [run for run in self.runs if run.predictions is not None]


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _context(found: _Found, lang: str) -> dict[str, Any]:
    """What the template shows, in one language."""
    runs, pairs, refused, rows, questions = (
        found.runs,
        found.pairs,
        found.refused,
        found.rows,
        found.questions,
    )
    t = texts(lang, "report")
    focus = pairs[0] if pairs else None
    other = next((row for row in rows if focus and row["name"] == focus.second), None)
    drawn = figures.figures(runs, focus, rows, questions, found.plan, t, lang)
    warnings = _warnings(runs, focus)
    columns, changed = sections.subjects_table(focus, t, lang) if focus else ([], [])
    board = sections.runs_table(rows, pairs, runs[0].name, lang)
    context: dict[str, Any] = {
        "t": t,
        "lang": lang,
        "version": __version__,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "title": t(
            "title",
            exam=runs[0].exam_title,
            names=" · ".join(run.name for run in runs[:3]) + (" …" if len(runs) > 3 else ""),
        ),
        "licence": t("licence", exam=runs[0].exam_title, licence=runs[0].licence),
        "exams": found.exams,
        "hero": sections.hero(runs[0], rows[0], focus, warnings, t, lang),
        "cards": sections.cards(rows[0], focus, other, t),
        **board,
        "refused": [t("not_comparable", first=runs[0].name, second=name, why=why) for name, why in refused],
        "others": sections.verdicts_table(pairs, board["runs"], t, lang) if len(pairs) > 1 else [],
        "charts": [_chart(figure, lang, t) for figure in drawn],
        "matrix": sections.matrix(runs, lang),
        "key_lines": key_lines(found.audit, t) if len(runs) >= MIN_RUNS else [],
        "reasoning": reasoning.section([(run.name, run.metrics) for run in runs], t),
        "errors": errors.section(
            runs, figures.in_focus(runs, focus), questions, t, with_texts=found.with_texts
        ),
        "subjects": changed,
        "subject_columns": columns,
        "facts": sections.facts(runs, t),
        "has_data": bool(found.answered),
        "has_texts": questions is not None and found.with_texts,
        "texts_left_out": not found.with_texts,
        "human_note": _human_note(questions, t, lang) if found.with_texts else "",
        "method": [
            t("method_1"),
            *([t("method_2")] if focus is None or focus.letters else []),
            t("method_3"),
        ],
    }
    if focus:
        context["note_subjects"] = t(
            "subjects_note", first=focus.first, second=focus.second, count=len(changed)
        )
    present = [
        ("exams", found.exams is not None),
        ("summary", True),
        ("all_runs", len(runs) > 1),
        ("charts", True),
        ("matrix", bool(context["matrix"])),
        ("key_audit", bool(context["key_lines"])),
        ("reasoning", bool(context["reasoning"])),
        ("all_subjects", bool(changed)),
        ("errors_section", context["errors"] is not None),
        ("explorer", any(run.predictions is not None for run in runs)),
        ("facts", True),
        ("method", True),
    ]
    anchors = {"all_runs": "runs", "all_subjects": "subjects", "key_audit": "key", "errors_section": "errors"}
    context["nav"] = [(anchors.get(name, name), t(name)) for name, there in present if there]
    if len(runs) > 2:
        context["nav"] = [context["nav"][1], context["nav"][0], *context["nav"][2:]]  # the leaderboard leads
    if few := _few_note(runs, t):
        context["hero"]["cautions"] = [*context["hero"]["cautions"], few]
    return context


def _warnings(runs: list[Run], pair: Comparison | None) -> list[str]:
    """What training warned of, for the run in question."""
    shown = [run for run in runs if pair is None or run.name == pair.second]
    return [
        f"{run.name}: {warning}"
        for run in shown
        for warning in sections.adapter_card(run).get("warnings") or []
    ]


def _few_note(runs: list[Run], t: Texts) -> str:
    """Said where most subjects have too few questions to speak of one of them."""
    totals = runs[0].scores["total"]
    few = int((totals < figures.FEW).sum())
    return (
        t("few_questions", few=few, all=len(totals), limit=figures.FEW)
        if len(totals) > 1 and few > len(totals) / 2
        else ""
    )


def _human_note(questions: pl.DataFrame | None, t: Texts, lang: str) -> str:
    """The footnote on human accuracy: of which subjects nothing is known, and of which only a part."""
    if questions is None:
        return ""
    wholly = ", ".join(subject_name(name, lang) for name in human.wholly_unknown(questions))
    partly = ", ".join(
        f"{subject_name(name, lang)} {few}/{all_}" for name, few, all_ in human.partly_unknown(questions)
    )
    return " ".join(
        [
            *([t("human_unknown", names=wholly)] if wholly else []),
            *([t("human_partly", names=partly)] if partly else []),
        ]
    )


def _chart(figure: figures.Figure, lang: str, t: Texts) -> dict[str, Any]:
    from markupsafe import Markup

    colours = charts.run_colours(6, charts.PAGE)
    legend = [
        {
            "name": name,
            "colour": charts.PAGE[key.lstrip("|")] if not key.isdigit() else colours[int(key)],
            "tick": key.startswith("|"),
        }
        for name, key in figure.legend
    ]
    drawn = figure.draw(charts.PAGE)
    svg = charts.to_svg(drawn, charts.PAGE, f"{lang}-{figure.id}")
    return {
        "id": f"chart-{figure.id}",
        "title": figure.title,
        "note": figure.note,
        "size": figure.size,
        "legend": legend,
        "svg": Markup(svg),
        "table": figure_files.numbers(drawn),
    }


def _data(found: _Found, lang: str, room: int) -> tuple[Any, int]:
    """The packed data of the page's script, and how many generated texts were thinned out until
    it fits into ``room`` bytes.
    """
    from markupsafe import Markup

    runs = found.answered
    if not runs:
        return None, 0
    names = [run.name for run in runs]
    more: dict[str, Any] = {
        "languages": list(LANGUAGES),
        "words": {name: table("explorer", name) | _shared_words(name) for name in LANGUAGES},
        "pair": (
            [names.index(name) for name in (found.pairs[0].first, found.pairs[0].second)]
            if found.pairs
            else None
        ),
        "views": {name: _views(found, names, name) for name in LANGUAGES} if len(runs) > 2 else None,
    }
    questions = found.questions if found.with_texts else None
    budget = explorer.TEXT_BUDGET_BYTES if found.with_texts else 0
    while True:
        document = explorer.document(found.runs, questions, found.settings.overlap, lang, budget)
        if not found.with_texts:
            for run in document["runs"]:
                run.pop("texts", None), run.pop("texts_left_out", None)
        ids = [subject["id"] for subject in document["subjects"]]
        groups = dict(
            pl.concat(run.scores.select("subject", "supercategory") for run in runs).unique().iter_rows()
        )
        more["names"] = [[subject_name(name, language) for name in ids] for language in LANGUAGES]
        more["groups"] = [
            [supercategory_name(groups[name], language) for name in ids] for language in LANGUAGES
        ]
        packed = explorer.pack({**document, **more})
        left_out = sum(run.get("texts_left_out", 0) for run in document["runs"])
        if len(packed) <= room or budget < 1_000:
            return Markup(packed), left_out
        budget //= 2


def _shared_words(lang: str) -> dict[str, str]:
    """The report's own words that the script says too."""
    known = table("common", lang) | table("report", lang)
    return {name: known[name] for name in SHARED_WORDS}


def _views(found: _Found, names: list[str], lang: str) -> dict[str, Any]:
    """Verdict and tiles of each run against the base, by the run's place among ``names``."""
    t, views = texts(lang, "report"), {}
    for pair in found.pairs:
        row, other = (
            next(row for row in found.rows if row["name"] == name) for name in (pair.first, pair.second)
        )
        warnings = _warnings(found.runs, pair)
        hero = sections.hero(found.runs[0], row, pair, warnings, t, lang)
        views[str(names.index(pair.second))] = {**hero, "cards": sections.cards(row, pair, other, t)}
    return views


def write_report(
    runs: list[Run],
    path: Path,
    questions: pl.DataFrame | None,
    settings: Settings,
    lang: str,
    figure_folder: Path | None = None,
    plan: Path | None = None,
    exams: dict[str, Any] | None = None,
    *,
    with_texts: bool = True,
    figure_width: float | None = None,
) -> int:
    """Write the HTML file; returns its size in bytes."""
    from kmmlu_fast.core.files import write_bytes_atomically

    refuse_prefixes(runs)
    page = render(
        runs,
        questions,
        settings,
        lang,
        figure_folder,
        plan,
        exams,
        with_texts=with_texts,
        figure_width=figure_width,
    ).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, page)
    return len(page)
