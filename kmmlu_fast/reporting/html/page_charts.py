"""The charts of the report's page, in one language, drawn while the rest of the page is made.

In: ``ReportData``, a queue that draws. Out: per chart what the template shows, SVG included, as a future.
Knows nothing of what is drawn.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from kmmlu_fast.reporting.charts import answer_figures, drawing, figure_files
from kmmlu_fast.reporting.charts.figure import Figure
from kmmlu_fast.reporting.charts.svg_process import Draw, SvgQueue
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import Translator

PHONE_PX = 340.0  # room for a chart on a phone


def start_page_charts(
    report: ReportData, plan: Path | None, t: Translator, queue: SvgQueue
) -> list[Future[dict[str, Any]]]:
    """The page's charts in order; ``plan``: a sampling plan to chart."""
    return [_start_chart(figure, t, queue) for figure in answer_figures.report_figures(report, plan, t)]


def _start_chart(figure: Figure, t: Translator, queue: SvgQueue) -> Future[dict[str, Any]]:
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
    spec = drawing.vega_lite_spec(figure.draw(drawing.PAGE), drawing.PAGE)
    table = figure_files.chart_table_rows(spec)
    name = f"{t.lang}-{figure.id}"

    def chart(draw: Draw) -> dict[str, Any]:
        wide = draw(spec)
        narrow = None
        if figure.size:  # scaled to a phone, its text would be too small to read
            fits = not drawing.narrow_plots(spec, drawing.svg_width(wide) - PHONE_PX)
            svg = wide if fits else draw(spec)
            narrow = Markup(drawing.distinguish_svg_ids(svg, f"{name}-narrow"))
        return {
            "id": f"chart-{figure.id}",
            "title": figure.title,
            "note": figure.note,
            "size": figure.size,
            "legend": legend,
            "svg": Markup(drawing.distinguish_svg_ids(wide, name)),
            "narrow": narrow,
            "table": table,
        }

    return queue.submit(chart)
