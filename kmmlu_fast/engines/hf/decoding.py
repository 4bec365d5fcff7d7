"""The last step of generation, as in vLLM: chooses tokens, decodes them, and ends texts.

In: rows of logits, then the chosen tokens. Out: Completions. Each row has its own random generator and its
own end, so a text does not depend on its batch. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from kmmlu_fast.core.schema import Completion, Generation
from kmmlu_fast.engines.hf.batching import GenerationRow


class Sampler:
    """A logits processor after which the argmax is the row's token: the greedy one, or a sample.

    A sample is the argmax of logits minus the logarithm of exponential noise (the Gumbel-max trick). Each row
    has a generator, seeded by the request's seed and the sample's number or, without a seed, by the engine's
    seed and the request's key. Devices of one kind draw the same numbers for a seed.
    """

    def __init__(self, rows: Sequence[GenerationRow], engine_seed: int, device: Any) -> None:
        import torch

        self._draws = []
        for index, row in enumerate(rows):
            if row.want.temperature > 0:
                generator = torch.Generator(device=device)
                generator.manual_seed(_row_seed(row, engine_seed))
                self._draws.append((index, row.want, generator))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        for index, want, generator in self._draws:
            logits = _truncate_logits(scores[index].float() / want.temperature, want)
            noise = torch.empty_like(logits).exponential_(generator=generator)
            scores[index] = logits - noise.log()
        return scores


def _truncate_logits(logits: Any, want: Generation) -> Any:
    """Logits, minus infinity outside of what ``min_p``, ``top_k`` and ``top_p`` leave, in vLLM's order."""
    if want.min_p > 0:
        logits = logits.masked_fill(logits < logits.max() + math.log(want.min_p), float("-inf"))
    if 0 < want.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(want.top_k).values[-1], float("-inf"))
    return _apply_top_p(logits, want.top_p) if want.top_p < 1 else logits


def _apply_top_p(logits: Any, top_p: float) -> Any:
    """Logits, minus infinity outside the smallest set of tokens that holds ``top_p`` of the probability."""
    ranked, order = logits.sort(descending=True)
    probabilities = ranked.softmax(-1)
    outside = probabilities.cumsum(-1) - probabilities >= top_p  # never the first
    return logits.index_fill(0, order[outside], float("-inf"))


def _row_seed(row: GenerationRow, engine_seed: int) -> int:
    if row.want.seed is not None:
        return row.want.seed + row.sample
    key = f"{engine_seed}\x1f{row.request.key}\x1f{row.sample}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest())


class CompletionBuilder:
    """One row's text as it grows: ends at an end token, at a stop string, or after ``room`` tokens."""

    __slots__ = (
        "_end_ids",
        "_longest_stop",
        "_stream",
        "_text",
        "_tokenizer",
        "_tokens",
        "_want",
        "reason",
        "room",
    )

    def __init__(self, row: GenerationRow, tokenizer: Any, end_ids: frozenset[int], room: int) -> None:
        """``room``: tokens that fit into the context after the prompt."""
        self._want, self._tokenizer = row.want, tokenizer
        self._end_ids = end_ids.union(row.want.stop_ids)
        self._stream = _decode_stream(row.request.token_ids, row.want.keep_special)
        self._tokens: list[int] = []
        self._text = ""
        self._longest_stop = max(map(len, row.want.stop), default=0)
        self.room = max(1, min(room, row.want.max_tokens))
        self.reason: str | None = None

    def add(self, token: int) -> None:
        """Append the next token, unless the text has ended."""
        if self.reason is not None:
            return
        self._tokens.append(token)
        if token in self._end_ids:
            self.reason = "stop"
            return
        old = len(self._text)
        self._text += self._decode_token(token)
        if self._cut_at_stop_string(old):
            self.reason = "stop"
        elif len(self._tokens) >= self.room:
            self.reason = "length"

    def _decode_token(self, token: int) -> str:
        """The text that the token adds; "" while it is only a part of a character."""
        try:
            return self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
        except Exception as error:  # tokenizers raises no narrower type
            if not str(error).startswith("Invalid prefix"):
                raise
            # Invalid bytes: go on after them, as vLLM does.
            self._stream = _decode_stream((), self._want.keep_special)
            return self._stream.step(self._tokenizer.backend_tokenizer, token) or ""

    def _cut_at_stop_string(self, old: int) -> bool:
        """Whether a stop string ends beyond the first ``old`` characters; if so, cut the text there."""
        if len(self._text) == old:
            return False
        search_from = max(0, old - self._longest_stop + 1)
        matches: list[tuple[int, int]] = []  # (end, start)
        for stop in self._want.stop:
            start = self._text.find(stop, search_from)
            if start >= 0:
                matches.append((start + len(stop), start))
        if not matches:
            return False
        end, start = min(matches, key=lambda match: match[0])
        self._text = self._text[: end if self._want.include_stop else start]
        return True

    def completion(self) -> Completion:
        return Completion(self._text, tuple(self._tokens), self.reason or "length")


def _decode_stream(prompt: Sequence[int], keep_special: bool) -> Any:
    """A decoder that knows the prompt: a token's leading space may depend on it."""
    from tokenizers.decoders import DecodeStream

    return DecodeStream(ids=list(prompt), skip_special_tokens=not keep_special)


class RowStoppingCriteria:
    """A stopping criterion for ``generate``: passes new tokens to the builders; True for ended rows."""

    def __init__(self, builders: Sequence[CompletionBuilder]) -> None:
        self._builders = builders

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        import torch

        for builder, token in zip(self._builders, input_ids[:, -1].tolist(), strict=True):
            builder.add(token)
        ended = [builder.reason is not None for builder in self._builders]
        return torch.tensor(ended, device=input_ids.device)


def generate_completions(
    model: Any,
    rows: Sequence[GenerationRow],
    tokenizer: Any,
    end_ids: frozenset[int],
    context_tokens: int,
    engine_seed: int,
    device: str,
) -> list[Completion]:
    """One completion per row, from one ``model.generate`` over all rows, padded on the left."""
    import torch
    from transformers import GenerationConfig

    prompts = [row.request.token_ids for row in rows]
    longest = max(map(len, prompts))
    pads = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor([[*[0] * pad, *ids] for pad, ids in zip(pads, prompts, strict=True)], device=device)
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads], device=device)
    builders = [
        CompletionBuilder(row, tokenizer, end_ids, context_tokens - len(row.request.token_ids))
        for row in rows
    ]
    # A benchmark must not depend on the model's sampling defaults; RowStoppingCriteria ends texts.
    model.generation_config = GenerationConfig()
    most = max(builder.room for builder in builders)
    with torch.inference_mode():
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=GenerationConfig(max_new_tokens=most, do_sample=False, pad_token_id=0),
            logits_processor=[Sampler(rows, engine_seed, device)],
            stopping_criteria=[RowStoppingCriteria(builders)],
        )
    return [builder.completion() for builder in builders]
