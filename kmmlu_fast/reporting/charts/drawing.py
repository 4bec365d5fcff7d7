"""Colours, and charts as SVG.

In: an Altair chart. Out: its Vega-Lite specification, SVG text. In the page, colours are CSS variables, so
that one SVG works in light and dark mode and in print; in figure files they are fixed. Charts need no
JavaScript and no network. Knows nothing of what is drawn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

PAGE = {
    "ink": "var(--ink)",
    "muted": "var(--muted)",
    "grid": "var(--line)",
    "paper": "transparent",
    "first": "var(--c-first)",
    "second": "var(--c-second)",
    "up": "var(--up)",
    "down": "var(--down)",
    "none": "var(--c-none)",
    "key": "var(--c-key)",
    "more": "var(--c-3) var(--c-4) var(--c-5) var(--c-6)",
}
FIGURE = {
    "ink": "#1b2430",
    "muted": "#5b6675",
    "grid": "#e3e7ed",
    "paper": "#ffffff",
    "first": "#8a94a3",
    "second": "#2563c9",
    "up": "#0b8457",
    "down": "#cf4520",
    "none": "#a9b2be",
    "key": "#1b2430",
    "more": "#8b5cc4 #b7791f #0e8a8a #c2417c",
}
FONT = "Pretendard, 'Noto Sans KR', 'Noto Sans CJK KR', 'Apple SD Gothic Neo', 'Malgun Gothic', sans-serif"
HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
_LATIN_FONT = "sans-serif"

Palette = dict[str, str]
NARROWEST_PX = 70.0  # of a plot
LABEL_LIMIT_PX, _LABEL_PX = 270, 11  # most room for an axis label; its letters' size


def run_colours(count: int, palette: Palette) -> list[str]:
    """Colours of the base and of up to five others."""
    return [palette["first"], palette["second"], *palette["more"].split()][:count]


def distinguish_svg_ids(svg: str, prefix: str) -> str:
    """The SVG with ids that begin with ``prefix``, so that several fit into a page."""
    return re.sub(r'(\bid="|url\(#)', rf"\g<1>{prefix}-", svg)


def label_limit(labels: Sequence[str]) -> int:
    """``labelLimit`` of an axis with these labels, px: 0 (none) if every one is shorter in any usual font,
    because Vega measures each label several times over to apply a limit.
    """
    widest = max((sum(map(_widest_glyph, label)) for label in labels), default=0.0)
    return 0 if widest * _LABEL_PX < LABEL_LIMIT_PX else LABEL_LIMIT_PX


def _widest_glyph(letter: str) -> float:
    """More than its width, in ems, in sans-serif fonts (DejaVu Sans is the widest of the usual ones)."""
    if letter in "mwMW@%—" or letter > "\u02ff":
        return 1.0
    return 0.8 if letter.isupper() else 0.65


def svg_width(svg: str) -> float:
    """Its outer width, px."""
    return float(re.search(r'<svg[^>]* width="([\d.]+)"', svg)[1])  # type: ignore[index]


def plots_with_width(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The views of a specification that have a width."""
    inner = [part for key in ("vconcat", "hconcat", "layer") for part in spec.get(key, [])]
    own = [spec] if isinstance(spec.get("width"), (int, float)) else []
    return [*own, *[plot for part in inner for plot in plots_with_width(part)]]


def narrow_plots(spec: dict[str, Any], over_px: float) -> bool:
    """Take ``over_px`` from the widths of plots side by side; False if none can be narrowed."""
    beside = max(
        (
            len(plots_with_width({"hconcat": part.get("hconcat", [part])}))
            for part in spec.get("vconcat", [spec])
        ),
        default=1,
    )
    narrowed = False
    for plot in plots_with_width(spec):
        width = max(NARROWEST_PX, plot["width"] - over_px / max(1, beside))
        narrowed = narrowed or abs(width - plot["width"]) > 0.5
        plot["width"] = width
    return narrowed


def convert_spec(document: dict[str, Any]) -> str:
    """A Vega-Lite specification as SVG, drawn in this process; nothing is fetched."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(document, allowed_base_urls=[]))


def spec_to_svg(document: dict[str, Any], convert: Callable[[dict[str, Any]], str] = convert_spec) -> str:
    """A Vega-Lite specification as SVG. Text without Hangul is measured in the usual sans-serif font, which
    takes a third of the time that a font of 60,000 glyphs does.
    """
    config = document.get("config") or {}
    if config.get("font") == FONT and not HANGUL.search(json.dumps(document, ensure_ascii=False)):
        document = {**document, "config": {**config, "font": _LATIN_FONT}}
    svg = convert(document)
    return svg.replace(f'font-family="{_LATIN_FONT}"', f'font-family="{FONT}"')


def vega_lite_spec(chart: Any, palette: Palette) -> dict[str, Any]:
    axis = {
        "labelColor": palette["muted"],
        "titleColor": palette["muted"],
        "gridColor": palette["grid"],
        "domainColor": palette["grid"],
        "tickColor": palette["grid"],
        "labelFontSize": _LABEL_PX,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 6,
    }
    configured = (
        chart.configure(font=FONT, background=palette["paper"])
        .configure_view(stroke=None)
        .configure_axis(**axis)
        # numbers that have no room are left out, not drawn over each other
        .configure_axisQuantitative(labelFlush=False, labelOverlap="greedy", labelSeparation=5)
    )
    return dict(configured.to_dict(validate=False))
