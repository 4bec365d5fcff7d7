"""lm-eval with one prefill per context: which requests are joined, and what is read from them. No engine."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from bench.lm_eval_next import group_single_tokens, make_next_model

LETTERS = (65, 66, 67, 68)
PROMPTS = ([1, 2, 3], [1, 2])
REQUESTS = [(("q", letter), prompt, [letter]) for prompt in PROMPTS for letter in LETTERS]
LONG = [(("long", end), [9], [end, 70]) for end in (1, 2)]


class _Own:
    """As much of lm-eval's vLLM model as the subclass uses."""

    def __init__(self, batch_size: str | int = "auto") -> None:
        self.batch_size, self.max_length = batch_size, 3
        self.asked: list[tuple[list[int], Any]] = []
        self.alone: list[Any] = []
        self.partial: list[Any] = []
        self.cache_hook = SimpleNamespace(add_partial=lambda *entry: self.partial.append(entry))

    def _loglikelihood_tokens(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        self.alone += requests
        return [(-9.0 - place, False) for place, _ in enumerate(requests)]

    def _model_generate(self, requests: list[list[int]], generate: bool, sampling_params: list[Any]) -> Any:
        assert generate
        self.asked += zip(requests, sampling_params, strict=True)
        for prompt in requests:
            tokens = {letter: SimpleNamespace(logprob=-len(prompt) - letter / 100) for letter in LETTERS}
            yield SimpleNamespace(outputs=[SimpleNamespace(logprobs=[tokens], token_ids=[66])])


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    theirs, vllm = ModuleType("lm_eval.models.vllm_causallms"), ModuleType("vllm")
    theirs.VLLM, vllm.SamplingParams = _Own, SimpleNamespace  # type: ignore[attr-defined]
    for name in ("lm_eval", "lm_eval.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, theirs.__name__, theirs)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    return make_next_model


def test_a_context_is_joined_only_if_all_its_continuations_are_one_token() -> None:
    mixed = [(None, [5], [65]), (None, [5], [66, 67])]
    single, others = group_single_tokens([*REQUESTS, *mixed, *LONG, (None, [], [65])])
    assert single == {(1, 2, 3): [0, 1, 2, 3], (1, 2): [4, 5, 6, 7]}
    assert others == [8, 9, 10, 11, 12]


def test_one_request_per_question_and_every_choice_has_its_own_number(model: Any) -> None:
    lm = model()
    order = [REQUESTS[5], LONG[0], *REQUESTS[:5], LONG[1], *REQUESTS[6:]]
    answers = lm._loglikelihood_tokens(order)
    assert [prompt for prompt, _ in lm.asked] == [[2, 3], [1, 2]]  # cut on the left to what fits
    for _, sampling in lm.asked:
        assert (sampling.max_tokens, sampling.logprobs) == (1, 4)
        assert sampling.logprob_token_ids == [65, 66, 67, 68] and not hasattr(sampling, "prompt_logprobs")
    assert lm.alone == LONG and [answers[1], answers[7]] == [(-9.0, False), (-10.0, False)]
    for (_, _, [letter]), (value, greedy) in zip(
        REQUESTS, [*answers[2:7], answers[0], *answers[8:]], strict=True
    ):
        assert value == pytest.approx(-2 - letter / 100) and greedy == (letter == 66)
    assert sorted(key for _, key, _ in lm.partial) == sorted(key for key, _, _ in REQUESTS)


def test_a_batch_size_splits_contexts_not_choices(model: Any) -> None:
    lm = model(1)
    assert len(lm._loglikelihood_tokens(REQUESTS)) == 8 and len(lm.asked) == 2
