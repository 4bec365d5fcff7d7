"""The search: base and weak subjects, rows, rungs of training and scoring, one confirmation on test.

In: an ``ImproveConfig`` and workers. Out: a ``SearchResult``. Every choice is made from answers to train
questions; test is read by ``confirmation`` alone, after the choice. Each piece of work is recorded when it is
done, so that the same command continues after a kill and trains nothing twice.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.confirmation import (
    Confirmation,
    choose_rival_examples,
    confirm_winner,
    engine_settings,
)
from kmmlu_fast.improvement.elimination import Dropped, choose_dropped
from kmmlu_fast.improvement.recipes import DRAWN, TRAINED, Recipe, read_recipes
from kmmlu_fast.improvement.search_state import SearchState
from kmmlu_fast.improvement.selection import SPLIT, selection_question_ids, write_weakness_run
from kmmlu_fast.improvement.trials import RecipeTrials
from kmmlu_fast.improvement.workers import Workers, choose_workers
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.runs.run import Run
from kmmlu_fast.sampling.config import SampleConfig
from kmmlu_fast.sampling.job import draw_training_rows

Right = NDArray[np.bool_]
_FIRST_RUNG_SHARE = 0.5  # of --minutes, for training and scoring the first rung
_CONFIRMATION_SHARE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class RungScores:
    """Right answers of base and recipes to the selection questions, at one rung."""

    rung: int
    base: Mapping[tuple[str, int], Right]  # by protocol
    recipes: Mapping[str, Sequence[Right]]  # by recipe, one array per seed

    def gain(self, recipe: Recipe) -> float:
        """Mean over seeds, against the base as it is asked with the fewest examples: one yardstick for all
        recipes, also for those that are asked with examples.
        """
        plain = min(self.base, key=lambda protocol: protocol[1])
        return mean_right(self.recipes[recipe.name]) - float(self.base[plain].mean())


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
    state = SearchState(config, recipes)
    with state.lock:
        return _Search(config, recipes, state, workers or choose_workers(config)).run()


class _Search:
    def __init__(
        self, config: ImproveConfig, recipes: list[Recipe], state: SearchState, workers: Workers
    ) -> None:
        self.config, self.recipes, self.state, self.workers = config, recipes, state, workers
        self.selection = selection_question_ids(config)
        self.rival_examples = choose_rival_examples(config)
        self.dropped: dict[str, Dropped] = {}
        self.trials = RecipeTrials(state.folder, recipes, self.dropped)
        self._all_asked: frozenset[str] = frozenset()

    def run(self) -> SearchResult:
        self._say_plan()
        base = self._evaluate_base()
        alive, rungs = list(self.recipes), []
        for rung in range(self.config.rungs):
            alive = self._leave_out_for_time(alive, rung)
            scores = self._run_rung(alive, rung, base)
            rungs.append(scores)
            self.trials.report_rung(rung, {recipe.name: scores.gain(recipe) for recipe in alive})
            if rung < self.config.rungs - 1:
                alive = self._drop_recipes(alive, scores)
        gains = {recipe.name: rungs[-1].gain(recipe) for recipe in alive}
        winner = max(alive, key=lambda recipe: gains[recipe.name])  # of equals, the first in the file
        self.trials.tell_finished(gains)
        log_note(f"winner on {len(self.selection)} selection questions: {winner.name}")
        adapters = self._final_adapters(winner)
        began = time.monotonic()
        config = self.config.model_copy(update={"fewshot_rival": self.rival_examples})
        confirmation = confirm_winner(config, _protocol_settings(winner), adapters, self.workers)
        self.state.add_seconds(time.monotonic() - began)
        self._remove_adapters([recipe for recipe in self.recipes if recipe != winner])
        return SearchResult(
            recipes=self.recipes,
            rungs=rungs,
            dropped=self.dropped,
            winner=winner,
            adapters=adapters,
            confirmation=confirmation,
            rows=self._rows_path(winner),
            spent_sec=self.state.spent_sec,
        )

    def _say_plan(self) -> None:
        config, count = self.config, len(self.recipes)
        log_note(
            f"{count} recipes, {config.rungs} rungs, at most {config.keep:.0%} go on after each; chosen on"
            f" {len(self.selection)} train questions, one confirmed on test"
        )
        free = shutil.disk_usage(self.state.folder).free
        log_note(
            f"disk: about {count} checkpoints (adapter and optimiser state, some 1 % to 5 % of the model's"
            f" size each) until the end of the first rung; {free / 2**30:.0f} GiB are free"
        )

    def _evaluate_base(self) -> dict[tuple[str, int], Run]:
        """The base over selection and weakness questions, under each protocol of the recipes."""
        runs: dict[tuple[str, int], Run] = {}
        settings = {**self._eval_settings(), "limit": self.config.selection + self.config.weakness}
        for recipe in self.recipes:
            if recipe.protocol not in runs:
                log_note(f"base on train: {recipe.protocol[0]}, {recipe.protocol[1]} examples")
                (runs[recipe.protocol],) = self.workers.evaluate({**settings, **_protocol_settings(recipe)})
        first = runs[self.recipes[0].protocol]
        self._all_asked = frozenset(first.frame["question_id"])
        self._weakness = write_weakness_run(first, self.selection, self.state.folder / "weakness")
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
        """Train every recipe to the rung, then score all of them with one engine per protocol."""
        seeds = self._seeds_of(rung)
        stored = self.state.read_scores(rung)
        if stored is None:
            paths = self._train_rung(alive, rung, seeds)
            stored = self._score_rung(alive, rung, seeds, base, paths)
        return RungScores(
            rung=rung,
            base={recipe.protocol: stored[_base_column(recipe.protocol)] for recipe in self.recipes},
            recipes={recipe.name: [stored[_state_name(recipe, seed)] for seed in seeds] for recipe in alive},
        )

    def _seeds_of(self, rung: int) -> list[int]:
        return list(range(self.config.seeds if rung == self.config.rungs - 1 else 1))

    def _train_rung(self, alive: Sequence[Recipe], rung: int, seeds: Sequence[int]) -> dict[str, Path]:
        """Adapters by name; those that were trained before are not trained again."""
        wanted = {_state_name(recipe, seed): (recipe, seed) for recipe in alive for seed in seeds}
        done = {name: self.state.trained_path(f"{name}-r{rung}") for name in wanted}
        self._train_states({name: wanted[name] for name, path in done.items() if path is None}, rung)
        paths = {name: self.state.trained_path(f"{name}-r{rung}") for name in wanted}
        return {name: path for name, path in paths.items() if path is not None}

    def _train_states(self, wanted: Mapping[str, tuple[Recipe, int]], rung: int) -> None:
        """Train up to the rung; each is recorded as it is done."""
        if not wanted:
            return
        names = list(wanted)
        log_note(f"rung {rung + 1} of {self.config.rungs}: training {', '.join(names)}")
        pieces = [self._train_settings(*wanted[name], rung) for name in names]
        for done in self.workers.train(pieces):
            self.state.add_trained(f"{names[done.piece]}-r{rung}", done.path, done.seconds)
            log_note(f"trained {names[done.piece]} in {done.seconds:.0f} s")

    def _train_settings(self, recipe: Recipe, seed: int, rung: int) -> dict[str, Any]:
        last = rung == self.config.rungs - 1
        return {
            "data": [str(self._draw_rows(recipe))],
            "output_dir": self.state.folder / "adapters" / _state_name(recipe, seed),
            "model": self.config.model,
            "revision": self.config.revision,
            "trust_remote_code": self.config.trust_remote_code,
            "dataset": self.config.dataset,
            "dataset_revision": self.config.dataset_revision,
            "held_out": 0,
            "keep": "last",
            "seed": self.config.seed + seed,
            **({} if last else {"stop_after": (rung + 1) / self.config.rungs}),
            **recipe.part(TRAINED),
        }

    def _rows_path(self, recipe: Recipe) -> Path:
        return self.state.folder / "rows" / f"{recipe.rows_digest}.jsonl"

    def _draw_rows(self, recipe: Recipe) -> Path:
        """The recipe's training rows; recipes with the same settings share them."""
        path = self._rows_path(recipe)
        if path.exists():
            return path
        config = build_config(
            SampleConfig,
            **{
                **engine_settings(self.config),
                "from": [str(self._weakness)],
                "out": path,
                "overwrite": True,  # what a kill left
                **recipe.part(DRAWN),
            },
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_training_rows(config, self._all_asked)
        return path

    def _score_rung(
        self,
        alive: Sequence[Recipe],
        rung: int,
        seeds: Sequence[int],
        base: Mapping[tuple[str, int], Run],
        paths: Mapping[str, Path],
    ) -> dict[str, Right]:
        began = time.monotonic()
        scores: dict[str, Right] = {}
        ids = sorted(self.selection)
        for protocol, run in base.items():
            scores[_base_column(protocol)] = _right_answers(run, ids)
        for protocol in base:
            together = [recipe for recipe in alive if recipe.protocol == protocol]
            names = [_state_name(recipe, seed) for recipe in together for seed in seeds]
            if not names:
                continue
            log_note(f"rung {rung + 1}: scoring {len(names)} adapters together")
            runs = self.workers.evaluate(
                {
                    **self._eval_settings(),
                    **_protocol_settings(together[0]),
                    "limit": self.config.selection,
                    "no_base": True,
                    "adapter": [f"{name}={paths[name]}" for name in names],
                }
            )
            for name, run in zip(names, runs, strict=True):
                scores[name] = _right_answers(run, ids)
        self.state.write_scores(rung, ids, scores)
        self.state.add_seconds(time.monotonic() - began)
        return scores

    def _drop_recipes(self, alive: list[Recipe], scores: RungScores) -> list[Recipe]:
        answers = {recipe.name: scores.recipes[recipe.name][0] for recipe in alive}
        dropped = choose_dropped(answers, scores.rung, len(self.recipes), self.config.keep)
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

    def _leave_out_for_time(self, alive: list[Recipe], rung: int) -> list[Recipe]:
        """Keep to --minutes: recipes that the rest of the time does not allow are left out, for good."""
        if self.state.read_scores(rung) is None and self.config.minutes is not None:
            for recipe in alive[self._affordable_count(alive, rung) :]:
                if recipe.name not in self.state.left_out:
                    self.state.leave_out(recipe.name, rung)
        out = [recipe for recipe in alive if self.state.left_out.get(recipe.name) == rung]
        for recipe in out:
            self.dropped[recipe.name] = Dropped(rung, "time", "--minutes did not allow it")
            log_note(f"left out {recipe.name}: --minutes {self.config.minutes:g} does not allow it")
        self.trials.tell_dropped(rung, self.dropped)
        return [recipe for recipe in alive if recipe not in out]

    def _affordable_count(self, alive: Sequence[Recipe], rung: int) -> int:
        """How many recipes the time allows in a rung, the first in the order of ``alive``; at least one.

        A rung's cost is that of the trainings in the first; before any is trained, one is, to know.
        """
        budget_sec = 60 * (self.config.minutes or 0.0)
        known = self.state.training_seconds(0)
        if not known:
            self._train_states({_state_name(alive[0], 0): (alive[0], 0)}, 0)
            known = self.state.training_seconds(0)
        per_recipe = max(float(np.mean(known)), 0.1) * len(self._seeds_of(rung))
        share = 1 - _CONFIRMATION_SHARE if rung else _FIRST_RUNG_SHARE
        done = len(self.state.training_seconds(rung)) // len(self._seeds_of(rung))
        count = done + int(max(share * budget_sec - self.state.spent_sec, 0.0) / per_recipe)
        log_note(
            f"rung {rung + 1}: a recipe takes about {per_recipe / 60:.1f} minutes,"
            f" {self.state.spent_sec / 60:.1f} of {self.config.minutes:g} are spent"
        )
        return max(1, count)

    def _final_adapters(self, winner: Recipe) -> dict[str, Path]:
        last = self.config.rungs - 1
        found: dict[str, Path] = {}
        for seed in self._seeds_of(last):
            name = _state_name(winner, seed)
            path = self.state.trained_path(f"{name}-r{last}")
            if path is None or not path.exists():
                raise RunError(f"{self.state.folder}: {name} is gone; search in a new directory")
            found[name] = path
        return found


def _state_name(recipe: Recipe, seed: int) -> str:
    return f"{recipe.name}-s{seed}"


def _base_column(protocol: tuple[str, int]) -> str:
    return f"base/{protocol[0]}/{protocol[1]}"


def _protocol_settings(recipe: Recipe) -> dict[str, Any]:
    style, fewshot = recipe.protocol
    return {"prompt_style": style, "num_fewshot": fewshot}


def mean_right(by_seed: Sequence[Right]) -> float:
    """Share of right answers, the mean over seeds."""
    return float(np.mean([right.mean() for right in by_seed]))


def _right_answers(run: Run, ids: Sequence[str]) -> Right:
    """Right or wrong on ``ids``, in their order. ConfigError if the run lacks one."""
    right = dict(run.frame.select("question_id", "correct").iter_rows())
    missing = [name for name in ids if name not in right]
    if missing:
        raise ConfigError(f"{run.name}: did not answer {missing[0]}; search in a new directory")
    return np.array([right[name] for name in ids], dtype=bool)
