"""The search: base and weak subjects, rows, rungs of training and scoring, one confirmation on test.

In: an ``ImproveConfig`` and workers. Out: a ``SearchResult``. Every choice is made from answers to train
questions; test is read by ``confirmation`` alone, after the choice. Each piece of work is recorded when it is
done, so that the same command continues after a kill and trains nothing twice. A recipe whose training or
adapter fails is dropped, and the others go on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.improvement.budget import most_checkpoints
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.confirmation import (
    Confirmation,
    choose_rival_examples,
    confirm_winner,
    engine_settings,
)
from kmmlu_fast.improvement.elimination import Dropped, choose_dropped
from kmmlu_fast.improvement.recipes import Recipe, read_recipes
from kmmlu_fast.improvement.rung_training import RungTrainer
from kmmlu_fast.improvement.rungs import (
    RungScores,
    base_column,
    name_recipe_state,
    protocol_settings,
    seeds_in_rung,
)
from kmmlu_fast.improvement.scoring import RungScorer, answering_seconds
from kmmlu_fast.improvement.search_state import SearchState
from kmmlu_fast.improvement.selection import (
    SPLIT,
    selection_question_ids,
    shrink_slices,
    write_weakness_run,
)
from kmmlu_fast.improvement.time_limit import TimeLimit
from kmmlu_fast.improvement.trials import RecipeTrials
from kmmlu_fast.improvement.workers import Workers, choose_workers
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.runs.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search found."""

    recipes: Sequence[Recipe]
    rungs: Sequence[RungScores]
    dropped: Mapping[str, Dropped]
    winner: Recipe
    adapters: Mapping[str, Path]  # the winner's, by name
    confirmation: Confirmation
    rows: Path  # the winner's training rows
    spent_sec: float


def run_search(config: ImproveConfig, workers: Workers | None = None) -> SearchResult:
    """Search, or continue a search. KmmluError for what the user can fix, before anything is trained."""
    recipes = read_recipes(config.recipes)
    require_modules("improve", "optuna", *(() if workers else ("torch", "unsloth", "trl", "peft")))
    config = shrink_slices(config)
    selection = selection_question_ids(config)
    examples = choose_rival_examples(config)
    state = SearchState(config, recipes)
    with state.lock:
        workers = workers or choose_workers(config)
        search = _Search(config, recipes, state, workers, selection=selection, rival_examples=examples)
        return search.run()


