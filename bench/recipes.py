"""Searches for a recipe, simulated: is the confirmed gain honest, is the good recipe found, what does pruning
save; and ``watch``'s band over trainings that change nothing.

In: numbers of recipes, questions and searches. Out: a table and a JSON line. No model, no engine. An adapter
differs from its base on a share of the questions (``--discordance``); its recipe's effect moves the balance
of gains and losses, its seed moves it again, half of the first rung's changes are in the second rung's.
Choices are made by the product's code (``improvement.elimination``, ``analysis``).

Methods: *paired* drops what is shown to be worse (valid at any time) and keeps the better half; *paired only*
drops nothing else; *halving* keeps the better half; *wilcoxon* is Optuna's WilcoxonPruner over 45 subjects,
one recipe after the other against the best so far at the same rung; its p-values do not hold when repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, table
from kmmlu_fast.analysis.exact_band import exact_change_interval
from kmmlu_fast.analysis.paired import paired_interval
from kmmlu_fast.analysis.recipes import estimate_crossed_effect
from kmmlu_fast.analysis.training_look import AnsweredQuestion, compare_with_start
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.improvement.elimination import choose_dropped, shown_worse

Right = NDArray[np.bool_]
ACCURACY = 0.45  # of the base
SUBJECTS = 45
WILCOXON_P = 0.1  # Optuna's default threshold


class RecipesConfig(BenchConfig):
    """python -m bench.recipes: simulated searches for a recipe."""

    searches: PositiveInt = Field(1000, description="searches per setting")
    recipes: PositiveInt = Field(12, description="recipes of a search")
    selection: PositiveInt = Field(900, description="train questions on which recipes are chosen")
    confirmed: PositiveInt = Field(4500, description="test questions of the confirmation")
    discordance: float = Field(0.12, gt=0, lt=1, description="share of questions whose answer changes")
    effect: float = Field(3.0, description="pp, of the one recipe that is better")
    seed_deviation: float = Field(0.3, ge=0, description="pp, between adapters of one recipe")
    seed: int = Field(42, description="seed of the simulation")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One search's answers: base, then by recipe rung 1 and rung 2 with two seeds."""

    base: Right
    first: list[Right]
    last: list[list[Right]]


class Simulation:
    def __init__(
        self, config: RecipesConfig, effects: NDArray[np.float64], draw: np.random.Generator
    ) -> None:
        self.config, self.effects, self._draw = config, effects, draw

    def answers(self, questions: int, last_of: list[int] | None = None) -> Drawn:
        """Base and recipes on fresh questions. ``last_of``: only these recipes' last rung (else all)."""
        draw = self._draw
        base = draw.random(questions) < ACCURACY
        wanted = range(len(self.effects)) if last_of is None else last_of
        first, last = [], []
        for recipe in wanted:
            changes = draw.random(questions)
            first.append(self._tuned(base, changes, 0.7 * self.effects[recipe]))
            seeds = []
            for _ in range(2):
                kept = draw.random(questions) < 0.5
                again = np.where(kept, changes, draw.random(questions))
                shift = self.effects[recipe] + draw.normal(0, self.config.seed_deviation / 100)
                seeds.append(self._tuned(base, again, shift))
            last.append(seeds)
        return Drawn(base, first, last)

    def _tuned(self, base: Right, uniform: NDArray[np.float64], effect: float) -> Right:
        """Wrong answers become right, and right ones wrong, at the rates that give the effect."""
        gains = (self.config.discordance + effect) / 2 / (1 - ACCURACY)
        losses = (self.config.discordance - effect) / 2 / ACCURACY
        return np.where(base, uniform >= losses, uniform < gains)


