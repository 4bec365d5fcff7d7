"""What ``watch`` asks: a fixed subset of an exam, without the questions that the trainer trains on.

In: an exam, a split, the trainer's tokenizer and training rows. Out: ``AskedQuestions``, in random order: the
first n of them are a random sample for every n. Knows nothing of training steps.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Prediction, Question, Request, Response
from kmmlu_fast.data.dataset import permute_questions
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.questions import load_eval_questions
from kmmlu_fast.prompting.method_choice import PromptChecker, choose_method, choose_style
from kmmlu_fast.prompting.methods import Method
from kmmlu_fast.prompting.tokens import TokenisedQuestion, tokenise_prompts

_ROWS = 200_000  # training rows that are searched at most


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedQuestions:
    """Questions as token ids, and how their answers are read."""

    items: list[TokenisedQuestion]
    method: Method
    style: str
    notes: tuple[str, ...] = ()

    @property
    def question_ids(self) -> list[str]:
        return [item.question.question_id for item in self.items]

    def requests(self, start: int, stop: int) -> list[Request]:
        return [
            request
            for item in self.items[start:stop]
            for request in self.method.start(item.question, item.token_id_lists(), None)
        ]

    def read(self, responses: Iterable[Response]) -> dict[str, Prediction]:
        """Predictions by question id."""
        by_question: dict[str, list[Response]] = {}
        for response in responses:
            by_question.setdefault(response.request.question_id, []).append(response)
        questions = {item.question.question_id: item.question for item in self.items}
        return {name: self.method.finish(questions[name], group) for name, group in by_question.items()}


def choose_asked_questions(
    config: EvalConfig, tokenizer: Any, count: int, rows: Any, max_tokens: int
) -> AskedQuestions:
    """The first ``count`` questions of the seeded random order that occur in none of the training rows.

    ConfigError if none are left, DataError if the exam cannot be read.
    """
    (found,) = load_eval_questions(config)
    notes = list(found.notes)
    questions = permute_questions(found.questions, config.seed)
    texts = None if config.split == "test" else _training_text(rows, tokenizer)
    if texts is None:
        notes.append(
            "whether these questions are among the training rows was not checked (the rows are a stream, or"
            " hold no text)"
        )
        chosen, seen = questions[:count], 0
    else:
        chosen, seen = _take_unseen(questions, count, texts)
    if not chosen:
        raise ConfigError(
            f"watch: every {config.split} question of {found.source.label} is among the training rows; give"
            " another exam"
        )
    if seen:
        notes.append(f"{seen} questions are left out, because they are among the training rows")
    style = choose_style(config, [], tokenizer)
    method, rendered, _, more = choose_method(config, style, chosen, found.exemplars, tokenizer)
    checker = PromptChecker(style, tokenizer, method, max_tokens)
    items = tokenise_prompts(chosen, rendered, tokenizer, checker)
    return AskedQuestions(items=items, method=method, style=style, notes=(*notes, *more))


def _training_text(rows: Any, tokenizer: Any) -> str | None:
    """All text of the training rows, normalised; None if there is none to search."""
    if rows is None or not hasattr(rows, "__len__") or not hasattr(rows, "__getitem__"):
        return None
    texts: list[str] = []
    for index in range(min(len(rows), _ROWS)):
        row = rows[index]
        parts = list(_texts_in(row))
        ids = row.get("input_ids") if isinstance(row, Mapping) else None
        if ids is not None:
            parts.append(tokenizer.decode(ids))
        texts += parts
    return "\n".join(map(_normalise_text, texts)) if texts else None


def _texts_in(value: Any) -> Iterator[str]:
    """Every string in a row: columns, chat messages, nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts_in(part)
    elif isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float)):
        for part in value:
            yield from _texts_in(part)


def _take_unseen(questions: list[Question], count: int, texts: str) -> tuple[list[Question], int]:
    """The first ``count`` questions that do not occur in ``texts``, and how many before them do."""
    chosen: list[Question] = []
    seen = 0
    for question in questions:
        if len(chosen) == count:
            break
        # Many questions share their wording ("which of these is right?"): the options must occur as well.
        if all(_normalise_text(text) in texts for text in (question.question, *question.options)):
            seen += 1
        else:
            chosen.append(question)
    return chosen, seen


def _normalise_text(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())
