"""Generation's last step, as vLLM does it: which token is taken, when a text ends, and what its text is.

In: rows of logits, then the tokens taken. Out: Completions. Each row has its own random generator and its own
end, so that a text does not depend on what it is batched with. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from kmmlu_fast.core.schema import Completion
from kmmlu_fast.engines.hf.batching import GenerationRow


class Sampler:
    """A logits processor after which the argmax is the row's choice: as it was if greedy, else a sample.

    Sampling is an argmax over log-probabilities minus the logarithm of exponential noise (the Gumbel-max
    trick), drawn from a generator a row: seeded by the request's seed and the sample's number, or, without a
    seed, by the engine's and the request's key. The same kind of device draws the same numbers for a seed.
    """

    def __init__(self, rows: Sequence[GenerationRow], engine_seed: int, device: Any) -> None:
        import torch

        self._draws = []
        for place, row in enumerate(rows):
            if row.want.temperature > 0:
                generator = torch.Generator(device=device)
                generator.manual_seed(_row_seed(row, engine_seed))
                self._draws.append((place, row.want.temperature, row.want.top_p, generator))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        for place, temperature, top_p, generator in self._draws:
            logits = scores[place].float() / temperature
            if top_p < 1:
                logits = _apply_top_p(logits, top_p)
            noise = torch.empty_like(logits).exponential_(generator=generator)
            scores[place] = logits - noise.log()
        return scores


def _apply_top_p(logits: Any, top_p: float) -> Any:
    """Logits outside the smallest set of tokens that holds ``top_p`` of the probability: minus infinity."""
    ranked, order = logits.sort(descending=True)
    shares = ranked.softmax(-1)
    outside = shares.cumsum(-1) - shares >= top_p  # never the first
    return logits.index_fill(0, order[outside], float("-inf"))


def _row_seed(row: GenerationRow, engine_seed: int) -> int:
    if row.want.seed is not None:
        return row.want.seed + row.sample
    key = f"{engine_seed}\x1f{row.request.key}\x1f{row.sample}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest())


class CompletionBuilder:
    """One row's text as it grows: ends at an end token, at a stop string, or when its tokens are used up."""

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
        """``room``: tokens that still fit into the context after the prompt."""
        self._want, self._tokenizer, self._end_ids = row.want, tokenizer, end_ids
        self._stream = _decode_stream(row.request.token_ids)
        self._tokens: list[int] = []
        self._text = ""
        self._longest_stop = max(map(len, row.want.stop), default=0)
        self.room = max(1, min(room, row.want.max_tokens))
        self.reason: str | None = None

    def add(self, token: int) -> None:
        """Take the next token; nothing once the text has ended."""
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
        """What the token adds; "" while it is only a part of a character."""
        try:
            return self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
        except Exception as error:  # the only kind that tokenizers raise
            if not str(error).startswith("Invalid prefix"):
                raise
            self._stream = _decode_stream(())  # bytes that are no text: go on after them, as vLLM does
            return self._stream.step(self._tokenizer.backend_tokenizer, token) or ""

    def _cut_at_stop_string(self, old: int) -> bool:
        """Whether a stop string ends in the text beyond ``old`` characters; the text is cut there."""
        if len(self._text) == old:
            return False
        start = max(0, old - self._longest_stop + 1)
        places = [(self._text.find(stop, start), stop) for stop in self._want.stop]
        found = [(place + len(stop), place) for place, stop in places if place >= 0]
        if not found:
            return False
        end, place = min(found, key=lambda ends: ends[0])
        self._text = self._text[: end if self._want.include_stop else place]
        return True

    def completion(self) -> Completion:
        return Completion(self._text, tuple(self._tokens), self.reason or "length")


def _decode_stream(prompt: Sequence[int]) -> Any:
    """A decoder that knows what stands before, on which a token's leading space may depend."""
    from tokenizers.decoders import DecodeStream

    return DecodeStream(ids=list(prompt), skip_special_tokens=True)


class RowStoppingCriteria:
    """A stopping criterion for ``generate``: hands new tokens to the writers and says which rows ended."""

    def __init__(self, writers: Sequence[CompletionBuilder]) -> None:
        self._writers = writers

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        import torch

        for writer, token in zip(self._writers, input_ids[:, -1].tolist(), strict=True):
            writer.add(token)
        return torch.tensor([writer.reason is not None for writer in self._writers], device=input_ids.device)


def generate_completions(
    model: Any,
    rows: Sequence[GenerationRow],
    tokenizer: Any,
    end_ids: frozenset[int],
    context_tokens: int,
    engine_seed: int,
    device: str,
) -> list[Completion]:
    """One completion a row from one ``model.generate`` over all of them, padded on the left as it needs."""
    import torch
    from transformers import GenerationConfig

    prompts = [row.request.token_ids for row in rows]
    longest = max(map(len, prompts))
    pads = [longest - len(prompt) for prompt in prompts]
    ids = torch.tensor([[*[0] * pad, *ids] for pad, ids in zip(pads, prompts, strict=True)], device=device)
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in pads], device=device)
    writers = [
        CompletionBuilder(row, tokenizer, end_ids, context_tokens - len(row.request.token_ids))
        for row in rows
    ]
    # The model's own sampling defaults must not decide a benchmark; what ends a text is for Finish to say.
    model.generation_config = GenerationConfig()
    most = max(writer.room for writer in writers)
    with torch.inference_mode():
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=GenerationConfig(max_new_tokens=most, do_sample=False, pad_token_id=0),
            logits_processor=[Sampler(rows, engine_seed, device)],
            stopping_criteria=[RowStoppingCriteria(writers)],
        )
    return [writer.completion() for writer in writers]
