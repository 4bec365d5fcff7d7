"""The charts as files, for a paper or slides: those of the page, one per further pair, and a heat map.

In: ``ReportData``. Out: SVG, PNG and PDF files in a folder. Knows nothing of HTML.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from kmmlu_fast.core.files import distinct_slugs
from kmmlu_fast.machine.extras import require_docstrings
from kmmlu_fast.reporting.charts import answer_charts, answer_figures
from kmmlu_fast.reporting.charts.figure import Figure
from kmmlu_fast.reporting.charts.figure_files import save_figure
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import Translator, get_translator
from kmmlu_fast.runs.run import refuse_early_stopped_runs

MOST_COLUMNS = 30  # runs in the heat map


def write_figures(
    report: ReportData,
    folder: Path,
    lang: str,
    *,
    plan: Path | None = None,
    width_in: float | None = None,
    with_titles: bool = True,
) -> list[Path]:
    """Write every figure, ``width_in`` inches wide; returns the files."""
    require_docstrings("figures")  # altair's
    refuse_early_stopped_runs(report.runs)
    figures = paper_figures(report, plan, get_translator(lang, "report"))
    return [
        path for figure in figures for path in save_figure(figure, folder, width_in, with_title=with_titles)
    ]


def paper_figures(report: ReportData, plan: Path | None, t: Translator) -> list[Figure]:
    """The page's figures, then the changes of each further pair and the heat map."""
    figures = answer_figures.report_figures(report, plan, t)
    slugs = distinct_slugs(pair.second for pair in report.pairs)
    for pair, slug in list(zip(report.pairs, slugs, strict=True))[1:]:
        changes = answer_figures.changes_figure(pair, t, f"changes-{slug}")
        figures += [] if changes is None else [changes]
    return [*figures, *_heat_maps(report, t)]


def _heat_maps(report: ReportData, t: Translator) -> list[Figure]:
    """Accuracy of subjects x runs; nothing for one run, or for more than there is room for."""
    if not 2 <= len(report.runs) <= MOST_COLUMNS:
        return []
    frame = pl.concat(
        run.scores.select(
            "subject", (pl.col("correct") / pl.col("total")).alias("accuracy"), pl.lit(run.name).alias("run")
        )
        for run in report.runs
    )
    order = (
        frame.group_by("subject")
        .agg(pl.col("accuracy").mean())
        .sort("accuracy", "subject", descending=[True, False])
    )
    labels = {name: t.subject(name) for name in order["subject"]}
    frame = frame.with_columns(pl.col("subject").replace_strict(labels).alias("label"))
    runs = [run.name for run in report.runs]
    return [
        Figure(
            id="heatmap",
            title=t("heatmap_title"),
            note="",
            draw=lambda palette: answer_charts.heat_map_chart(frame, list(labels.values()), runs, palette),
            size="tall",
        )
    ]
