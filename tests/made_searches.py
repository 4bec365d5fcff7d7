"""What the search's tests share: a dataset directory of invented questions, and workers that train nothing.

A fake "adapter" answers each question rightly with its recipe's own probability, decided by a hash of the
question's id and the adapter's name, so runs need no model; ``log`` counts what was done.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_runs
import numpy as np
import polars as pl
import pytest

from kmmlu_fast.analysis.exact_band import ChangeInterval
from kmmlu_fast.analysis.recipes import RecipeEffect
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.prediction_frames import predictions_frame
from kmmlu_fast.core.schema import LETTERS, Prediction, Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.improvement.config import ImproveConfig
from kmmlu_fast.improvement.confirmation import Confirmation
from kmmlu_fast.improvement.recipes import Recipe
from kmmlu_fast.improvement.rungs import RungScores
from kmmlu_fast.improvement.search import SearchResult
from kmmlu_fast.improvement.workers import TrainedPiece
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import load_run_directory
from kmmlu_fast.sampling.config import SampleConfig
from kmmlu_fast.sampling.job import draw_training_rows

RECIPES = """
common: {size: 16, effective_batch: 8, num_train_epochs: 1}
grid: {learning_rate: [1.0e-4, 2.0e-4], r: [4, 8, 16]}
"""

# Over two seeds, whose first adapter was decided after 225 questions.
EFFECT = RecipeEffect(
    name="winner",
    first="base",
    runs=("best-s0", "best-s1"),
    questions=225,
    effects=(0.03, 0.01),
    effect=0.02,
    low=-0.01,
    high=0.05,
    inner_low=-0.01,
    inner_high=0.05,
    seed_deviation=0.01,
)


def make_dataset(folder: Path, *, test_seed: int = 1, rows: int = 12, dev: int = 5) -> Path:
    """KMMLU's layout: ``rows`` train questions per subject, test questions with keys of ``test_seed``."""
    draw, keys = random.Random(0), random.Random(test_seed)
    (folder / "data").mkdir(parents=True)
    for subject in SUBJECTS.values():
        for split, count in (("train", rows), ("dev", dev), ("test", 6)):
            path = folder / "data" / f"{subject.stem}-{split}.csv"
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["question", "answer", "A", "B", "C", "D", "Category", "Human Accuracy"])
                for row in range(count):
                    words = ["".join(chr(draw.randrange(0xAC00, 0xD7A3)) for _ in range(9)) for _ in range(7)]
                    key = keys.randrange(4) + 1 if split == "test" else draw.randrange(4) + 1
                    text = " ".join(words[:3]) + f" {row}?"
                    writer.writerow([text, key, *words[3:], subject.name, 0.5])
    return folder


class FakeWorkers:
    """Evaluates by dice and trains by writing a name. ``skill``: probability of a right answer by recipe."""

    def __init__(self, skill: dict[str, float], log: list[str]) -> None:
        self._skill, self.log = skill, log
        self.fail_at: int | None = None  # work pieces until it dies

    def _count(self, what: str) -> None:
        if self.fail_at is not None:
            self.fail_at -= 1
            if self.fail_at < 0:
                raise KeyboardInterrupt
        self.log.append(what)

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        self._count(f"evaluate {settings['split']} {len(settings.get('adapter', []))}")
        questions = dataset.load_questions(str(settings["dataset"]), settings["split"])
        questions = dataset.select_questions(questions, settings.get("limit"), "random", settings["seed"])
        runs = []
        names = [] if settings.get("no_base") else ["base"]
        names += [spec.partition("=")[0] for spec in settings.get("adapter", [])]
        for spec in settings.get("adapter", []):
            assert (Path(spec.partition("=")[2]) / "adapter.json").exists()
        for name in names:
            probability = 0.3 if name == "base" else self._skill.get(name.rpartition("-s")[0], 0.3)
            letters = {q.question_id: _answer(q.question_id, q.answer, name, probability) for q in questions}
            folder = Path(settings["output_dir"]) / f"{name}-{settings['split']}-{settings['num_fewshot']}"
            if not folder.exists():
                made_runs.run_directory(folder, name, _frame(questions, letters), settings["dataset"])
                (folder / "metrics.json").write_text("{}")  # no speed: time passes by a test's clock
            runs.append(load_run_directory(folder))
        return runs

    def train(self, pieces: Sequence[dict[str, Any]]) -> Iterator[TrainedPiece]:
        for place, settings in enumerate(pieces):
            try:
                yield TrainedPiece(place, self._train_one(settings), 0.0)
            except TrainError as error:
                yield TrainedPiece(place, None, 0.0, error)

    def draw_rows(self, settings: dict[str, Any], excluded: frozenset[str]) -> None:
        self._count("draw")
        plain = {name: value for name, value in settings.items() if not name.startswith("rationale")}
        draw_training_rows(build_config(SampleConfig, **plain), excluded)

    def count_slots(self) -> int:
        return 1

    def _train_one(self, settings: dict[str, Any]) -> Path:
        folder = Path(settings["output_dir"])
        rows = Path(settings["data"][0]).read_bytes()
        self._count(f"train {folder.name} {settings.get('stop_after')}")
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"rows": hashlib.sha256(rows).hexdigest()})
        (folder / "adapter.json").write_text(text)
        return folder