class _Search:
    def __init__(
        self,
        config: ImproveConfig,
        recipes: list[Recipe],
        state: SearchState,
        workers: Workers,
        *,
        selection: frozenset[str],
        rival_examples: int,
    ) -> None:
        self.config, self.state, self.workers = config, state, workers
        self.recipes = recipes = state.in_stored_order(recipes)
        self.selection, self.rival_examples = selection, rival_examples
        self.dropped: dict[str, Dropped] = {}
        self.trials = RecipeTrials(state.folder, recipes, self.dropped)
        self.scorer = RungScorer(
            {**self._eval_settings(), "limit": config.selection}, state, workers, self.selection
        )

    def run(self) -> SearchResult:
        self._say_plan()
        base = self._evaluate_base()
        first = base[self.recipes[0].protocol]
        self.trainer = RungTrainer(
            self.config,
            self.state,
            self.workers,
            weakness=write_weakness_run(first, self.selection, self.state.folder / "weakness"),
            asked=frozenset(first.frame["question_id"]),
        )
        self.trainer.draw_all_rows(self.recipes)
        self.time = TimeLimit(
            self.config, self.state, self.trainer, recipes=self.recipes, questions=len(self.selection)
        )
        alive = list(self.recipes)
        rungs: list[RungScores] = []
        for rung in range(self.config.rungs):
            alive = self._leave_out_for_time(alive, rung, rungs)
            scores = self._run_rung(alive, rung, base)
            self._remove_adapters([recipe for recipe in self.recipes if self._is_out(recipe, rung)])
            alive = [recipe for recipe in alive if recipe.name in scores.recipes]
            rungs.append(scores)
            self.trials.report_rung(rung, {recipe.name: scores.gain(recipe) for recipe in alive})
            if rung < self.config.rungs - 1:
                alive = self._drop_recipes(alive, scores)
        gains = {recipe.name: rungs[-1].gain(recipe) for recipe in alive}
        reading = [recipe for recipe in alive if recipe.name not in rungs[-1].collapsed] or alive
        winner = max(reading, key=lambda recipe: gains[recipe.name])  # of equals, the first in the file
        self.trials.tell_finished(gains)
        log_note(f"winner on {len(self.selection)} selection questions: {winner.name}")
        adapters = self._final_adapters(winner)
        confirmation = confirm_winner(
            self._confirmation_config(winner, len(adapters)),
            protocol_settings(winner),
            adapters,
            self.workers,
        )
        self.state.note_time()
        self._remove_adapters([recipe for recipe in self.recipes if recipe != winner])
        return SearchResult(
            recipes=self.recipes,
            rungs=rungs,
            dropped=self.dropped,
            winner=winner,
            adapters=adapters,
            confirmation=confirmation,
            rows=self.trainer.rows_path(winner),
            spent_sec=self.state.spent_sec,
        )

    def _confirmation_config(self, winner: Recipe, adapters: int) -> ImproveConfig:
        """With as many examples for the rival as there are, and as many questions as --minutes allows."""
        config = self.config.model_copy(update={"fewshot_rival": self.rival_examples})
        most = self.time.limit_questions(winner, adapters, self.rival_examples)
        if most is None or (config.max_questions is not None and config.max_questions <= most):
            return config
        spent = f"{self.state.spent_sec / 60:.1f} of {config.minutes:g} minutes are spent"
        log_note(f"confirmation: at most {most:,} test questions, for {spent}")
        return config.model_copy(update={"max_questions": most})

    def _say_plan(self) -> None:
        config, count = self.config, len(self.recipes)
        log_note(
            f"{count} recipes, {config.rungs} rungs, at most {config.keep:.0%} go on after each; chosen on"
            f" {len(self.selection)} train questions, one confirmed on test"
        )
        free = shutil.disk_usage(self.state.folder).free
        most = most_checkpoints(count, config.rungs, config.keep, config.seeds)
        log_note(
            f"disk: up to {most} checkpoints at a time (adapter and optimiser state, some 1 % to 5 % of the"
            f" model's size each); {free / 2**30:.0f} GiB are free"
        )

    def _evaluate_base(self) -> dict[tuple[str, int], Run]:
        """The base over selection and weakness questions, under each protocol of the recipes."""
        runs: dict[tuple[str, int], Run] = {}
        settings = {**self._eval_settings(), "limit": self.config.selection + self.config.weakness}
        for recipe in self.recipes:
            if recipe.protocol not in runs:
                log_note(f"base on train: {recipe.protocol[0]}, {recipe.protocol[1]} examples")
                began = time.monotonic()
                (run,) = self.workers.evaluate({**settings, **protocol_settings(recipe)})
                runs[recipe.protocol] = run
                pace = max(time.monotonic() - began, answering_seconds([run]))
                self.state.add_pace(base_column(recipe.protocol), len(run.frame), pace)
                self.state.note_time()
        return runs

    def _eval_settings(self) -> dict[str, Any]:
        return {
            **engine_settings(self.config),
            "split": SPLIT,
            "output_dir": self.state.folder / "runs",
        }

    def _run_rung(
        self, alive: Sequence[Recipe], rung: int, base: Mapping[tuple[str, int], Run]
    ) -> RungScores:
        """Train every recipe to the rung, then score all of them with one engine per protocol. Those that
        failed are dropped.
        """
        seeds = self._seeds_of(rung)
        stored = self.state.read_scores(rung)
        if stored is None:
            paths, failed = self.trainer.train_rung(alive, rung, seeds)
            sound = [recipe for recipe in alive if recipe.name not in failed]
            stored = self.scorer.score_rung(sound, rung, seeds, base, paths, failed)
        failed = self.state.read_reasons("failed", rung)
        for name, reason in failed.items():
            self.dropped[name] = Dropped(rung, "failed", f"failed: {reason}")
            log_note(f"dropped {name}: failed: {reason}")
        self.trials.tell_dropped(rung, self.dropped)
        return RungScores(
            rung=rung,
            base={recipe.protocol: stored[base_column(recipe.protocol)] for recipe in self.recipes},
            recipes={
                recipe.name: [stored[name_recipe_state(recipe, seed)] for seed in seeds]
                for recipe in alive
                if recipe.name not in failed
            },
            collapsed=self.state.read_reasons("collapsed", rung),
        )

    def _seeds_of(self, rung: int) -> list[int]:
        return seeds_in_rung(rung, self.config.rungs, self.config.seeds)

    def _is_out(self, recipe: Recipe, rung: int) -> bool:
        """Whether the recipe failed in the rung, or was left out before it."""
        return recipe.name in self.dropped and self.dropped[recipe.name].rung == rung

    def _drop_recipes(self, alive: list[Recipe], scores: RungScores) -> list[Recipe]:
        answers = {recipe.name: scores.recipes[recipe.name][0] for recipe in alive}
        dropped = choose_dropped(answers, scores.rung, len(self.recipes), self.config.keep, scores.collapsed)
        self.dropped |= dropped
        for name, why in dropped.items():
            log_note(f"dropped {name}: {why.reason}")
        self.trials.tell_dropped(scores.rung, dropped)
        self._remove_adapters([recipe for recipe in alive if recipe.name in dropped])
        return [recipe for recipe in alive if recipe.name not in dropped]

    def _remove_adapters(self, recipes: Sequence[Recipe]) -> None:
        """Losers' checkpoints are removed; their answers are kept."""
        for recipe in recipes:
            for folder in (self.state.folder / "adapters").glob(f"{recipe.name}-s*"):
                if folder.name.rpartition("-s")[0] == recipe.name:
                    shutil.rmtree(folder, ignore_errors=True)

    def _leave_out_for_time(
        self, alive: Sequence[Recipe], rung: int, rungs: Sequence[RungScores]
    ) -> list[Recipe]:
        """Keep to --minutes: recipes that the rest of the time does not allow are left out."""
        gains = {recipe.name: rungs[-1].gain(recipe) for recipe in alive} if rungs else {}
        chosen = self.time.choose_recipes(alive, rung, gains)
        for recipe in alive:
            if recipe not in chosen:
                self.dropped[recipe.name] = Dropped(rung, "time", "--minutes did not allow it")
                log_note(f"left out {recipe.name}: --minutes did not allow it")
        self.trials.tell_dropped(rung, self.dropped)
        return chosen

    def _final_adapters(self, winner: Recipe) -> dict[str, Path]:
        last = self.config.rungs - 1
        found: dict[str, Path] = {}
        for seed in self._seeds_of(last):
            name = name_recipe_state(winner, seed)
            path = self.state.trained_path(f"{name}-r{last}")
            if path is None or not path.exists():
                raise RunError(f"{self.state.folder}: {name} is gone; search in a new directory")
            found[name] = path
        return found
