"""How a search keeps to --minutes: which recipes a rung has time for, how many test questions are asked.

In: what was measured and recorded so far, a trainer that can do one piece to know what it costs. Out:
recipes, a number of questions; what is left out is recorded. Knows nothing of answers but the gains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kmmlu_fast.core.console import log_note
from kmmlu_fast.improvement.budget import affordable_questions, affordable_recipes, trainings_of
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.improvement.rung_training import RungTrainer
from kmmlu_fast.improvement.rungs import base_column, name_recipe_state, seeds_in_rung
from kmmlu_fast.improvement.search_state import SearchState


class TimeLimit:
    """``questions``: on which recipes are chosen; ``recipes``: all of the search."""

    def __init__(
        self,
        config: ImproveConfig,
        state: SearchState,
        trainer: RungTrainer,
        *,
        recipes: Sequence[Recipe],
        questions: int,
    ) -> None:
        self.config, self.state, self.trainer = config, state, trainer
        self._recipes, self._questions = recipes, questions

    def choose_recipes(self, alive: Sequence[Recipe], rung: int, gains: Mapping[str, float]) -> list[Recipe]:
        """Those that the rest of the time allows, in their order. The others are recorded: those first that
        gained less in the rung before (``gains``). Once the rung is scored, for good.
        """
        if self.state.read_scores(rung) is None:
            self.state.leave_out([], rung)
            if self.config.minutes is not None:
                ranked = self._rank_recipes(alive, rung, gains)
                fitting = self._find_fitting(ranked, rung, self.config.minutes)
                out = [recipe.name for recipe in ranked if recipe not in fitting]
                self.state.leave_out(out, rung)
        return [recipe for recipe in alive if self.state.left_out.get(recipe.name) != rung]

    def limit_questions(self, winner: Recipe, adapters: int, rival_examples: int) -> int | None:
        """Test questions for the confirmation; None: no limit. The number with which it began stays, for its
        verdicts to stay; other --minutes may only raise it.
        """
        minutes, limit = self.config.minutes, None
        pace = self.state.read_pace(base_column(winner.protocol))
        if minutes is not None and pace:
            rival = rival_examples if winner.protocol[1] != rival_examples else 0
            limit = affordable_questions(minutes, self.state.spent_sec, pace, 1 + adapters, rival)
        if (stored := self.state.read_limit()) is not None:
            before, most = stored
            if before == minutes or most is None:
                limit = most
            elif limit is not None:
                limit = max(limit, most)
        self.state.write_limit(minutes, limit)
        return limit

    def _rank_recipes(self, alive: Sequence[Recipe], rung: int, gains: Mapping[str, float]) -> list[Recipe]:
        """What is trained already first, then by gain in the rung before, then as in the file."""

        def rank(recipe: Recipe) -> tuple[bool, float]:
            name = name_recipe_state(recipe, self._seeds(rung)[-1])
            return self.state.trained_path(f"{name}-r{rung}") is None, -gains.get(recipe.name, 0.0)

        return sorted(alive, key=rank)

    def _find_fitting(self, ranked: Sequence[Recipe], rung: int, minutes: float) -> list[Recipe]:
        """Before any training is measured, the next one is done, to know; so is the writing of reasoning, if
        there is time for all else. Those that failed cost nothing more, and stay for their reason to be told.
        """
        for recipe in ranked:
            if self._measured_seconds():
                break
            self.trainer.train_states({name_recipe_state(recipe, 0): (recipe, 0)}, rung)
        fitting = self._count_fitting(ranked, rung, minutes)
        if not self.state.read_pace("drawing"):
            for recipe in fitting:
                self.trainer.write_rows(recipe, rung, name_recipe_state(recipe, 0))
                if self.state.read_pace("drawing"):
                    fitting = self._count_fitting(ranked, rung, minutes)
                    break
        return fitting

    def _count_fitting(self, ranked: Sequence[Recipe], rung: int, minutes: float) -> list[Recipe]:
        failed = self.trainer.find_failures(ranked, rung)
        sound = [recipe for recipe in ranked if recipe.name not in failed]
        costs = [self._recipe_seconds(recipe, rung) for recipe in sound]
        is_first = rung == 0 and self.config.rungs > 1
        count = affordable_recipes(minutes, self.state.spent_sec, costs, first_rung=is_first)
        log_note(
            f"rung {rung + 1}: {len(sound)} recipes take about {sum(costs) / 60:.0f} minutes,"
            f" {self.state.spent_sec / 60:.1f} of {minutes:g} are spent"
        )
        return [recipe for recipe in ranked if recipe.name in failed or recipe in sound[:count]]

    def _measured_seconds(self) -> dict[str, float]:
        """What one training of a rung takes, by recipe, where it was measured."""
        seconds, found = self.state.training_seconds, {}
        for recipe in self._recipes:
            keys = [f"{name_recipe_state(recipe, 0)}-r{rung}" for rung in range(self.config.rungs)]
            measured = [seconds[key] for key in keys if key in seconds]
            if measured:
                found[recipe.name] = measured[0]
        return found

    def _recipe_seconds(self, recipe: Recipe, rung: int) -> float:
        """What is left to do of a recipe in a rung: writing its reasoning, training, scoring."""
        seeds = self._seeds(rung)
        scoring = self.state.read_pace("adapter")
        if not scoring:
            scoring = self.state.read_pace(base_column(recipe.protocol)) * self._questions
        names = [f"{name_recipe_state(recipe, seed)}-r{rung}" for seed in seeds]
        if all(self.state.trained_path(name) for name in names):
            return scoring * len(seeds)
        trained = self._training_unit(recipe) * trainings_of(rung, self.config.rungs, len(seeds))
        drawing = (
            self.state.read_pace("drawing") * recipe.drawn_rows if self.trainer.lacks_rows(recipe) else 0.0
        )
        return drawing + trained / max(self.trainer.workers.count_slots(), 1) + scoring * len(seeds)

    def _training_unit(self, recipe: Recipe) -> float:
        """Seconds of the recipe's training in one rung, measured or estimated from others."""
        measured = self._measured_seconds()
        if recipe.name in measured or not measured:
            return measured.get(recipe.name, 0.0)
        passes = sum(other.row_passes for other in self._recipes if other.name in measured)
        return max(sum(measured.values()) / passes * recipe.row_passes, min(measured.values()))

    def _seeds(self, rung: int) -> list[int]:
        return seeds_in_rung(rung, self.config.rungs, self.config.seeds)
