"""A chart as SVG, PNG and PDF files for a paper: title and legend inside, fixed colours on white, a given
width; and as numbers.

In: a ``Figure``. Out: files. To reach a width, plots are narrowed first and letters shrunk only then
(subjects' full names leave 6 pt at 3.3 inches). PDFs embed the glyphs they use, including Korean ones, from a
font of this computer. Knows nothing of runs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.reporting.charts import drawing
from kmmlu_fast.reporting.charts.figure import Figure

PX_PER_INCH = 96.0  # CSS pixels, as SVG has them


def save_figure(
    figure: Figure, folder: Path, width_in: float | None = None, *, with_title: bool = True
) -> list[Path]:
    """``id.svg``, ``id.png`` (300 dpi) and ``id.pdf``; ``width_in``: inches, or the chart's own width."""
    import vl_convert

    folder.mkdir(parents=True, exist_ok=True)
    svg = _render_svg(figure, None if width_in is None else width_in * PX_PER_INCH, with_title)
    if drawing.HANGUL.search(svg) and not _has_korean_font():
        log_note(
            f"{figure.id}: no Korean font was found on this computer, so labels will be empty boxes; install"
            " fonts-noto-cjk"
        )
    in_points = _resize_svg(svg, drawing.svg_width(svg) * 72 / PX_PER_INCH)  # the unit of PDF
    files = {
        "svg": svg.encode(),
        # ppi alone scales by ppi / 72; the drawing has 96 pixels per inch
        "png": bytes(vl_convert.svg_to_png(svg, scale=72 / PX_PER_INCH, ppi=300)),
        "pdf": bytes(vl_convert.svg_to_pdf(in_points)),
    }
    for suffix, content in files.items():
        write_bytes_atomically(folder / f"{figure.id}.{suffix}", content)
    return [folder / f"{figure.id}.{suffix}" for suffix in files]


def chart_table_rows(spec: dict[str, Any]) -> list[tuple[str, str]]:
    """The tooltips of a specification's marks as (name, value) rows: the table behind the chart."""
    tips: dict[str, None] = {}
    for rows in (spec.get("datasets") or {}).values():
        tips |= dict.fromkeys(str(row["tip"]) for row in rows if row.get("tip"))
    return [(name, value) for name, _, value in (tip.partition(": ") for tip in tips) if value]


def _render_svg(figure: Figure, width_px: float | None, with_title: bool) -> str:
    """The SVG; plots are narrowed until the whole is ``width_px`` wide."""
    import altair as alt

    chart = figure.draw(drawing.FIGURE)
    if figure.legend:
        legend = _legend_chart(figure, _label_width(chart))
        chart = alt.vconcat(legend, chart, spacing=6).resolve_scale(color="independent")
    spec = drawing.vega_lite_spec(chart, drawing.FIGURE)
    if with_title:
        spec["title"] = {
            "text": figure.title,
            "anchor": "start",
            "fontSize": 13,
            "offset": 8,
            "color": drawing.FIGURE["ink"],
        }
    spec["padding"] = 4
    svg = drawing.spec_to_svg(spec)
    if width_px is None:
        return svg
    for _ in range(4):
        over = drawing.svg_width(svg) - width_px
        if abs(over) < 2 or not drawing.narrow_plots(spec, over):
            break
        if with_title:
            spec["title"]["text"] = _wrap_title(figure.title, width_px)
        svg = drawing.spec_to_svg(spec)
    return _resize_svg(svg, width_px)


def _resize_svg(svg: str, width: float) -> str:
    """The SVG in another outer width; its view box keeps the drawing's own measure."""
    height = width * _svg_height(svg) / drawing.svg_width(svg)
    return re.sub(
        r'<svg([^>]*?) width="[^"]+" height="[^"]+"',
        rf'<svg\1 width="{width:.2f}" height="{height:.2f}"',
        svg,
        count=1,
    )


def _svg_height(svg: str) -> float:
    return float(re.search(r'<svg[^>]* height="([\d.]+)"', svg)[1])  # type: ignore[index]


def _wrap_title(title: str, width_px: float) -> list[str]:
    """The title in lines that fit."""
    lines: list[str] = []
    for word in title.split():
        if lines and len(lines[-1]) + len(word) + 1 <= width_px / 7.5:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def _label_width(chart: Any) -> float:
    """Width of what stands left of a chart's plots: its labels, px."""
    spec = drawing.vega_lite_spec(chart, drawing.FIGURE)
    plots = drawing.plots_with_width(spec)
    if not plots or "vconcat" in spec:
        return 0.0
    beside = sum(float(plot["width"]) for plot in plots) + 18 * (len(plots) - 1)
    return max(0.0, drawing.svg_width(drawing.spec_to_svg({**spec, "padding": 0})) - beside - 12)


def _legend_chart(figure: Figure, left_px: float) -> Any:
    """Coloured squares and names above the chart, from its left edge: ``left_px`` left of its plots."""
    import altair as alt

    palette, colours = drawing.FIGURE, drawing.run_colours(6, drawing.FIGURE)
    named = [
        (name, palette[key.lstrip("|")] if not key.isdigit() else colours[int(key)])
        for name, key in figure.legend
    ]
    frame = pl.DataFrame({"name": [name for name, _ in named]})
    scale = alt.Scale(domain=[name for name, _ in named], range=[colour for _, colour in named])
    vertical = max(len(name) for name, _ in named) > 18
    legend = alt.Legend(
        orient="none",
        legendX=-left_px,
        legendY=0,
        labelColor=palette["ink"],
        title=None,
        direction="vertical" if vertical else "horizontal",
        symbolType="square",
        symbolSize=90,
        symbolStrokeWidth=0,
        symbolOpacity=1,
        labelLimit=600,
        offset=0,
        padding=0,
    )
    marks = (
        alt.Chart(frame)
        .mark_square(opacity=0, filled=True)
        .encode(color=alt.Color("name:N", scale=scale, legend=legend))
    )
    return marks.properties(width=drawing.NARROWEST_PX, height=15 * len(named) if vertical else 15)


def _has_korean_font() -> bool:
    """Whether a font of this computer has Hangul, judged by its file name."""
    places = (
        Path("/usr/share/fonts"),
        Path("/usr/local/share/fonts"),
        Path.home() / ".fonts",
        Path.home() / ".local/share/fonts",
        Path("/System/Library/Fonts"),
        Path("/Library/Fonts"),
        Path("C:/Windows/Fonts"),
    )
    known = ["cjk", "kr", "pretendard", "nanum", "malgun", "applesdgothic"]
    known += ["gothicneo", "batang", "unfonts", "baekmuk"]
    return any(
        any(name in path.name.lower() for name in known)
        for place in places
        if place.is_dir()
        for path in place.rglob("*")
        if path.suffix.lower() in (".ttf", ".otf", ".ttc")
    )
