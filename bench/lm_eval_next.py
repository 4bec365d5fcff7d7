"""lm-eval's vLLM model as it may be tomorrow: one prefill for choices of a single token.

The behaviour of EleutherAI/lm-evaluation-harness pull request 3604, written anew: where every continuation of
a context is one token, one request with ``max_tokens=1`` and the next token's log-probabilities answers all
of them. What has longer continuations goes lm-eval's own way. The pull request reads the ten likeliest
tokens; here vLLM is asked for the choices' own, so that none is missing and the peer is no slower for it.

In: what ``lm_eval.models.vllm_causallms.VLLM`` takes. Out: the same answers. Prefix caching is vLLM's
default; requests without ``prompt_logprobs`` use it. Knows nothing of KMMLU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Tokenised = tuple[Any, list[int], list[int]]  # cache key, context, continuation
Answer = tuple[float, bool]  # log-probability, whether it is the likeliest


def group_single_tokens(requests: Sequence[Tokenised]) -> tuple[dict[tuple[int, ...], list[int]], list[int]]:
    """Places in ``requests`` by context where all of its continuations are single tokens, and the others."""
    by_context: dict[tuple[int, ...], list[int]] = {}
    for place, (_, context, _) in enumerate(requests):
        by_context.setdefault(tuple(context), []).append(place)
    single: dict[tuple[int, ...], list[int]] = {}
    others: list[int] = []
    for tokens, places in by_context.items():
        if tokens and all(len(requests[place][2]) == 1 for place in places):
            single[tokens] = places
        else:
            others += places
    return single, sorted(others)


def make_next_model(*args: Any, **kwargs: Any) -> Any:
    """lm-eval's vLLM model with one prefill per context. lm-eval is imported here."""
    from lm_eval.models.vllm_causallms import VLLM
    from vllm import SamplingParams

    class NextVLLM(VLLM):  # type: ignore[misc]
        def _loglikelihood_tokens(
            self, requests: list[Tokenised], disable_tqdm: bool = False
        ) -> list[Answer]:
            single, others = group_single_tokens(requests)
            answers: dict[int, Answer] = {}
            if others:
                chosen = [requests[place] for place in others]
                answers |= dict(zip(others, super()._loglikelihood_tokens(chosen, disable_tqdm), strict=True))
            contexts = sorted(single, key=lambda context: (-len(context), context))
            size = int(self.batch_size) if self.batch_size != "auto" else max(1, len(contexts))
            for start in range(0, len(contexts), size):
                answers |= self._answer_contexts(contexts[start : start + size], single, requests)
            for place in (place for places in single.values() for place in places):
                if requests[place][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[place][0], answers[place])
            return [answers[place] for place in range(len(requests))]

        def _answer_contexts(
            self,
            contexts: list[tuple[int, ...]],
            single: dict[tuple[int, ...], list[int]],
            requests: list[Tokenised],
        ) -> dict[int, Answer]:
            prompts, sampling = [], []
            for context in contexts:
                tokens = sorted({requests[place][2][0] for place in single[context]})
                prompts.append(list(context)[-(self.max_length - 1) :])
                sampling.append(
                    SamplingParams(
                        temperature=0,
                        max_tokens=1,
                        logprobs=len(tokens),
                        logprob_token_ids=tokens,
                        detokenize=False,
                    )
                )
            outputs = self._model_generate(requests=prompts, generate=True, sampling_params=sampling)
            answers: dict[int, Answer] = {}
            for context, output in zip(contexts, outputs, strict=True):
                drawn = output.outputs[0]
                for place in single[context]:
                    token = requests[place][2][0]
                    answers[place] = (drawn.logprobs[0][token].logprob, drawn.token_ids[0] == token)
            return answers

    return NextVLLM(*args, **kwargs)
