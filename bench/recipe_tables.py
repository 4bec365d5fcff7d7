"""The tables of docs/howto/recipes.md, from the newest record of bench.recipes.

In: the record. Out: Markdown. Knows nothing of files.
"""

from __future__ import annotations

from typing import Any

Entry = dict[str, Any]

_COVERAGE = (
    ("naive_coverage", "naive: paired, on the questions it was chosen on"),
    ("adapter_coverage", "confirmed on test questions, one adapter"),
    ("recipe_coverage", "confirmed, the recipe over two seeds"),
)
_METHODS = (
    ("paired", "default: shown worse, then the better half"),
    ("paired only", "`--keep 1`: shown worse only"),
    ("halving", "successive halving"),
    ("wilcoxon", "Optuna's WilcoxonPruner over 45 subjects"),
    ("no pruning", "none"),
)


def render_recipes(entry: Entry) -> str:
    """Coverage of the winner's gain, and what pruning saves."""
    null, better = entry["null"], entry["one_better"]
    lines = [
        f"`{entry['command']}`, {entry['time_utc'][:10]}:",
        "",
        "| Interval of the winner's gain | covers the recipe's true gain: all recipes null | one at +3 pp |",
        "|---|---|---|",
        *(f"| {told} | {null[name]:.1%} | {better[name]:.1%} |" for name, told in _COVERAGE),
        "",
        f'"Better" was claimed in {null["claimed_better"]:.1%} of the searches without any better recipe, and'
        f" in {better['claimed_better']:.1%} of those with one. The recipe's interval is about"
        f" {null['recipe_width_pp']:.0f} pp wide with two seeds.",
        "",
        "| Pruning, one of twelve recipes at +3 pp | best recipe found | it went on | training spent |"
        " all null |",
        "|---|---|---|---|---|",
        *(
            f"| {told} | {better[name]['best']:.1%} | {better[name]['kept_best']:.1%} |"
            f" {better[name]['cost']:.0%} | {null[name]['cost']:.0%} |"
            for name, told in _METHODS
        ),
    ]
    return "\n".join(lines)
