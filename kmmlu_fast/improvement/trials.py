"""The search as an Optuna study: one trial per recipe, added, reported at each rung, pruned or told.

In: recipes, gains by rung, what was dropped. Out: a study in ``journal.log`` (no database), which
optuna-dashboard shows. A kill loses at most the entry being written; what it leaves of that entry, or a lock,
is cleared away by the next command. The study is a record: choices are made from the stored answers, so a
damaged journal changes no result; it is put aside. Knows nothing of training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.improvement.elimination import Dropped, make_pruner
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.machine.extras import require_modules

JOURNAL = "journal.log"
_STUDY = "recipes"


class RecipeTrials:
    """Holds each recipe's trial, added once, also after a restart. Only one process may write the folder."""

    def __init__(self, folder: Path, recipes: list[Recipe], dropped: Mapping[str, Dropped]) -> None:
        """``dropped``: filled by the search; the pruner looks into it."""
        require_modules("improve", "optuna")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = folder.absolute() / JOURNAL  # the lock is a link to it, which a relative name would not reach
        _clear_journal(path)
        # what Optuna raises for entries that are not as it writes them
        faults = (LookupError, TypeError, ValueError, AssertionError, AttributeError)
        try:
            self._open_study(path, recipes, dropped)
        except (*faults, optuna.exceptions.OptunaError) as error:
            aside = _put_aside(path)
            why = one_line(f"{type(error).__name__}: {error}", 120)
            log_note(f"note: {path}: is damaged ({why}); kept as {aside.name}, and begun anew")
            self._open_study(path, recipes, dropped)

    def _open_study(self, path: Path, recipes: list[Recipe], dropped: Mapping[str, Dropped]) -> None:
        import optuna
        from optuna.distributions import CategoricalDistribution
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
        from optuna.trial import Trial, TrialState, create_trial

        storage = JournalStorage(JournalFileBackend(str(path)))
        self._study = study = optuna.create_study(
            storage=storage,
            study_name=_STUDY,
            direction="maximize",
            load_if_exists=True,
            pruner=make_pruner(dropped),
        )
        known = {}
        for trial in study.get_trials():
            if "recipe" in trial.params:
                known[trial.params["recipe"]] = trial
            elif not trial.state.is_finished():  # of a version that wrote a trial in several entries
                storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        choices = CategoricalDistribution([recipe.name for recipe in recipes])
        for recipe in recipes:
            if recipe.name not in known:  # one entry: it is there whole or not at all
                study.add_trial(
                    create_trial(
                        state=TrialState.RUNNING,
                        params={"recipe": recipe.name},
                        distributions={"recipe": choices},
                        user_attrs=dict(recipe.settings),
                    )
                )
        for trial in study.get_trials():
            if "recipe" in trial.params:
                known[trial.params["recipe"]] = trial
        self._trials: dict[str, Any] = {
            recipe.name: Trial(study, known[recipe.name]._trial_id) for recipe in recipes
        }
        self._finished = {name for name, trial in known.items() if trial.state.is_finished()}
        self._values = {name: dict(trial.intermediate_values) for name, trial in known.items()}

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


def _clear_journal(path: Path) -> None:
    """Remove what a kill in an append leaves: Optuna's lock, for which it would wait, and half an entry,
    which it could not read.
    """
    for left in path.parent.glob(f"{path.name}.lock*"):
        left.unlink(missing_ok=True)
    if not path.exists():
        return
    data = path.read_bytes()
    last = data.rfind(b"\n", 0, max(len(data) - 1, 0)) + 1
    if data and not _is_entry(data[last:]):
        with path.open("r+b") as file:
            file.truncate(last)


def _is_entry(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _put_aside(path: Path) -> Path:
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    return path.rename(aside)
