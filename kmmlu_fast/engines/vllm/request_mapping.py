"""A Request as vLLM takes it, and vLLM's output as a Response.

In: a Request; a finished ``RequestOutput``. Out: ``SamplingParams``; a Response, or EngineError if vLLM
scored other tokens than were asked. Sources: vLLM 0.32 ``SamplingParams.logprob_token_ids`` and
``prompt_logprob_token_ids``. Knows nothing of the engine's queue or of adapters.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import Candidates, Completion, Continuation, Generation, Request, Response, Want


def parse_request_output(request: Request, output: Any) -> Response:
    """vLLM's RequestOutput as a Response."""
    cached = output.num_cached_tokens or 0
    match request.want:
        case Candidates(token_ids):
            entry = output.outputs[0].logprobs[0]
            logprobs = tuple(entry[token].logprob for token in token_ids)
            return Response(request, logprobs, cached_tokens=cached)
        case Continuation(num_tokens):
            return Response(request, (_continuation_logprob(request, output, num_tokens),), (), cached)
        case Generation():
            completions = tuple(
                Completion(text.text, tuple(text.token_ids), text.finish_reason or "length")
                for text in output.outputs
            )
            return Response(request, completions=completions, cached_tokens=cached)


def _continuation_logprob(request: Request, output: Any, num_tokens: int) -> float:
    """The sum over the last ``num_tokens`` prompt tokens, from either form of vLLM's output. EngineError if
    vLLM scored other tokens than these, which an open fault of its second model runner does.
    """
    scores = getattr(output, "prompt_token_id_logprobs", None)
    if scores is not None:
        return float(sum(float(row[0]) for row in scores))
    scored = list(zip(request.token_ids, output.prompt_logprobs or (), strict=False))[-num_tokens:]
    if len(output.prompt_logprobs or ()) != len(request.token_ids) or any(
        not entry or token not in entry for token, entry in scored
    ):
        raise EngineError(
            f"{request.key}: vLLM scored other tokens than the prompt's; use the pinned version of vLLM, or"
            " --engine transformers"
        )
    return float(sum(entry[token].logprob for token, entry in scored))


def given_ids_params(token_ids: Sequence[int], num_tokens: int) -> Any:
    """SamplingParams that score the last ``num_tokens`` of a prompt by their ids.

    vLLM 0.32's second model runner takes the ids for ``prompt_logprobs`` from its own state, and may take
    wrong ones (its pull request 44106, open); ids that are given it scores as they are.
    """
    import numpy as np
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        prompt_logprob_token_ids=np.array([[token] for token in token_ids[-num_tokens:]], dtype=np.int64),
        prompt_logprob_start=len(token_ids) - 1 - num_tokens,
        temperature=0.0,
        max_tokens=1,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,
    )


def count_generation_tokens(request: Request) -> tuple[int, int]:
    """Prompt and output tokens that a text may hold in the cache; a scored prompt leaves it at once."""
    if not isinstance(request.want, Generation):
        return 0, 0
    return len(request.token_ids), request.want.max_tokens * request.want.num_samples


@functools.lru_cache(maxsize=64)
def sampling_params(want: Want) -> Any:
    """vLLM's SamplingParams, one object per ``want``: vLLM copies it per request (not deeply: skip_clone)."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    common: dict[str, Any] = {"output_kind": RequestOutputKind.FINAL_ONLY, "skip_clone": True}
    one_token: dict[str, Any] = {"temperature": 0.0, "max_tokens": 1, "detokenize": False, **common}
    match want:
        case Candidates(token_ids):
            ids = list(token_ids)
            return SamplingParams(logprobs=len(ids), logprob_token_ids=ids, **one_token)
        case Continuation():
            return SamplingParams(prompt_logprobs=0, **one_token)
        case Generation():
            return SamplingParams(
                temperature=want.temperature,
                top_p=want.top_p,
                top_k=want.top_k,
                min_p=want.min_p,
                n=want.num_samples,
                max_tokens=want.max_tokens,
                seed=want.seed,
                stop=list(want.stop) or None,
                include_stop_str_in_output=want.include_stop,
                stop_token_ids=list(want.stop_ids) or None,
                skip_special_tokens=not want.keep_special,
                spaces_between_special_tokens=not want.keep_special,
                **common,
            )
