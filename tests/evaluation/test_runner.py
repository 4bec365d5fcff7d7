"""Prompts tokenised in the background: order, faults, what is measured beforehand, and stopping."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Prediction, Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation import runner
from kmmlu_fast.models import model as models
from kmmlu_fast.prompting import method_choice, tokens
from kmmlu_fast.prompting.methods import MultipleChoice
from kmmlu_fast.prompting.prompts import Prompt

METHOD = MultipleChoice("lm-eval", (1, 2, 3, 4))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return models.load_tokenizer(
        models.resolve_model(str(make_tiny_model(tmp_path_factory.mktemp("runner") / "base")))
    )


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return dataset.load_questions("sample", "test", list(SUBJECTS.values()))


def rendered(questions: Sequence[Question], tokenizer: Any) -> list[list[Prompt]]:
    return tokens.render_all_prompts(questions, {name: [] for name in SUBJECTS}, METHOD, tokenizer)


def test_every_prompt_gets_its_own_tokens(
    questions: list[Question], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PREPARED_AT_ONCE", 7)
    prompts = rendered(questions, tokenizer)
    asked = tokens.tokenise_prompts(questions, prompts, tokenizer)
    assert [item.question for item in asked] == questions
    assert [item.token_id_lists() for item in asked] == [
        [tokenizer(p.text)["input_ids"] for p in some] for some in prompts
    ]


@pytest.mark.parametrize("at_once", [1, 16])
def test_the_longest_prompt_is_found_without_tokenising_all(
    questions: list[Question], tokenizer: Any, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MEASURED_AT_ONCE", at_once)
    prompts = rendered(questions, tokenizer)
    true = {
        q.question_id: len(tokenizer(p[0].text)["input_ids"]) for q, p in zip(questions, prompts, strict=True)
    }
    found = tokens.longest_prompt_lengths(questions, prompts, tokenizer)
    assert max(found.values()) == max(true.values()) and len(found) < len(true)
    assert found.items() <= true.items()
    limit = sorted(true.values())[len(true) // 2]
    over = {
        name
        for name, tokens in tokens.longest_prompt_lengths(questions, prompts, tokenizer, limit).items()
        if tokens > limit
    }
    assert over == {name for name, tokens in true.items() if tokens > limit}


def test_a_fault_in_a_late_batch_reaches_whoever_asks_for_it(
    questions: list[Question], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PREPARED_AT_ONCE", 10)

    def check(some: Sequence[Question], prompts: Any, token_ids: Any) -> None:
        if questions[25] in some:
            raise ConfigError("question 25 is at fault")

    class Sink:
        rows: list[Prediction] = []

        def append(self, prediction: Prediction) -> None:
            self.rows.append(prediction)

    asked, sink = tokens.tokenise_prompts(questions, rendered(questions, tokenizer), tokenizer, check), Sink()
    assert asked[5].token_id_lists()
    with pytest.raises(ConfigError, match="question 25"):
        runner.ask_questions(FakeEngine(max_in_flight=4), asked, METHOD, None, sink)
    assert 0 < len(sink.rows) <= 20  # what was answered before is kept


def test_letters_that_are_other_tokens_after_some_prompt_are_refused(
    questions: list[Question], tokenizer: Any
) -> None:
    prompts = rendered(questions, tokenizer)
    token_ids = [[tokenizer(p.text)["input_ids"] for p in some] for some in prompts]
    method_choice.PromptChecker(
        "lm-eval",
        tokenizer,
        method_choice.choose_method(_config(), "lm-eval", questions, {s: [] for s in SUBJECTS}, tokenizer)[0],
        4096,
    )(questions, prompts, token_ids)
    with pytest.raises(ConfigError, match="letters' tokens depend on the question"):
        method_choice.PromptChecker("lm-eval", tokenizer, METHOD, 4096)(questions, prompts, token_ids)
    with pytest.raises(ConfigError, match="over the context of 20"):
        method_choice.PromptChecker("lm-eval", tokenizer, METHOD, 20)(questions, prompts, token_ids)


def _config() -> Any:
    from kmmlu_fast.evaluation.config import EvalConfig

    return EvalConfig.model_validate({"model": "demo", "dataset": "sample"})


def test_what_nobody_waits_for_is_not_tokenised(
    questions: list[Question], tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tokens, "PREPARED_AT_ONCE", 1)
    seen: list[Question] = []
    held, begun = threading.Event(), threading.Event()

    def check(some: Sequence[Question], prompts: Any, token_ids: Any) -> None:
        seen.extend(some)
        begun.set()
        held.wait(30)

    asked = tokens.tokenise_prompts(questions, rendered(questions, tokenizer), tokenizer, check)
    assert begun.wait(30)
    for item in asked:
        item.cancel()
    held.set()
    assert asked[0].token_id_lists() and seen == questions[:1]
