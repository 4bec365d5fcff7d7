"""Recipes: which rows are drawn, how an adapter is trained on them, and how it is asked.

In: a YAML file with a list, a grid, or both. Out: ``Recipe`` records with distinct names; ConfigError that
names the recipe, the setting and what is allowed. Knows nothing of searching.

    common:                       # in every recipe
      effective_batch: 16
    recipes:                      # a list
      - {name: letters, size: 1000}
      - {name: reasons, data: mine.jsonl}  # rows of one's own, such as a teacher's reasoning
      - {name: explained, data: questions.jsonl, rationale: given}  # trained on the explanation column
    grid:                         # every combination
      size: [1000, 2000]
      learning_rate: [1.0e-4, 2.0e-4]
"""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.command.flags import build_config, find_shipped_file
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import compute_fingerprint, hash_file
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import make_ascii_slug, make_slug, shorten_name
from kmmlu_fast.core.reading import read_yaml
from kmmlu_fast.data.row_files import iter_located_rows
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.data.training_rows import TrainingRow, read_training_rows
from kmmlu_fast.sampling.config import SampleConfig
from kmmlu_fast.training.config import TrainConfig

DRAWN = (
    "size",
    "strategy",
    "weak_share",
    "weak_fraction",
    "weak_subjects",
    "weak_prior",
    "subjects",
    "permute_options",
    "max_repeats",
    "rationale",
    "rationale_samples",
    "rationale_tokens",
)
# What the search sets itself, for every recipe and rung.
_SET_BY_SEARCH = frozenset({"model", "revision", "init_adapter", "seed", "max_steps"})
TRAINED = (
    *(
        name
        for group in ("model and adapter", "optimisation")
        for name in TrainConfig.groups[group]
        if name not in _SET_BY_SEARCH
    ),
    *("rotate_options", "max_seq_length", "prompt_style"),  # of its data, how rows are shown
)
ASKED = ("num_fewshot",)
GIVEN = "data"  # a file of rows, instead of drawn ones
RATIONALE = "rationale"  # of drawn rows as ``sample`` takes it, of a file's as ``train`` does
SETTINGS = (*DRAWN, *TRAINED, *ASKED, GIVEN)
_SECTIONS = ("common", "recipes", "grid")
MOST_RECIPES = 200
_NAME_BYTES = 160  # directories are named after a recipe
_ROWS_LOOKED_AT = 1000  # for explanations that are not asked for
# Rungs continue one training, so its learning rate must not fall before the last of them.
_DEFAULTS: dict[str, Any] = {"lr_scheduler_type": "warmup_stable_decay"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe: only the settings that the file gives, by name."""

    name: str
    settings: Mapping[str, Any]

    def part(self, names: Sequence[str]) -> dict[str, Any]:
        """Its settings among ``names``."""
        given = {**_DEFAULTS, **self.settings}
        return {name: given[name] for name in names if name in given}

    @property
    def train_settings(self) -> dict[str, Any]:
        """Its settings of ``train``."""
        settings = self.part(TRAINED)
        if self.given_rows is not None and RATIONALE in self.settings:
            settings[RATIONALE] = self.settings[RATIONALE]
        return settings

    @property
    def given_rows(self) -> Path | None:
        """The user's own file of rows; None if rows are drawn."""
        return Path(self.settings[GIVEN]) if GIVEN in self.settings else None

    @property
    def rows_digest(self) -> str:
        """Recipes with the same digest are trained on the same rows."""
        if self.given_rows is not None:
            return hash_file(self.given_rows)[:12]
        return compute_fingerprint({"rows": self.part(DRAWN)}, 12)

    @property
    def drawn_rows(self) -> int:
        """How many rows are drawn for it."""
        return _build_configs(self)[0].size

    @property
    def row_passes(self) -> float:
        """Rows times epochs: how long it trains, beside another recipe."""
        drawn, trained = _build_configs(self)
        rows = drawn.size
        if self.given_rows is not None:
            state = self.given_rows.stat()
            rows = _count_rows(str(self.given_rows), state.st_size, state.st_mtime_ns)
        return max(rows * trained.num_train_epochs, 1.0)

    @property
    def protocol(self) -> tuple[str, int]:
        """Prompt style and number of examples: recipes that share it are asked by one engine."""
        return str(self.settings.get("prompt_style", "lm-eval")), int(self.settings.get("num_fewshot", 0))


@functools.lru_cache(maxsize=MOST_RECIPES)
def _count_rows(path: str, size: int, changed: int) -> int:
    """Rows of a file of any format, as ``train`` reads it; read again once it has changed."""
    return sum(1 for _ in iter_located_rows(path))


def read_recipes(path: Path) -> list[Recipe]:
    """The recipes of a file, in its order; a grid's come after the list's."""
    file = find_shipped_file(path, "--recipes")
    where = f"--recipes {path}"
    content = read_yaml(file, where)
    if not isinstance(content, dict) or not content.keys() & {"recipes", "grid"}:
        raise ConfigError(f"{where}: needs recipes (a list) or grid (a setting with its values each)")
    unknown = [str(name) for name in content if name not in _SECTIONS]
    if unknown:
        raise ConfigError(f"{where}: {unknown[0]} is not a section; allowed are {', '.join(_SECTIONS)}")
    common = _check_mapping(content.get("common"), f"{where}: common")
    listed = enumerate(_listed(content, where), 1)
    recipes = [_build_recipe(common, one, f"{where}: recipe {number}") for number, one in listed]
    recipes += _expand_grid(common, _check_mapping(content.get("grid"), f"{where}: grid"), where)
    _check_distinct(recipes, where)
    own = [recipe for recipe in recipes if recipe.given_rows is not None]
    for recipe in {(each.given_rows, each.settings.get(RATIONALE)): each for each in own}.values():
        _check_explanations(recipe, f"{where}: {recipe.name}")
    return recipes


def _check_mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is not a mapping of settings to values")
    return value


def _listed(content: dict[str, Any], where: str) -> list[Any]:
    entries = content.get("recipes") or []
    if not isinstance(entries, list):
        raise ConfigError(f"{where}: recipes is not a list")
    return entries


def _expand_grid(common: dict[str, Any], grid: dict[str, Any], where: str) -> list[Recipe]:
    if not grid:
        return []
    single = [name for name, values in grid.items() if not isinstance(values, list) or not values]
    if single:
        raise ConfigError(f"{where}: grid: {single[0]} needs a list of values; a single one goes into common")
    count = 1
    for values in grid.values():
        count *= len(values)
    if count > MOST_RECIPES:
        raise ConfigError(f"{where}: the grid has {count:,} combinations; at most {MOST_RECIPES} are tried")
    recipes = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        name = "-".join(_short_text(setting, value) for setting, value in chosen.items())
        recipes.append(_build_recipe(common, {"name": name, **chosen}, f"{where}: {name}"))
    return recipes


def _short_text(setting: str, value: Any) -> str:
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{setting.replace('_', '')}{shown}"


def _build_recipe(common: dict[str, Any], given: Any, where: str) -> Recipe:
    """A checked recipe: its settings are those of ``sample``, ``train`` and ``eval``."""
    entry = _check_mapping(given, where)
    settings = {**common, **{name: value for name, value in entry.items() if name != "name"}}
    for name in settings:
        if name not in SETTINGS:
            near = difflib.get_close_matches(str(name), SETTINGS, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"{where}: {name} is not a setting: {hint}(allowed are {', '.join(SETTINGS)})")
    name = str(entry.get("name") or "-".join(_short_text(*item) for item in entry.items()) or "default")
    if not isinstance(settings.get(GIVEN, ""), str):
        raise ConfigError(f"{where}: {GIVEN} {settings[GIVEN]!r} is not the path of one file of rows")
    slug = make_ascii_slug(name) if name.isascii() else make_slug(name)
    recipe = Recipe(shorten_name(slug, _NAME_BYTES), settings)
    fewshot = settings.get("num_fewshot", 0)
    if isinstance(fewshot, bool) or not isinstance(fewshot, int) or not 0 <= fewshot <= 5:
        raise ConfigError(f"{where}: num_fewshot {fewshot!r} is not a number from 0 to 5")
    if recipe.given_rows is not None:
        _check_given_rows(recipe, where)
    elif settings.get(RATIONALE) == "given":
        raise ConfigError(
            f"{where}: {RATIONALE} given takes the explanations of one's own rows: add {GIVEN}, or give self"
        )
    try:
        drawn, trained = _build_configs(recipe)
        find_subjects([*drawn.subjects, *drawn.weak_subjects])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    settings |= {name: _read_value(value, name, drawn, trained) for name, value in settings.items()}
    return recipe


def _read_value(value: Any, name: str, drawn: SampleConfig, trained: TrainConfig) -> Any:
    """Numbers and yes or no as they are read: YAML gives 1e-4 as text, and 1 may stand for true."""
    read = getattr(drawn if name in DRAWN else trained, name, value)
    as_read = isinstance(read, bool) or (isinstance(value, str) and isinstance(read, int | float))
    return read if as_read else value


def _check_given_rows(recipe: Recipe, where: str) -> None:
    """ConfigError if the file is not there, or settings say how to draw what it brings."""
    path = recipe.given_rows
    if path is None or not path.is_file():
        raise ConfigError(f"{where}: data {path}: no such file; give a file of rows as train takes it")
    if drawn := [name for name in DRAWN if name in recipe.settings and name != RATIONALE]:
        raise ConfigError(
            f"{where}: data brings its own rows, so {', '.join(drawn)} would do nothing; leave out the one or"
            " the other"
        )
    if recipe.settings.get(RATIONALE) == "self":
        raise ConfigError(
            f"{where}: {RATIONALE} self writes the reasoning of drawn rows; with {GIVEN} give none (train on"
            " the letter) or given (on the rows' explanations)"
        )


def _check_explanations(recipe: Recipe, where: str) -> None:
    """ConfigError if a question lacks the explanation that it is to be answered with. A note if questions
    have one, and the recipe does not say whether it is trained.
    """
    asked = recipe.settings.get(RATIONALE)
    rows = (row for row in read_training_rows(str(recipe.given_rows)) if _may_be_explained(row))
    if asked == "given":
        if (bare := next((row for row in rows if row.explanation is None), None)) is not None:
            raise ConfigError(
                f"{where}: {RATIONALE} given: {bare.where} is a question without an explanation; add it, or"
                f" leave out {RATIONALE}"
            )
    elif asked is None and any(row.explanation for row in itertools.islice(rows, _ROWS_LOOKED_AT)):
        log_note(
            f"note: {where}: the questions of {recipe.given_rows} have explanations, and are trained on their"
            f" letters; {RATIONALE}: given trains on the explanations"
        )


def _may_be_explained(row: TrainingRow) -> bool:
    """Whether the row is a question that is answered as the recipe says; what ``sample`` wrote holds its
    answers."""
    return row.item is not None and row.form != "ours"


def _build_configs(recipe: Recipe) -> tuple[SampleConfig, TrainConfig]:
    """As ``sample`` and ``train`` take it, defaults included."""
    drawn = build_config(SampleConfig, **(recipe.part(DRAWN) if recipe.given_rows is None else {}))
    named = {"data": ["rows.jsonl"], "held_out": 0, "keep": "last"}
    return drawn, build_config(TrainConfig, **named, **recipe.train_settings)


def _check_names(recipes: Sequence[Recipe], where: str) -> None:
    """Directories are named after them, and some disks ignore case."""
    names: dict[str, Recipe] = {}
    for recipe in recipes:
        other = names.setdefault(recipe.name.casefold(), recipe)
        if other is recipe:
            continue
        fault = f"two recipes are called {recipe.name}"
        if other.name != recipe.name:
            fault = f"{other.name} and {recipe.name} are one name where case is ignored"
        raise ConfigError(f"{where}: {fault}; give them names of their own")


def _check_distinct(recipes: Sequence[Recipe], where: str) -> None:
    if len(recipes) < 2:
        raise ConfigError(f"{where}: holds {len(recipes)} recipe; a search needs at least 2")
    if len(recipes) > MOST_RECIPES:
        raise ConfigError(f"{where}: holds {len(recipes)} recipes; at most {MOST_RECIPES} are tried")
    _check_names(recipes, where)
    digests: dict[str, str] = {}
    for recipe in recipes:
        drawn, trained = (config.model_dump(mode="json") for config in _build_configs(recipe))
        parts = {"drawn": drawn, "trained": trained, "asked": recipe.protocol}
        digest = compute_fingerprint({**parts, "data": recipe.given_rows and recipe.rows_digest})
        if digest in digests:
            raise ConfigError(
                f"{where}: {digests[digest]} and {recipe.name} have the same settings; remove one"
            )
        digests[digest] = recipe.name
