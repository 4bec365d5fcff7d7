"""The search as an Optuna study: one trial per recipe, asked, reported at each rung, pruned or told.

In: recipes, gains by rung, what was dropped. Out: a study in ``journal.log`` (no database; a kill loses at
most the entry being written), which optuna-dashboard shows. The study is a record: choices are made from the
stored answers, so a damaged journal changes no result. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kmmlu_fast.improvement.elimination import Dropped, make_pruner
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.machine.extras import require_modules

JOURNAL = "journal.log"
_STUDY = "recipes"


class RecipeTrials:
    """Asks for each recipe's trial once, also after a restart."""

    def __init__(self, folder: Path, recipes: list[Recipe], dropped: Mapping[str, Dropped]) -> None:
        """``dropped``: filled by the search; the pruner looks into it."""
        require_modules("improve", "optuna")
        import optuna
        from optuna.distributions import CategoricalDistribution
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.trial import Trial

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        self._study = optuna.create_study(
            storage=storage,
            study_name=_STUDY,
            direction="maximize",
            load_if_exists=True,
            pruner=make_pruner(dropped),
        )
        names = [recipe.name for recipe in recipes]
        known = {trial.params["recipe"]: trial for trial in self._study.get_trials() if trial.params}
        self._trials: dict[str, Any] = {}
        self._finished = {name for name, trial in known.items() if trial.state.is_finished()}
        self._values = {name: dict(trial.intermediate_values) for name, trial in known.items()}
        choices = {"recipe": CategoricalDistribution(names)}
        for recipe in recipes:
            if recipe.name in known:
                self._trials[recipe.name] = Trial(self._study, known[recipe.name]._trial_id)
                continue
            self._study.enqueue_trial({"recipe": recipe.name})
            trial = self._study.ask(choices)
            for name, value in recipe.settings.items():
                trial.set_user_attr(name, value)
            self._trials[recipe.name] = trial

    def report_rung(self, rung: int, gains: Mapping[str, float]) -> None:
        """Report the recipes' gains at a rung."""
        for name, gain in gains.items():
            if name not in self._finished and rung not in self._values.get(name, {}):
                self._trials[name].report(gain, rung)

    def tell_dropped(self, rung: int, dropped: Mapping[str, Dropped]) -> None:
        """End the trials of the recipes that were dropped after a rung."""
        from optuna.trial import TrialState

        for name, why in dropped.items():
            trial = self._trials[name]
            if name in self._finished or why.rung != rung:
                continue
            trial.set_user_attr("dropped", why.reason)
            state = TrialState.PRUNED if trial.should_prune() and why.kind != "time" else TrialState.FAIL
            self._study.tell(trial, state=state)
            self._finished.add(name)

    def tell_finished(self, gains: Mapping[str, float]) -> None:
        """End the trials of the last rung."""
        for name, gain in gains.items():
            if name not in self._finished:
                self._study.tell(self._trials[name], gain)
                self._finished.add(name)