class SlowWorkers(FakeWorkers):
    """A training of the first rung takes ``training_sec``, by a clock that only work moves."""

    training_sec = 60.0

    def __init__(self, skill: dict[str, float], log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(skill, log)
        self.clock = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.clock)

    def evaluate(self, settings: dict[str, Any]) -> list[Run]:
        runs = super().evaluate(settings)
        self.clock += 0.01 * sum(len(run.frame) for run in runs)
        return runs

    def train(self, pieces: Sequence[dict[str, Any]]) -> Iterator[TrainedPiece]:
        for piece in super().train(pieces):
            self.clock += self.training_sec
            yield replace(piece, seconds=self.training_sec)


def _frame(questions: list[Question], letters: dict[str, str]) -> pl.DataFrame:
    return predictions_frame(
        [
            Prediction(
                question_id=q.question_id,
                subject=q.subject,
                supercategory=q.supercategory,
                split=q.split,
                row=q.row,
                answer=q.answer,
                prediction=letters[q.question_id],
                correct=letters[q.question_id] == q.answer,
                read_by="exact_match",
            )
            for q in questions
        ]
    )


def _answer(question_id: str, key: str, name: str, probability: float) -> str:
    """Right with the probability, by a hash that does not depend on the key."""
    draw = random.Random(f"{question_id}:{name}").random()
    return key if draw < probability else LETTERS[(LETTERS.index(key) + 1) % 4]


def make_config(folder: Path, data: Path, recipes: str = RECIPES, **settings: Any) -> ImproveConfig:
    file = folder / "recipes.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(recipes, encoding="utf-8")
    return build_config(
        ImproveConfig,
        **{
            "recipes": file,
            "output_dir": folder / "search",
            "dataset": str(data),
            "model": "demo",
            "selection": 4,
            "weakness": 2,
            "fewshot_rival": 0,
            **settings,
        },
    )


QUESTIONS = 1000


def right(count: int) -> np.ndarray:
    return np.arange(QUESTIONS) < count


def make_result(
    recipes: list[Recipe], counts: list[int], rival: ChangeInterval | None = None
) -> SearchResult:
    scores = RungScores(
        rung=0,
        base={("lm-eval", 0): right(400)},
        recipes={recipe.name: [right(count)] for recipe, count in zip(recipes, counts, strict=True)},
    )
    found = Confirmation(
        questions=500,
        base=0.4,
        gains={"best-s0": ChangeInterval(0.02, 0.01, 0.03)},
        questions_by_adapter={"best-s0": 500},
        base_by_adapter={"best-s0": 0.4},
        verdicts={"best-s0": "better"},
        effect=None,
        rival=rival,
        rival_accuracy=0.45,
        rival_examples=5,
        runs=[],
    )
    return SearchResult(
        recipes=recipes,
        rungs=[scores],
        dropped={},
        winner=recipes[int(np.argmax(counts))],
        adapters={"best-s0": Path("out/best")},
        confirmation=found,
        rows=Path("rows.jsonl"),
        spent_sec=1.0,
    )


def grid(sizes: list[int], ranks: list[int]) -> list[Recipe]:
    return [Recipe(f"n{size}-r{rank}", {"size": size, "r": rank}) for size in sizes for rank in ranks]
