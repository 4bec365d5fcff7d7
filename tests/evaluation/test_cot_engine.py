"""Chain of thought on real vLLM with a tiny model: everything answered, and the same samples
after a restart.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import engine_cases
import pytest
from tiny import make_tiny_adapter, make_tiny_model, make_tiny_tokenizer

from kmmlu_fast.core.schema import Completion, Generation, Prediction, Question
from kmmlu_fast.engines.vllm.engine import VllmEngine
from kmmlu_fast.engines.vllm.start import vllm_engine_settings
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plan
from kmmlu_fast.evaluation.runner import ask_questions
from kmmlu_fast.models.model import resolve_model
from kmmlu_fast.models.tokens import open_tokenizer
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
        cut = ask(questions, build_chain_of_thought("qa", tokenizer, max_tokens=16, budgets=(3, 8)))
        short = ask(questions, build_chain_of_thought("qa", tokenizer, max_tokens=8))
        voted = build_chain_of_thought(
            "qa", tokenizer, max_tokens=8, num_samples=5, temperature=1.0, vote_stopping="exact"
        )
        settled = ask(questions, voted)
        again = ask(list(reversed(questions)), voted)
    finally:
        engine.close()
    # a text of 8 tokens and one of 16 cut after 8 are the same, but for near ties of a batch
    agree = [(cut[key].budget_predictions or [])[1:] == [short[key].prediction] for key in short]
    assert sum(agree) >= len(agree) - 1 and all(prediction.budgets == [3, 8] for prediction in cut.values())
    assert sum(cut[key].texts == greedy[key].texts for key in cut) >= len(cut) - 1
    for prediction in settled.values():
        letters = prediction.sample_predictions or []
        assert 3 <= len(letters) <= 5 and len(letters) == len(prediction.texts or [])
    assert sum(settled[key].texts == again[key].texts for key in settled) >= len(settled) - 1
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


def test_an_adapters_own_stop_tokens_end_its_texts_and_special_tokens_are_kept_if_asked(
    tmp_path: Path,
) -> None:
    os.environ.update(engine_cases.ENVIRONMENT)
    folder = make_tiny_model(tmp_path / "model", chat=True)
    adapter = make_tiny_adapter(folder, tmp_path / "lora")
    flags = {"model": str(folder), "dataset": "sample", "subjects": ["Law"], "limit": 4, "dtype": "float32"}
    config = EvalConfig(
        **flags, output_type="cot", prompt_style="chat", max_tokens=24, adapter=[str(adapter)], max_num_seqs=4
    )

    def ask(engine: VllmEngine, plan: EvalPlan) -> list[Completion]:
        kept = []
        for item in plan.asked:
            for request in plan.method.start(item.question, item.token_id_lists(), None):
                if isinstance(request.want, Generation):
                    kept.append(replace(request, want=replace(request.want, keep_special=True)))
        return [response.completions[0] for response in engine.generate(kept)]

    plan = make_eval_plan(config)
    engine = VllmEngine(vllm_engine_settings(config, plan.model, [], max_model_len=plan.max_model_len))
    try:
        free = ask(engine, plan)
        ids = [token for text in free for token in text.token_ids[2:6]]
        stop = next(token for token in ids if token > 6)
        (adapter / "generation_config.json").write_text(json.dumps({"eos_token_id": [stop]}))
        stopping = make_eval_plan(config)
        assert stopping.parts["decoding"]["stop_token_ids"] == [stop]
        ended = ask(engine, stopping)
    finally:
        engine.close()
    tokenizer = open_tokenizer(plan.model)
    for long, short in zip(free, ended, strict=True):
        assert tokenizer.decode(long.token_ids, skip_special_tokens=False).startswith(long.text)
        if stop in long.token_ids:
            assert short.token_ids[-1] == stop and short.finish_reason == "stop"
            assert stop not in short.token_ids[:-1]
    assert any(len(short.token_ids) < len(long.token_ids) for long, short in zip(free, ended, strict=True))
