"""Chain of thought on real vLLM with a tiny model: everything answered, and the same samples
after a restart.
"""

from __future__ import annotations

import os
from pathlib import Path

import engine_cases
import pytest
from tiny import make_tiny_model, make_tiny_tokenizer

from kmmlu_fast.core.schema import Prediction, Question
from kmmlu_fast.engines.vllm.engine import VllmEngine
from kmmlu_fast.engines.vllm.start import vllm_engine_settings
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.runner import ask_questions
from kmmlu_fast.models.model import resolve_model
from kmmlu_fast.prompting.cot import ChainOfThought
from kmmlu_fast.prompting.cot_tokens import build_chain_of_thought
from kmmlu_fast.prompting.tokens import render_and_tokenise

pytestmark = pytest.mark.engine


def test_restart_draws_the_same_samples_and_nothing_is_unparsed(tmp_path: Path) -> None:
    os.environ.update(engine_cases.ENVIRONMENT)
    tokenizer = make_tiny_tokenizer()
    config = EvalConfig(
        dtype="float32", max_num_seqs=8, temperature=1.0
    )  # prompts of 1,500 tokens would be prefilled in pieces on a CPU
    model = resolve_model(str(make_tiny_model(tmp_path / "model")))
    engine = VllmEngine(vllm_engine_settings(config, model, [], max_model_len=2304))
    questions = [
        Question(
            question_id=f"Math/test/{i}",
            subject="Math",
            supercategory="STEM",
            split="test",
            row=i,
            question=f"{i}에 1을 더하면?",
            options=("영", "하나", "둘", "셋"),
            answer="B",
        )
        for i in range(8)
    ]

    def ask(chosen: list[Question], method: ChainOfThought) -> dict[str, Prediction]:
        kept: list[Prediction] = []
        ask_questions(
            engine, render_and_tokenise(chosen, {"Math": []}, method, tokenizer)[0], method, None, kept
        )
        assert len(kept) == len(chosen)
        return {prediction.question_id: prediction for prediction in kept}

    try:
        method = build_chain_of_thought("qa", tokenizer, max_tokens=16, num_samples=2, temperature=1.0)
        whole = ask(questions, method)
        rest = ask(list(reversed(questions[3:])), method)
        other = ask(
            questions[3:],
            build_chain_of_thought("qa", tokenizer, max_tokens=16, num_samples=2, temperature=1.0, seed=7),
        )
        greedy = ask(questions, build_chain_of_thought("qa", tokenizer, max_tokens=16))
        budgeted = ask(
            questions,
            build_chain_of_thought("qa", tokenizer, max_tokens=16, below=whole["Math/test/0"].margin),
        )
    finally:
        engine.close()
    assert all(
        prediction.prediction
        for answers in (whole, rest, other, greedy, budgeted)
        for prediction in answers.values()
    )
    same = [whole[key].texts == rest[key].texts for key in rest]
    assert sum(same) >= len(same) - 1  # a near-tie may turn with the batch
    assert sum(whole[key].texts == other[key].texts for key in rest) <= 1
    assert len({text for prediction in whole.values() for text in prediction.texts or []}) > 8
    margins = {key: prediction.margin for key, prediction in greedy.items()}
    below = whole["Math/test/0"].margin
    assert below is not None
    for key, prediction in budgeted.items():
        margin = margins[key]
        assert margin is not None
        if abs(margin - below) > 1e-3:
            assert (prediction.texts is not None) == (margin < below)