def halve(answers: dict[str, Right]) -> set[str]:
    """The better half goes on."""
    order = sorted(answers, key=lambda name: -float(answers[name].mean()))
    return set(order[: (len(order) + 1) // 2])


def keep_paired(answers: dict[str, Right]) -> set[str]:
    return set(answers) - set(choose_dropped(answers, 0, len(answers), 0.5))


def keep_not_worse(answers: dict[str, Right]) -> set[str]:
    return set(answers) - set(shown_worse(answers, 0, len(answers)))


def keep_wilcoxon(answers: dict[str, Right]) -> set[str]:
    """Optuna's rule, recipe by recipe: prune if worse than the best so far by subject means, p below .1."""
    from scipy.stats import wilcoxon

    kept: set[str] = set()
    best: NDArray[np.float64] | None = None
    for name, right in answers.items():
        values = right[: len(right) // SUBJECTS * SUBJECTS].reshape(SUBJECTS, -1).mean(axis=1)
        if best is not None:
            difference = values - best
            if difference.any():
                p_value = wilcoxon(difference, alternative="less", zero_method="zsplit").pvalue
                if p_value < WILCOXON_P and values.mean() < best.mean():
                    continue
        kept.add(name)
        if best is None or values.mean() > best.mean():
            best = values
    return kept


METHODS: dict[str, Callable[[dict[str, Right]], set[str]]] = {
    "paired": keep_paired,
    "paired only": keep_not_worse,
    "halving": halve,
    "wilcoxon": keep_wilcoxon,
    "no pruning": lambda answers: set(answers),
}


def search_once(simulation: Simulation, counts: dict[str, Any], best: int) -> None:
    """One search by every method on the same answers; the confirmation is of the default's winner."""
    drawn = simulation.answers(simulation.config.selection)
    names = [str(place) for place in range(len(drawn.first))]
    first = dict(zip(names, drawn.first, strict=True))
    for method, rule in METHODS.items():
        kept = rule(first)
        means = {
            name: np.mean([right.mean() for right in drawn.last[int(name)]]) for name in names if name in kept
        }
        winner = int(max(means, key=lambda name: means[name]))
        counts[method]["best"] += winner == best
        counts[method]["kept_best"] += str(best) in kept
        # half of a training per recipe, the other half for those kept, and a second seed of each
        counts[method]["cost"] += (0.5 * len(names) + 1.5 * len(kept)) / (2 * len(names))
        if method == "paired":
            confirm(simulation, drawn, winner, counts)


def confirm(simulation: Simulation, drawn: Drawn, winner: int, counts: dict[str, Any]) -> None:
    """The winner on fresh questions, and the naive interval on the questions it was chosen on."""
    truth = simulation.effects[winner]
    right = drawn.last[winner][0]
    gained, lost = int((right & ~drawn.base).sum()), int((drawn.base & ~right).sum())
    before, after, questions = (np.array([float(n)]) for n in (lost, gained, len(right)))
    lows, highs = paired_interval(before, after, questions)
    counts["naive"] += bool(lows[0] <= truth <= highs[0])
    fresh = simulation.answers(simulation.config.confirmed, [winner])
    changes = np.column_stack([each.astype(float) - fresh.base for each in fresh.last[0]])
    estimate, _ = estimate_crossed_effect(changes, np.zeros(len(changes), dtype=np.int64))
    low, high = estimate.interval()
    counts["recipe"] += low <= truth <= high
    counts["width"] += high - low
    one = fresh.last[0][0]
    exact = exact_change_interval(int((one & ~fresh.base).sum()), int((fresh.base & ~one).sum()), len(one))
    counts["adapter"] += exact.low <= truth <= exact.high
    counts["claimed"] += exact.low > 0


def simulate_searches(config: RecipesConfig, effect_pp: float) -> dict[str, Any]:
    draw = np.random.default_rng(config.seed)
    effects = np.zeros(config.recipes)
    best = config.recipes - 1
    effects[best] = effect_pp / 100
    simulation = Simulation(config, effects, draw)
    counts: dict[str, Any] = {method: {"best": 0, "kept_best": 0, "cost": 0.0} for method in METHODS}
    counts |= dict.fromkeys(("naive", "recipe", "adapter", "claimed"), 0) | {"width": 0.0}
    for number in range(config.searches):
        search_once(simulation, counts, best)
        if (number + 1) % 100 == 0:
            note(f"{effect_pp:g} pp: {number + 1} of {config.searches} searches")
    total = config.searches
    found: dict[str, Any] = {}
    for method in METHODS:
        found[method] = {name: round(value / total, 4) for name, value in counts[method].items()}
    return found | {
        "naive_coverage": counts["naive"] / total,
        "recipe_coverage": counts["recipe"] / total,
        "adapter_coverage": counts["adapter"] / total,
        "claimed_better": counts["claimed"] / total,
        "recipe_width_pp": round(100 * counts["width"] / total, 2),
    }


def simulate_null_trainings(trainings: int, seed: int, questions: int = 450, looks: int = 20) -> float:
    """Share of trainings without a true change in which some look's band excludes zero. Answers drift: a
    tenth of them is drawn anew between two looks.
    """
    draw = np.random.default_rng(seed)
    wrong = 0
    ids = [f"q{place}" for place in range(questions)]
    letters = {True: AnsweredQuestion("A", "A"), False: AnsweredQuestion("A", "B")}
    for _ in range(trainings):
        right = draw.random(questions) < ACCURACY
        start = {name: letters[bool(each)] for name, each in zip(ids, right, strict=True)}
        for number in range(1, looks + 1):
            right = np.where(draw.random(questions) < 0.1, draw.random(questions) < ACCURACY, right)
            now = {name: letters[bool(each)] for name, each in zip(ids, right, strict=True)}
            band = compare_with_start(number, number, now, start, {}).difference
            if band is not None and band.excludes_zero:
                wrong += 1
                break
    return wrong / trainings


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(RecipesConfig, argv, "python -m bench.recipes")
        null, one = simulate_searches(config, 0.0), simulate_searches(config, config.effect)
        excluded = simulate_null_trainings(config.searches, config.seed)
        note(f"watch: {excluded:.1%} of {config.searches} null trainings")
        result = {"null": null, "one_better": one, "watch_null_excluded": excluded}
        coverage = [
            {
                "interval": name,
                "all null": f"{null[key]:.1%}",
                f"one {config.effect:+g} pp": f"{one[key]:.1%}",
            }
            for name, key in (
                ("naive, on the selection questions", "naive_coverage"),
                ("confirmed, one adapter", "adapter_coverage"),
                ("confirmed, the recipe over 2 seeds", "recipe_coverage"),
                ("claims 'better'", "claimed_better"),
            )
        ]
        pruning = [
            {
                "method": method,
                "best recipe found": f"{one[method]['best']:.1%}",
                "best went on": f"{one[method]['kept_best']:.1%}",
                "training": f"{one[method]['cost']:.0%}",
                "training, all null": f"{null[method]['cost']:.0%}",
            }
            for method in METHODS
        ]
        finish(
            "recipes",
            config,
            argv,
            result,
            [table("Coverage of the true gain", coverage), table("Pruning, one recipe better", pruning)],
        )
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
