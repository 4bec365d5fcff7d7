"""The search as one HTML file: the halving as a picture, the table, the sentences.

In: an ``ImproveConfig`` and a ``SearchResult``. Out: ``report.html`` and ``result.json`` in the search's
directory. Self-contained; text is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from kmmlu_fast.analysis.recipes import RecipeEffect
from kmmlu_fast.core.files import write_bytes_atomically, write_json_atomically
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.halving_chart import draw_halving
from kmmlu_fast.improvement.reproduction import reproduce_lines
from kmmlu_fast.improvement.search import SearchResult
from kmmlu_fast.improvement.summary import (
    ingredient_lines,
    name_yardstick,
    recipe_rows,
    verdict_sentences,
)

_COLOURS = {  # light and dark, as in the other report
    "ink": ("#1b2430", "#e6ebf1"),
    "muted": ("#5b6675", "#9aa6b6"),
    "line": ("#e3e7ed", "#2c3643"),
    "paper": ("#fff", "#10141a"),
    "c-first": ("#8a94a3", "#8c98a8"),
    "c-second": ("#2563c9", "#6ba4fa"),
    "c-3": ("#8b5cc4", "#b794e6"),
    "c-4": ("#b7791f", "#e0a94a"),
    "c-5": ("#0e8a8a", "#4cc4c0"),
    "c-6": ("#c2417c", "#ec7fb0"),
    "c-none": ("#a9b2be", "#5c6878"),
}
_STYLE = (
    ":root{color-scheme:light dark;"
    + "".join(f"--{name}:light-dark({light},{dark});" for name, (light, dark) in _COLOURS.items())
    + "}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:var(--ink);background:var(--paper)}h2{margin-top:2rem}.note{color:var(--muted)}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line)}"
    "pre{white-space:pre-wrap;overflow-wrap:anywhere}svg{max-width:100%;height:auto}"
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
                "-" if row.gain is None else f"{100 * row.gain.value:+.1f}",
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
        f'{sentences}<h2>Rungs</h2><p class="note">A dot for each time that a recipe was scored; those with'
        f" fewer dots were dropped. Lines are 95 % intervals.</p>{draw_halving(result)}<h2>Recipes</h2>"
        '<p class="note">Gains are on train questions, on which recipes were chosen, against'
        f" {html.escape(name_yardstick(result))}.</p>"
        f'<div class="scroll"><table><tr>{heads}</tr>{rows}</table></div>'
        f"<pre>{ingredients}</pre><h2>Reproduce</h2><pre>{command}</pre></html>\n"
    )


def _effect_values(effect: RecipeEffect, verdicts: Mapping[str, str]) -> dict[str, object]:
    """Without p where the sequential test chose how many questions were asked: it is of a fixed number."""
    values: dict[str, object] = asdict(effect)
    return {**values, "p_value": None} if verdicts else values


def _result_values(result: SearchResult) -> dict[str, object]:
    found = result.confirmation
    return {
        "winner": result.winner.name,
        "adapters": {name: str(path) for name, path in result.adapters.items()},
        # rung 0: it was not trained
        "recipes": [{**asdict(row), "rung": row.rung + 1} for row in recipe_rows(result)],
        "confirmation": {
            "questions": found.questions,
            "base": found.base,
            "gains": {name: asdict(gain) for name, gain in found.gains.items()},
            "questions_by_adapter": dict(found.questions_by_adapter),
            "base_by_adapter": dict(found.base_by_adapter),
            "verdicts": dict(found.verdicts),
            "effect": None if found.effect is None else _effect_values(found.effect, found.verdicts),
            "rival": None if found.rival is None else asdict(found.rival),
            "rival_accuracy": found.rival_accuracy,
            "runs": list(found.runs),
        },
        "seconds": round(result.spent_sec, 1),
    }
