"""Evaluations that stop early, in tests: invented questions, a fake engine whose states differ in skill."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.schema import LETTERS, Candidates, Request, Response
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation

SIZES = {"Accounting": 300, "Law": 500, "Math": 200}
TOTAL = sum(SIZES.values())


class Skilled(FakeEngine):
    """Right with a chance by model state, from a hash of question and state; counts what it is asked; dies
    after ``fuse`` responses.
    """

    noise = 0.04  # share of questions that a state answers unlike its skill

    def __init__(
        self, data: Path, skill: dict[str, float], fuse: int | None = None, in_flight: int = 64
    ) -> None:
        super().__init__(max_in_flight=in_flight)
        found = dataset.load_questions(str(data), "test", [SUBJECTS[name] for name in SIZES])
        self.key = {question.question_id: question.answer for question in found}
        self.skill, self.fuse = skill, fuse
        self.asked: list[tuple[str, str]] = []
        self.closed_early = False

    def generate(self, requests: Iterable[Request], follow_up: Any = None) -> Iterator[Response]:
        try:
            for response in itertools.islice(super().generate(requests, follow_up), self.fuse):
                if not response.request.question_id.startswith("probe/"):
                    self.asked.append(
                        (
                            response.request.adapter.name if response.request.adapter else "base",
                            response.request.question_id,
                        )
                    )
                yield response
        except GeneratorExit:
            self.closed_early = True
            raise
        if self.fuse is not None:
            raise KeyboardInterrupt

    def _answer(self, request: Request) -> Response:
        if request.question_id.startswith("probe/"):
            return super()._answer(request)
        name = request.adapter.name if request.adapter else "base"
        luck = random.Random(
            request.question_id
        ).random()  # the same for all states: they differ by skill alone
        noise = random.Random(f"{request.question_id}{name}").random() < self.noise
        key = self.key[request.question_id]
        right = (luck < self.skill[name]) ^ noise
        chosen = key if right else next(letter for letter in LETTERS if letter != key)
        scored = [-0.3 if letter == chosen else -3.2 for letter in LETTERS]
        return Response(request, logprobs=with_other_form(request, scored))


def with_other_form(request: Request, scored: list[float]) -> tuple[float, ...]:
    """The letters' log-probabilities, and much smaller ones of their other form if it is asked for."""
    forms = len(request.want.token_ids) // len(scored) if isinstance(request.want, Candidates) else 1
    return tuple(value - 5.0 * form for form in range(forms) for value in scored)


GAIN = {"base": 0.4, "lora": 0.6, "other": 0.4}


def config(model: Path, data: Path, root: Path, *flags: str) -> EvalConfig:
    argv = [
        "--model",
        str(model),
        "--dataset",
        str(data),
        "--output-dir",
        str(root),
        "--adapter-mode",
        "serve",
        "--subjects",
        ",".join(SIZES),
    ]
    return parse_config(EvalConfig, [*argv, *flags], "eval")


def run(made: EvalConfig, engine: FakeEngine) -> list[Any]:
    return run_evaluation(made, lambda adapters, length, path: engine)


def write_exam(folder: Path) -> Path:
    """The questions as a dataset directory."""
    draw = random.Random(0)
    for subject, size in SIZES.items():
        rows = [
            {
                "question": f"{subject} {i}?",
                "answer": draw.randint(1, 4),
                **{letter: f"{letter}{i}" for letter in LETTERS},
            }
            for i in range(size)
        ]
        for split, some in (("test", rows), ("dev", rows[:5])):
            pl.DataFrame(some).write_csv(folder / f"{SUBJECTS[subject].stem}-{split}.csv")
    return folder
