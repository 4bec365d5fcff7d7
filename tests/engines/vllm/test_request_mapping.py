"""What a request asks of vLLM, and what its answer is read as."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import Continuation, Request
from kmmlu_fast.engines.vllm.request_mapping import given_ids_params, parse_request_output

REQUEST = Request(question_id="Invented/test/1", stage="A", token_ids=(4, 5, 6, 7), want=Continuation(2))


def output(**fields: Any) -> Any:
    return SimpleNamespace(num_cached_tokens=0, **fields)


def entries(*tokens: int) -> list[Any]:
    """One entry per prompt token, as ``prompt_logprobs`` has them; the first is empty."""
    return [None, *({token: SimpleNamespace(logprob=-float(token))} for token in tokens)]


def test_a_continuation_is_the_sum_over_its_tokens() -> None:
    response = parse_request_output(REQUEST, output(prompt_logprobs=entries(5, 6, 7)))
    assert response.logprobs == (-13.0,)


@pytest.mark.parametrize("scored", [entries(6, 7, 8), entries(5, 7), None], ids=["shifted", "short", "none"])
def test_other_tokens_than_the_prompts_are_an_error_in_one_line(scored: list[Any] | None) -> None:
    """The open fault of vLLM's second model runner: ids from its own state."""
    with pytest.raises(EngineError, match="scored other tokens than the prompt's") as caught:
        parse_request_output(REQUEST, output(prompt_logprobs=scored))
    assert "\n" not in str(caught.value) and "Invented/test/1" in str(caught.value)


def test_the_second_model_runner_is_given_the_ids() -> None:
    params = given_ids_params(REQUEST.token_ids, 2)
    assert params.prompt_logprob_token_ids.tolist() == [[6], [7]]
    # row i scores prompt token start + i + 1, and vLLM wants len - 1 - start rows
    assert params.prompt_logprob_start == 1 == len(REQUEST.token_ids) - 1 - 2
    assert params.prompt_logprobs is None and params.max_tokens == 1
    scores = np.array([[-6.0], [-7.0]], dtype=np.float32)
    response = parse_request_output(REQUEST, output(prompt_logprobs=None, prompt_token_id_logprobs=scores))
    assert response.logprobs == (-13.0,) and type(response.logprobs[0]) is float
