"""``python -m kmmlu_fast.report RUN...``: one self-contained report.html, figure files, exports, or a single question.

In: runs (``importers``), the first being the base; the dataset for texts. Out: an HTML file that opens from disk and asks
nothing of a network; on request CSV, JSON, XLSX, lm-eval files and PNG/SVG. Knows nothing of models. Everything that came from
data or a model is escaped by the template, or packed and set as text in the page; a content security policy stands behind both.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, field_validator

from kmmlu_fast import __version__, charts, explorer, figures, reasoning, sections
from kmmlu_fast.compare import PairsConfig, load_runs, settings_of
from kmmlu_fast.comparison import Comparison, Settings, compare_pair, headline
from kmmlu_fast.config import parse
from kmmlu_fast.errors import ConfigError, RunError, run_main
from kmmlu_fast.importers import LoadedRun
from kmmlu_fast.language import Texts, table, texts
from kmmlu_fast.paired import many_corrections
from kmmlu_fast.verdict import verdict

ASSETS = Path(__file__).parent / "assets"
MAX_BYTES = 10_000_000
MANY = 3  # runs from which the bootstrap takes fewer replicates
FORMATS = ("csv", "json", "xlsx", "lm-eval")


class ReportConfig(PairsConfig):
    """python -m kmmlu_fast.report: runs as one HTML file, and as CSV, JSON, XLSX or lm-eval files."""

    output: Path | None = Field(None, description="the HTML file; default: report.html in the run directory (one run), else here")
    export: list[str] = Field([], description="csv, json, xlsx, lm-eval (comma-separated): written beside the HTML file")
    figures: Path | None = Field(None, description="directory for the charts as PNG and SVG")
    plan: Path | None = Field(None, description="sampling plan (.plan.parquet of kmmlu_fast.sample) to chart")
    show: list[str] = Field([], description="print these questions (such as Accounting/test/17) instead of writing a report")

    @field_validator("export")
    @classmethod
    def _formats(cls, value: list[str]) -> list[str]:
        if unknown := [name for name in value if name not in FORMATS]:
            raise ValueError(f"unknown format {unknown[0]!r}; allowed are {', '.join(FORMATS)}")
        return value


def compare_with_base(runs: list[LoadedRun], settings: Settings, t: Texts) -> tuple[list[Comparison], list[str]]:
    """Every run against the first; prompts may differ here (the report says so), other refusals become sentences."""
    if len(runs) >= MANY:
        settings = replace(settings, replicates=2_000)
    settings = replace(settings, different_prompts=True)
    pairs, refused = [], []
    with many_corrections():
        for other in runs[1:]:
            try:
                pairs.append(compare_pair(runs[0], other, settings))
            except RunError as error:
                refused.append(t("not_comparable", first=runs[0].name, second=other.name, why=str(error)))
    return pairs, refused


def render(
    runs: list[LoadedRun],
    questions: pl.DataFrame | None,
    settings: Settings,
    lang: str,
    figure_folder: Path | None = None,
    plan: Path | None = None,
) -> str:
    """The report's HTML. ``questions``: the dataset's frame, for texts; ``figure_folder``: charts are written there as well."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    t = texts(lang, "report")
    pairs, refused = compare_with_base(runs, settings, t)
    focus = pairs[0] if pairs else None
    rows = [sections.with_constant(headline(run, settings.overlap), run, settings.overlap) for run in runs]
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
        "title": t("title", names=" · ".join(run.name for run in runs[:3]) + (" …" if len(runs) > 3 else "")),
        "css": Markup(css),
        "script": Markup(script),
        "script_hash": Markup(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"),
        "hero": sections.hero(runs[0], rows[0], focus, warnings, t, lang),
        "cards": sections.cards(rows[0], focus, other, t),
        **sections.runs_table(rows, pairs, runs[0].name, lang),
        "refused": refused,
        "others": [{"first": pair.first, "second": pair.second, "lines": verdict(pair, t, lang)} for pair in pairs[1:]],
        "charts": [_chart(figure) for figure in drawn],
        "matrix": sections.matrix(runs, lang),
        "reasoning": reasoning.section([(run.name, run.metrics) for run in runs], t),
        "subjects": changed,
        "subject_columns": columns,
        "facts": sections.facts(runs, t),
        "has_texts": questions is not None,
        "method": [
            t("method_1", replicates=f"{2_000 if len(runs) >= MANY else settings.replicates:,}", seed=settings.seed),
            t("method_2"),
            t("method_3"),
        ],
    }
    if focus:
        context["note_subjects"] = t("subjects_note", first=focus.first, second=focus.second, count=len(changed))
    present = [
        ("summary", True),
        ("all_runs", len(runs) > 1),
        ("charts", True),
        ("matrix", bool(context["matrix"])),
        ("reasoning", bool(context["reasoning"])),
        ("all_subjects", bool(changed)),
        ("explorer", any(run.predictions is not None for run in runs)),
        ("facts", True),
        ("method", True),
    ]
    anchors = {"all_runs": "runs", "all_subjects": "subjects"}
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
    runs: list[LoadedRun],
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
    runs: list[LoadedRun],
    path: Path,
    questions: pl.DataFrame | None,
    settings: Settings,
    lang: str,
    figure_folder: Path | None = None,
    plan: Path | None = None,
) -> int:
    """Write the HTML file; returns its size in bytes."""
    from kmmlu_fast.store import write_bytes_atomically

    page = render(runs, questions, settings, lang, figure_folder, plan).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, page)
    return len(page)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        config = parse(ReportConfig, argv, "python -m kmmlu_fast.report")
        runs, questions = load_runs(config, at_least=1)
        if config.show:
            show(runs, questions, config.show)
            return
        settings = settings_of(config)
        only = runs[0].path if len(runs) == 1 else None
        path = config.output or (only or Path()) / "report.html"
        if path.suffix != ".html":
            raise ConfigError(f"--output {path}: give a file name that ends in .html")
        size = write_report(runs, path, questions, settings, config.lang, config.figures, config.plan)
        print(f"{path}  ({size / 1e6:.1f} MB, {len(runs)} run{'s' if len(runs) > 1 else ''})")
        if config.export:
            from kmmlu_fast.export import export

            for written in export(
                config.export, runs, compare_with_base(runs, settings, texts(config.lang))[0], questions, settings, config.lang, path.parent
            ):
                print(written)

    return run_main(body)


def show(runs: list[LoadedRun], questions: pl.DataFrame | None, wanted: list[str]) -> None:
    """Print single questions: texts (with a dataset), key, and what each run answered."""
    from rich.console import Console

    from kmmlu_fast import terminal

    console = Console(highlight=False)
    for question_id in wanted:
        found = [(run.name, run.frame.filter(pl.col("question_id") == question_id)) for run in runs if run.predictions is not None]
        rows = [(name, frame.row(0, named=True)) for name, frame in found if len(frame)]
        if not rows:
            raise ConfigError(f"--show {question_id}: is in none of the runs; ids look like {runs[0].frame['question_id'][0]}")
        item = None if questions is None else next(questions.filter(pl.col("question_id") == question_id).iter_rows(named=True), None)
        terminal.print_question(console, question_id, item, rows)


if __name__ == "__main__":
    sys.exit(main())
