"""The search as one HTML file: the halving as a picture, the table, the sentences.

In: an ``ImproveConfig`` and a ``SearchResult``. Out: ``report.html`` and ``result.json`` in the search's
directory. Self-contained; text is escaped.
"""

from __future__ import annotations

import html
from dataclasses import asdict
from pathlib import Path

from kmmlu_fast.core.files import write_bytes_atomically, write_json_atomically
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.search import SearchResult
from kmmlu_fast.improvement.summary import (
    ingredient_lines,
    recipe_rows,
    reproduce_lines,
    verdict_sentences,
)

_WIDTH, _HEIGHT, _MARGIN = 640, 280, 48
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:CanvasText;background:Canvas;color-scheme:light dark}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;"
    "border-bottom:1px solid color-mix(in srgb,CanvasText 20%,transparent)}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere}svg{max-width:100%;height:auto}"
    ".won{stroke:#0b7a75;stroke-width:3}.lost{stroke:#8a8f98;stroke-width:1.5}text{fill:CanvasText}"
)


def write_search_report(config: ImproveConfig, result: SearchResult) -> Path:
    """Write both files. Returns the page's path."""
    write_json_atomically(config.output_dir / "result.json", _result_values(result))
    page = config.output_dir / "report.html"
    write_bytes_atomically(page, search_page(config, result).encode("utf-8", "backslashreplace"))
    return page


def search_page(config: ImproveConfig, result: SearchResult) -> str:
    """The page."""
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{html.escape(cell)}</td>"
            for cell in (
                row.name,
                str(row.rung + 1) if row.rung >= 0 else "-",
                "-" if row.mean_gain is None else f"{100 * row.mean_gain:+.1f}",
                "-" if row.gain is None else f"{100 * row.gain.low:+.1f} to {100 * row.gain.high:+.1f}",
                row.fate,
            )
        )
        + "</tr>"
        for row in recipe_rows(result)
    )
    heads = "".join(f"<th>{name}</th>" for name in ("recipe", "rung", "gain, pp", "95 %", "outcome"))
    sentences = "".join(f"<p>{html.escape(text)}</p>" for text in verdict_sentences(result))
    ingredients = html.escape("\n".join(ingredient_lines(result)))
    command = html.escape("\n".join(reproduce_lines(config, result)))
    title = html.escape(f"Recipes for {config.model}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport"'
        f' content="width=device-width"><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>'
        f"{sentences}<h2>Rungs</h2>{draw_halving(result)}<h2>Recipes</h2><p>Gains are on train questions,"
        " on which recipes were chosen: only the numbers above are of test.</p>"
        f"<table><tr>{heads}</tr>{rows}</table><pre>{ingredients}</pre><h2>Reproduce</h2>"
        f"<pre>{command}</pre></html>\n"
    )


def draw_halving(result: SearchResult) -> str:
    """Each recipe's gain by rung as an SVG: lines end where recipes were dropped."""
    lines = {
        recipe.name: [scores.gain(recipe) for scores in result.rungs if recipe.name in scores.recipes]
        for recipe in result.recipes
    }
    values = [value for line in lines.values() for value in line]
    low, high = min([0.0, *values]), max([0.0, *values])
    span = max(high - low, 0.01)
    columns = max(len(result.rungs) - 1, 1)

    def place(rung: int, value: float) -> tuple[float, float]:
        x = _MARGIN + rung * (_WIDTH - 4 * _MARGIN) / columns
        return x, _HEIGHT - _MARGIN - (value - low) / span * (_HEIGHT - 2 * _MARGIN)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="gain by rung">']
    zero = place(0, 0.0)[1]
    parts.append(
        f'<line x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{zero:.1f}" y2="{zero:.1f}" class="lost"/>'
    )
    for name, line in lines.items():
        if not line:
            continue
        kind = "won" if name == result.winner.name else "lost"
        points = [place(rung, value) for rung, value in enumerate(line)]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        x, y = points[-1]
        parts.append(f'<polyline points="{joined}" fill="none" class="{kind}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="{kind}"/>')
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" font-size="11">{html.escape(name)}</text>')
    return "".join(parts) + "</svg>"


def _result_values(result: SearchResult) -> dict[str, object]:
    found = result.confirmation
    return {
        "winner": result.winner.name,
        "adapters": {name: str(path) for name, path in result.adapters.items()},
        "recipes": [asdict(row) for row in recipe_rows(result)],
        "confirmation": {
            "questions": found.questions,
            "base": found.base,
            "gains": {name: asdict(gain) for name, gain in found.gains.items()},
            "verdicts": dict(found.verdicts),
            "effect": None if found.effect is None else asdict(found.effect),
            "rival": None if found.rival is None else asdict(found.rival),
            "rival_accuracy": found.rival_accuracy,
            "runs": list(found.runs),
        },
        "seconds": round(result.spent_sec, 1),
    }
