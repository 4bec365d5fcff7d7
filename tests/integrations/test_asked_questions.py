"""What ``watch`` asks: unseen questions of any split, how they were asked, and what it says about it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Candidates, Question, Response
from kmmlu_fast.data.dataset import load_questions, permute_questions
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.integrations.asked_questions import AskedQuestions, choose_asked_questions
from kmmlu_fast.prompting.predictions import prediction_letter_mass

OTHER_ROWS = [{"text": "다른 것"}]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny.make_tiny_tokenizer(chat=True)


def choose(tokenizer: Any, rows: Any = OTHER_ROWS, count: int = 40, **settings: Any) -> AskedQuestions:
    config = EvalConfig(model="m", dataset="sample", **{"split": "train", **settings})
    return choose_asked_questions(config, tokenizer, count, rows, 4096)


def first_questions(split: str, count: int) -> list[Question]:
    return permute_questions(load_questions("sample", split), 42)[:count]


def as_row(question: Question) -> dict[str, str]:
    return {"text": "\n".join((question.question, *question.options))}


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_among_the_rows_are_left_out_of_any_split(tokenizer: Any, split: str) -> None:
    trained = first_questions(split, 7)
    asked = choose(tokenizer, [*OTHER_ROWS, *map(as_row, trained)], split=split)
    assert len(asked.items) == 40
    assert not {question.question_id for question in trained} & set(asked.question_ids)
    (note,) = [note for note in asked.notes if "among the training rows" in note]
    assert note.startswith("7 questions are left out")
    assert ("kmmlu-fast leakage" in note) is (split == "test")
    assert not any("not checked" in note for note in asked.notes)


@pytest.mark.parametrize("split", ["train", "test"])
def test_nothing_is_said_if_nothing_is_wrong(tokenizer: Any, split: str) -> None:
    assert choose(tokenizer, split=split).notes == ()


def test_an_exam_that_is_trained_on_whole_is_refused(tokenizer: Any) -> None:
    rows = list(map(as_row, load_questions("sample", "test")))
    with pytest.raises(ConfigError, match="every test question of sample is among the training rows"):
        choose(tokenizer, rows, split="test")


def test_settings_name_how_it_was_asked(tokenizer: Any) -> None:
    asked = choose(tokenizer, subjects=["Law"], seed=7, count=5)
    assert asked.settings == {
        "exam": "kmmlu",
        "split": "train",
        "subjects": ["Law"],
        "questions": 5,
        "seed": 7,
        "prompt_style": "lm-eval",
    }


def test_the_digest_is_that_of_the_first_prompts_as_they_are_read(tokenizer: Any) -> None:
    asked = choose(tokenizer)
    digest = asked.prompts_digest(20)
    assert choose(tokenizer, count=60).prompts_digest(20) == digest  # more questions begin alike
    others = [
        asked.prompts_digest(21),
        choose(tokenizer, prompt_style="chat").prompts_digest(20),
        choose(tokenizer, seed=7).prompts_digest(20),
        choose(tiny.make_tiny_tokenizer(bos=True)).prompts_digest(20),
        choose(tokenizer, [as_row(first_questions("train", 1)[0])]).prompts_digest(20),
    ]
    assert len({digest, *others}) == 6


@pytest.mark.parametrize(
    ("style", "letters", "mass"),
    [
        ("lm-eval", "ABCD", 0.4),
        ("chat", "", 0.2),  # " A" is two tokens, so that the bare form alone is read
        ("lm-eval", "", None),  # scored as continuations
    ],
)
def test_the_mass_is_that_of_the_forms_that_are_read(style: str, letters: str, mass: float | None) -> None:
    asked = choose(tiny.make_tiny_tokenizer(letters=letters, chat=True), count=3, prompt_style=style)
    responses = []
    for request in asked.requests(0, 3):
        wanted = len(request.want.token_ids) if isinstance(request.want, Candidates) else 1
        responses.append(Response(request, logprobs=(math.log(0.05),) * wanted))
    masses = [prediction_letter_mass(prediction) for prediction in asked.read(responses).values()]
    assert masses == [mass if mass is None else pytest.approx(mass)] * 3
