"""The completions format of an OpenAI-compatible vLLM server: builds payloads and parses answers.

In: Requests, or the JSON of an answer. Out: a payload, or Responses; one of ``MALFORMED`` if something
requested is missing or impossible. Knows nothing of HTTP or of which servers there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kmmlu_fast.core.letters import MAX_LOGPROB
from kmmlu_fast.core.schema import Candidates, Completion, Continuation, Generation, Request, Response
from kmmlu_fast.core.untrusted_text import bounded_repr

# Raised while parsing an answer that is not what was requested.
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
# Explicit, because `vllm serve` takes omitted settings from the model's generation_config.json, which may
# set a repetition penalty.
NEUTRAL_SAMPLING = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


def _sampling_payload(text: Generation) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "max_tokens": text.max_tokens,
        "temperature": text.temperature,
        "top_p": text.top_p,
        "n": text.num_samples,
    }
    if text.top_k:
        payload |= {"top_k": text.top_k}
    if text.min_p:
        payload |= {"min_p": text.min_p}
    if text.stop:
        payload |= {"stop": list(text.stop), "include_stop_str_in_output": text.include_stop}
    if text.stop_ids:
        payload |= {"stop_token_ids": list(text.stop_ids)}
    if text.keep_special:
        payload |= {"skip_special_tokens": False, "spaces_between_special_tokens": False}
    if text.seed is not None:
        payload |= {"seed": text.seed}
    return payload


def parse_server_responses(requests: Sequence[Request], answer: dict[str, Any]) -> list[Response]:
    """The Responses in the answer to ``completions_payload``; one of MALFORMED if something is missing or
    impossible.

    A server numbers the choices of several prompts on: n for each. It reports cached tokens of the whole call
    (if started with --enable-prompt-tokens-details), which are divided over the prompts.
    """
    choices = sorted(answer["choices"], key=lambda choice: parse_count(choice["index"]))
    each = len(choices) // len(requests)
    if each == 0 or [choice["index"] for choice in choices] != list(range(each * len(requests))):
        raise IndexError(f"{len(choices)} choices for {len(requests)} prompts")
    details = answer["usage"].get("prompt_tokens_details") or {}
    cached = divide_count(parse_count(details.get("cached_tokens") or 0), len(requests))
    return [
        _parse_choices(request, choices[place * each : (place + 1) * each], cached[place])
        for place, request in enumerate(requests)
    ]


def divide_count(total: int, parts: int) -> list[int]:
    """``total`` in ``parts`` whole numbers that differ by one at most."""
    size, more = divmod(total, parts)
    return [size + (place < more) for place in range(parts)]


def _parse_choices(request: Request, choices: list[dict[str, Any]], cached_tokens: int) -> Response:
    match request.want:
        case Continuation(num_tokens):
            last = range(len(request.token_ids) - num_tokens, len(request.token_ids))
            scores = choices[0]["prompt_logprobs"]
            total = sum(_parse_logprob(scores[i][str(request.token_ids[i])]["logprob"]) for i in last)
            return Response(request, logprobs=(total,), cached_tokens=cached_tokens)
        case Candidates(token_ids):
            first = choices[0]["logprobs"]["top_logprobs"][0]
            logprobs = tuple(_parse_logprob(first[f"token_id:{token_id}"]) for token_id in token_ids)
            return Response(request, logprobs=logprobs, cached_tokens=cached_tokens)
        case Generation(max_tokens=max_tokens, num_samples=num_samples):
            if len(choices) != num_samples:
                raise IndexError(f"{len(choices)} choices for n={num_samples}")
            completions = tuple(_parse_completion(choice, max_tokens) for choice in choices)
            return Response(request, completions=completions, cached_tokens=cached_tokens)


def _parse_logprob(value: Any) -> float:
    """A log-probability: a number not above 0, except for rounding."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value > MAX_LOGPROB:
        raise ValueError(f"{bounded_repr(value)} is not a log-probability")
    return float(value)


def parse_count(value: Any) -> int:
    """A 31-bit count, or ValueError."""
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"{bounded_repr(value)} is not a count")
    return value


def parse_token_ids(value: Any) -> tuple[int, ...]:
    """A list of token ids, or TypeError or ValueError."""
    if not isinstance(value, list):
        raise TypeError(f"token_ids are {bounded_repr(value)}")
    return tuple(map(parse_count, value))


def _parse_completion(choice: dict[str, Any], max_tokens: int) -> Completion:
    text, token_ids, reason = choice["text"], parse_token_ids(choice["token_ids"]), choice["finish_reason"]
    if not isinstance(text, str) or reason not in ("stop", "length"):
        raise TypeError(f"finish_reason {bounded_repr(reason)}, text {bounded_repr(text)}")
    if len(token_ids) > max_tokens + 1:
        raise ValueError(f"{len(token_ids)} tokens, but {max_tokens} were requested")
    return Completion(text.encode("utf-8", "replace").decode(), token_ids, reason)


def completions_payload(requests: Sequence[Request], model: str) -> dict[str, Any]:
    """The JSON body for requests that want the same of the served model or adapter named ``model``."""
    request, prompts = requests[0], [list(request.token_ids) for request in requests]
    payload: dict[str, Any] = {
        "model": model,
        "prompt": prompts if len(prompts) > 1 else prompts[0],
        "return_token_ids": True,
        **NEUTRAL_SAMPLING,
    }
    one_token = {"max_tokens": 1, "temperature": 0.0}
    match request.want:
        case Continuation():  # 0: no alternatives to the prompt's own tokens
            return payload | {"prompt_logprobs": 0, **one_token}
        case Candidates(token_ids):
            ids = list(token_ids)
            letters = {"logprobs": len(ids), "logprob_token_ids": ids, "return_tokens_as_token_ids": True}
            return payload | letters | one_token
        case Generation() as text:
            return payload | _sampling_payload(text)
