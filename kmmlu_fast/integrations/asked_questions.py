"""What ``watch`` asks: a fixed subset of an exam, without the questions that the trainer trains on.

In: an exam, a split, the trainer's tokenizer and training rows. Out: ``AskedQuestions``, in random order: the
first n of them are a random sample for every n. Knows nothing of training steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Prediction, Question, Request, Response
from kmmlu_fast.data.dataset import permute_questions
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.questions import load_eval_questions
from kmmlu_fast.integrations.searched_rows import SearchedRows, search_rows
from kmmlu_fast.prompting.method_choice import PromptChecker, choose_method, choose_style
from kmmlu_fast.prompting.methods import Method
from kmmlu_fast.prompting.tokens import TokenisedQuestion, tokenise_prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedQuestions:
    """Questions as token ids, and how their answers are read. ``settings``: how they were chosen and are
    asked, JSON-able.
    """

    items: list[TokenisedQuestion]
    method: Method
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def question_ids(self) -> list[str]:
        return [item.question.question_id for item in self.items]

    def prompts_digest(self, count: int) -> str:
        """Of the tokens that the model reads for the first ``count`` questions, and of the letters'."""
        prompts = [(item.question.question_id, item.token_id_lists()) for item in self.items[:count]]
        return compute_fingerprint({"prompts": prompts, "letters": self.method.scored_forms}, 32)

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
    searched = search_rows(rows, tokenizer)
    questions = permute_questions(found.questions, config.seed)
    chosen, seen = _take_unseen(questions, count, searched)
    if not chosen:
        raise ConfigError(
            f"watch: every {config.split} question of {found.source.label} is among the training rows; give"
            " another exam"
        )
    style = choose_style(config, [], tokenizer)
    method, rendered, _, more = choose_method(config, style, chosen, found.exemplars, tokenizer)
    checker = PromptChecker(style, tokenizer, method, max_tokens)
    items = tokenise_prompts(chosen, rendered, tokenizer, checker)
    for item in items:  # what the checker refuses is refused now, not after the first step
        item.token_ids  # noqa: B018
    notes = [*found.notes, searched.note, _left_out_note(seen, config.split), *more]
    settings = {
        "exam": found.source.exam.name,
        "split": config.split,
        "subjects": config.subjects,
        "questions": count,
        "seed": config.seed,
        "prompt_style": style,
    }
    return AskedQuestions(items=items, method=method, settings=settings, notes=tuple(filter(None, notes)))


def _left_out_note(seen: int, split: str) -> str:
    if not seen:
        return ""
    note = f"{seen} questions are left out, because they are among the training rows"
    if split != "test":
        return note
    return f"{note}: what trains on test is not measured by it (kmmlu-fast leakage lists such rows)"


def _take_unseen(questions: list[Question], count: int, searched: SearchedRows) -> tuple[list[Question], int]:
    """The first ``count`` questions that do not occur in the rows, and how many before them do."""
    chosen: list[Question] = []
    seen = 0
    for question in questions:
        if len(chosen) == count:
            break
        # Many questions share their wording ("which of these is right?"): the options must occur as well.
        if searched.holds_all((question.question, *question.options)):
            seen += 1
        else:
            chosen.append(question)
    return chosen, seen
