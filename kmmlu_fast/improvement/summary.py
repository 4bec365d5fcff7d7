"""What a search says: the table of recipes, the confirmed gain, the ingredients.

In: an ``ImproveConfig`` and a ``SearchResult``. Out: rows and sentences. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kmmlu_fast.analysis.best_of import shrink_best
from kmmlu_fast.analysis.exact_band import ChangeInterval, exact_change_interval
from kmmlu_fast.analysis.recipes import estimate_crossed_effect
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.confirmation import Confirmation
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.improvement.reproduction import reproduce_lines
from kmmlu_fast.improvement.rungs import Right
from kmmlu_fast.improvement.search import SearchResult

LEAST_DEGREES = 8  # of freedom that must be left to speak of ingredients


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeRow:
    """One recipe in the table."""

    name: str
    rung: int  # the last one it was scored at; -1: it was not trained
    gain: ChangeInterval | None  # on the selection questions; the recipe's, over its seeds
    error: float | None  # the gain's standard error
    fate: str


def recipe_rows(result: SearchResult) -> list[RecipeRow]:
    """The recipes, best first: the winner, those of the last rung, then those dropped, latest first."""
    rows = [_describe_recipe(recipe, result) for recipe in result.recipes]
    return sorted(
        rows,
        key=lambda row: (row.name == result.winner.name, row.rung, row.gain.value if row.gain else 0.0),
        reverse=True,
    )


def _describe_recipe(recipe: Recipe, result: SearchResult) -> RecipeRow:
    scored = [scores for scores in result.rungs if recipe.name in scores.recipes]
    fate = "winner" if recipe == result.winner else "last rung"
    if recipe.name in result.dropped:
        fate = result.dropped[recipe.name].reason
    if not scored:
        return RecipeRow(name=recipe.name, rung=-1, gain=None, error=None, fate=fate)
    last = scored[-1]
    gain, error = selection_gain(last.base[last.yardstick], last.recipes[recipe.name])
    winner = last.recipes.get(result.winner.name)
    if fate == "last rung" and winner is not None and last.gain(recipe) == last.gain(result.winner):
        fate = "last rung, as good as the winner on these questions"
    if recipe.name in last.collapsed and recipe.name not in result.dropped:
        fate += f"; collapsed: {last.collapsed[recipe.name]}"
    return RecipeRow(name=recipe.name, rung=last.rung, gain=gain, error=error, fate=fate)


def selection_gain(base: Right, seeds: Sequence[Right]) -> tuple[ChangeInterval, float]:
    """A recipe's gain with its interval and standard error: exact for one seed, which is about that adapter;
    over questions and seeds for several, and never narrower than the first one's alone.
    """
    first = seeds[0]
    exact = exact_change_interval(int((first & ~base).sum()), int((base & ~first).sum()), len(base))
    error = (exact.high - exact.low) / 4
    if len(seeds) < 2 or len(base) < 2:
        return exact, error
    changes = np.stack([right.astype(float) - base for right in seeds], axis=1)
    estimate, _ = estimate_crossed_effect(changes, np.zeros(len(base), dtype=np.int64))
    low, high = estimate.interval()
    half = (exact.high - exact.low) / 2
    low, high = min(low, estimate.value - half), max(high, estimate.value + half)
    return ChangeInterval(estimate.value, max(low, -1.0), min(high, 1.0)), max(estimate.error, error)


def shrunk_selection_gain(result: SearchResult) -> float | None:
    """The winner's gain on the selection questions without the luck of being the best of those that it was
    chosen from; None if these are too few.
    """
    last = result.rungs[-1]
    base = last.base[last.yardstick]
    measured = {name: selection_gain(base, last.recipes[name]) for name in _chosen_from(result)}
    gains = {name: gain.value for name, (gain, _) in measured.items()}
    if gains.get(result.winner.name) != max(gains.values(), default=None):
        return None
    estimate = shrink_best(list(gains.values()), [max(error, 1e-6) for _, error in measured.values()])
    return None if estimate is None else min(estimate.value, gains[result.winner.name])


def _chosen_from(result: SearchResult) -> list[str]:
    """The recipes of the last rung of which the best one won: those that do not answer with one letter."""
    last = result.rungs[-1]
    return [name for name in last.recipes if name not in last.collapsed] or list(last.recipes)


def name_yardstick(result: SearchResult) -> str:
    """The base that all gains on the selection questions are measured against."""
    base = result.rungs[-1].base
    style, examples = result.rungs[-1].yardstick
    named = f" ({style})" if len({name for name, _ in base}) > 1 else ""
    shown = f"with {_count_examples(examples)}" if examples else "without examples"
    return f"the base{named} {shown} in the prompt"


def summary_lines(config: ImproveConfig, result: SearchResult) -> list[str]:
    """The whole summary as lines of text."""
    lines = ["recipe                          rung  gain on selection (95 %)        outcome"]
    for row in recipe_rows(result):
        shown = "-" if row.gain is None else f"{_points(row.gain.value)} ({_range(row.gain)})"
        lines.append(f"{row.name:<30}  {row.rung + 1 or '-':>4}  {shown:<30}  {row.fate}")
    if len(result.rungs[-1].base) > 1:
        lines.append(f"Gains on selection are against {name_yardstick(result)}, for every recipe.")
    said = [*verdict_sentences(result), *ingredient_lines(result), *reproduce_lines(config, result)]
    return [*lines, "", *said]


def verdict_sentences(result: SearchResult) -> list[str]:
    """What is known about the winner: on test, on the selection questions, against the base with examples."""
    found = result.confirmation
    headline, *more = _test_sentences(result)
    cautions = [
        f"CAUTION: {name} {said}: it has collapsed onto one letter, and a gain may be letter habit alone."
        for name, said in found.collapsed.items()
    ]
    sentences = [headline, *cautions, *more, *_selection_sentences(result)]
    if found.rival is not None:
        relation = "is not shown to differ from"
        if found.rival.excludes_zero:
            relation = "beats" if found.rival.value > 0 else "is worse than"
        subject = "It" if found.effect is None else f"Its adapter {next(iter(found.gains))}"
        sentences.append(
            f"{subject} {relation} the base with {_count_examples(found.rival_examples)} in the prompt"
            f" ({found.rival_accuracy:.1%}):"
            f" {_points(found.rival.value)} ({_range(found.rival)})."
        )
    return sentences


def _test_sentences(result: SearchResult) -> list[str]:
    """The gain on test: the recipe's over its seeds first, if there are several, then its first adapter's,
    then each other one's that came out otherwise or answered another number of questions.
    """
    found, winner = result.confirmation, result.winner.name
    first, *others = found.gains
    asked = _same_examples(found.examples)
    if found.effect is None:
        sentences = [f"{winner} on {_describe_gain(found, first, asked)}"]
    else:
        effect = found.effect
        over = ChangeInterval(effect.effect, effect.low, effect.high)
        sentences = [
            f"{winner} over {len(effect.effects)} seeds, on {effect.questions:,} test questions:"
            f" {_points(over.value)} ({_range(over)}) against the base's {found.base:.1%}{asked}."
            " The interval covers another training seed on the same rows.",
            f"Its adapter {first}, on {_describe_gain(found, first)}",
        ]
    outcome = _say_verdict(found, first), found.questions_by_adapter[first]
    for name in others:
        if (_say_verdict(found, name), found.questions_by_adapter[name]) != outcome:
            sentences.append(f"Its adapter of another seed, {name}, on {_describe_gain(found, name)}")
    return sentences


def _describe_gain(found: Confirmation, name: str, asked: str = "") -> str:
    gain, base = found.gains[name], found.base_by_adapter[name]
    return (
        f"{found.questions_by_adapter[name]:,} test questions: {_points(gain.value)} ({_range(gain)}) against"
        f" the base's {base:.1%}{asked}. It is {_say_verdict(found, name)}."
    )


def _selection_sentences(result: SearchResult) -> list[str]:
    shrunk = shrunk_selection_gain(result)
    if shrunk is None:
        return []
    raw = result.rungs[-1].gain(result.winner)
    against = f" against {name_yardstick(result)}" if len(result.rungs[-1].base) > 1 else ""
    where = " in the last rung" if len(result.rungs) > 1 else ""
    return [
        f"On the selection questions {result.winner.name} gained {_points(raw)}{against}; {_points(shrunk)}"
        f" without the luck of being the best of {len(_chosen_from(result))}{where}."
    ]


def _count_examples(count: int) -> str:
    return "an example" if count == 1 else f"{count} examples"


def _same_examples(count: int) -> str:
    return f", both with {_count_examples(count)} in the prompt" if count else ""


_VERDICTS = {
    "better": "shown to be better",
    "worse": "shown to be worse",
    "equal": "shown to be equal within the margin",
    "undecided": "not shown to be better or worse",
}


def _say_verdict(found: Confirmation, name: str) -> str:
    """The sequential test's, or the interval's where it gave none."""
    verdict, gain = found.verdicts.get(name), found.gains[name]
    if verdict is None:
        verdict = ("better" if gain.value > 0 else "worse") if gain.excludes_zero else "undecided"
    return _VERDICTS[verdict]


def ingredient_lines(result: SearchResult) -> list[str]:
    """Which settings the gains of the first rung go with, by least squares; or that there are too few
    recipes to say.
    """
    recipes = [recipe for recipe in result.recipes if recipe.name in result.rungs[0].recipes]
    columns = _setting_columns(recipes)
    left = len(recipes) - 1 - len(columns)
    if not columns:
        return []
    if left < LEAST_DEGREES:
        return [
            f"Ingredients: too few recipes ({len(recipes)}, for {_count_values(len(columns))}) to tell which"
            " setting helps."
        ]
    gains = np.array([result.rungs[0].gain(recipe) for recipe in recipes])
    design = np.column_stack([np.ones(len(recipes)), *columns.values()])
    weights, _, rank, _ = np.linalg.lstsq(design, gains, rcond=None)
    if rank < design.shape[1]:
        return ["Ingredients: settings vary together, so their parts cannot be told apart."]
    error = np.sqrt(float(((gains - design @ weights) ** 2).sum()) / left)
    errors = error * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    lines = ["Ingredients (first rung, least squares, exploratory):"]
    for name, weight, one_error in zip(columns, weights[1:], errors[1:], strict=True):
        lines.append(f"  {name}: {_points(float(weight))} +- {100 * 2 * float(one_error):.1f}")
    return lines


def _count_values(count: int) -> str:
    return "one changed value" if count == 1 else f"{count} changed values"


def _setting_columns(recipes: Sequence[Recipe]) -> dict[str, Any]:
    """One 0/1 column per value of a setting that varies, the first value being the reference."""
    columns: dict[str, Any] = {}
    for setting in dict.fromkeys(name for recipe in recipes for name in recipe.settings):
        values = [str(recipe.settings.get(setting, "default")) for recipe in recipes]
        for value in list(dict.fromkeys(values))[1:]:
            columns[f"{setting} {value}"] = np.array([float(each == value) for each in values])
    return columns


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} pp"


def _range(interval: ChangeInterval) -> str:
    return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
