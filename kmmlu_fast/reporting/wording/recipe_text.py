"""Sentences that accompany the verdicts: a recipe's effect over its seeds, and questions with a doubtful key.

In: a ``RecipeEffect``, a ``KeyAudit``, a translator. Out: sentences. Knows nothing of how they are shown.
"""

from __future__ import annotations

from kmmlu_fast.analysis.key_audit import KeyAudit
from kmmlu_fast.analysis.recipes import RecipeEffect
from kmmlu_fast.reporting.wording.language import Translator, format_percent, format_points


def recipe_sentence(recipe: RecipeEffect, t: Translator) -> str:
    """The recipe's effect over its seeds."""
    key = "recipe_not_shown"
    if recipe.significant:
        key = "recipe_better" if recipe.effect > 0 else "recipe_worse"
    return t(
        key,
        name=recipe.name,
        first=recipe.first,
        seeds=len(recipe.runs),
        effect=format_points(recipe.effect),
        low=format_points(recipe.low, unit=False),
        high=format_points(recipe.high, unit=False),
        deviation=format_percent(recipe.seed_deviation),
        each=", ".join(format_points(effect, unit=False) for effect in recipe.effects),
    )


def key_audit_lines(audit: KeyAudit | None, t: Translator, most: int = 20) -> list[str]:
    """Ids of questions with a doubtful key, and accuracy without them."""
    if audit is None:
        return [t("key_too_few")]
    listed = len(audit.against_key)
    lines = [t("key_too_few")]
    if audit.enough_witnesses:
        by_chance = min(1.0, audit.expected_by_chance / listed) if listed else 0.0
        values = {
            "share": format_percent(audit.agreement, 0),
            "expected": f"{audit.expected_by_chance:.1f}",
            "false": format_percent(by_chance, 0),
        }
        lines = [t("key_against", count=listed, models=audit.models, vendors=audit.vendors, **values)]
    for question, key, letter, share in audit.against_key[:most]:
        lines.append(f"  {question}: {key} → {letter} ({format_percent(share, 0)} %)")
    if len(audit.against_key) > most:
        lines.append(f"  … {len(audit.against_key) - most:,}")
    if audit.conflicting:
        ids = ", ".join(audit.conflicting[:most]) + (", …" if len(audit.conflicting) > most else "")
        lines.append(t("key_conflicting", count=len(audit.conflicting), ids=ids))
    if not audit.against_key and not audit.conflicting:
        return lines  # nothing to leave out
    for name, whole, rest in audit.accuracy:
        lines.append(t("key_accuracy", name=name, all=format_percent(whole), without=format_percent(rest)))
    return lines
