"""Log-probabilities from one forward pass: of candidate tokens after a prompt, or of a prompt's last tokens.

In: a ScoringBatch (requests of one adapter, which the caller has activated). Out: natural logarithms, one
tuple per request. Rows are padded on the right, where a causal model does not look, so no mask is needed and
sliding windows stay correct; only the positions that are read go through the output layer. Knows nothing of
limits.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from typing import Any

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import Candidates, Continuation, Generation, Request
from kmmlu_fast.engines.hf.batching import ScoringBatch, scored_tokens

_ROWS_AT_ONCE = 64  # rows with float32 logits over the whole vocabulary at a time
_TOKENS_AT_ONCE = 16384  # tokens of the vocabulary with float32 weights at a time


class Scorer:
    """Scores batches on ``model``; keeps the last prefix's keys and values until ``drop_prefix_cache``."""

    def __init__(
        self, model: Any, device: str, float32_logits: bool = False, *, trains: bool = False
    ) -> None:
        """``float32_logits``: the output layer computes in float32, whatever the model's type. ``trains``:
        the model is in training, so no tensor that it keeps may be made in inference mode; the caller turns
        gradients off. EngineError if the model has no output layer over the vocabulary.
        """
        self._model, self._device, self._trains = model, device, trains
        self._positions: Any = None  # (rows, wanted) during a pass: the output layer's input
        head = model.get_output_embeddings()
        if head is None:
            raise EngineError(
                f"model {model.name_or_path} is not causal: it has no output layer over its vocabulary"
            )
        self._hooks = [head.register_forward_pre_hook(self._select_positions)]
        if float32_logits:
            if type(head).__name__ != "Linear" or not head.weight.is_floating_point():
                raise EngineError(
                    "--letter-precision float32 needs a plain output layer, not quantised and without adapter"
                )
            self._hooks.append(head.register_forward_hook(self._recompute_in_float32))
        self._kept: tuple[Hashable, Any] | None = None
        self.reuses_prefixes = _is_cache_reusable(self._empty_cache())

    def score(self, batch: ScoringBatch) -> list[tuple[float, ...]]:
        """Per request: one value per candidate, or for a continuation the sum over its tokens alone."""
        import torch

        shared, longest = batch.shared_tokens, batch.longest_suffix_tokens
        tails = [request.token_ids[shared:] for request in batch.requests]
        ids = torch.tensor([[*tail, *[0] * (longest - len(tail))] for tail in tails], device=self._device)
        cache = _expand_cache(self._prefix_cache(batch), len(tails)) if shared else None
        logits = self._forward(ids, [_scored_positions(request, shared) for request in batch.requests], cache)
        norms = torch.cat([part.float().logsumexp(-1) for part in logits.split(_ROWS_AT_ONCE)])
        targets = [_target_tokens(request) for request in batch.requests]
        indices = [(row, at, token) for row, pairs in enumerate(targets) for at, token in pairs]
        rows, ats, tokens = torch.tensor(indices, device=self._device).T
        logprobs = iter((logits[rows, ats, tokens].float() - norms[rows, ats]).tolist())
        scores: list[tuple[float, ...]] = []
        for request, pairs in zip(batch.requests, targets, strict=True):
            values = tuple(next(logprobs) for _ in pairs)
            scores.append((sum(values),) if scored_tokens(request) else values)
        return scores

    def drop_prefix_cache(self) -> None:
        """Free the keys and values of the last prefix."""
        self._kept = None

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._model = self._kept = None

    def _forward(self, ids: Any, wanted: Sequence[Sequence[int]], cache: Any) -> Any:
        """Logits after each row's ``wanted`` positions: (rows, most wanted, vocabulary), padded."""
        import torch

        most = max(map(len, wanted))
        padded = [[*row, *[row[-1]] * (most - len(row))] for row in wanted]
        self._positions, self._length = torch.tensor(padded, device=self._device), ids.shape[1]
        try:
            with torch.inference_mode(not self._trains):
                logits = self._model(input_ids=ids, past_key_values=cache, use_cache=cache is not None).logits
        finally:
            self._positions = None
        if logits.shape[:2] != (len(wanted), most):
            raise EngineError(
                f"model {self._model.name_or_path} changes its output layer's logits; use --engine vllm"
            )
        return logits

    def _select_positions(self, head: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Before the output layer: keep the wanted positions of the hidden states (rows, length, hidden), so
        that no tensor of rows x length x vocabulary is made. (``logits_to_keep`` takes no positions per row.)
        """
        if self._positions is None:
            return None
        hidden = arguments[0]
        # prompt tuning puts virtual tokens before the prompt
        positions = self._positions.to(hidden.device) + (hidden.shape[1] - self._length)
        return (hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])), *arguments[1:])

    def _recompute_in_float32(self, head: Any, arguments: tuple[Any, ...], output: Any) -> Any:
        """After the output layer: the same product in float32, a part of the vocabulary at a time."""
        import torch

        if self._positions is None:
            return None
        hidden = arguments[0].float()
        logits = torch.cat([hidden @ part.float().T for part in head.weight.split(_TOKENS_AT_ONCE)], dim=-1)
        return logits if getattr(head, "bias", None) is None else logits + head.bias.float()

    def _prefix_cache(self, batch: ScoringBatch) -> Any:
        """Keys and values of the shared prefix, one row; the last prefix's are kept."""
        import torch

        adapter = batch.requests[0].adapter
        key = (adapter.digest if adapter else None, batch.shared_prefix)
        if self._kept is None or self._kept[0] != key:
            self._kept = None
            cache = self._empty_cache()
            self._forward(torch.tensor([batch.shared_prefix], device=self._device), [[0]], cache)
            self._kept = (key, cache)
        return self._kept[1]

    def _empty_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)


def _scored_positions(request: Request, shared: int) -> list[int]:
    """Positions, in the row without its shared prefix, after which a probability is read."""
    end = len(request.token_ids) - shared
    scored = scored_tokens(request)
    return list(range(end - scored - 1, end - 1)) if scored else [end - 1]


def _target_tokens(request: Request) -> list[tuple[int, int]]:
    """(index into ``_scored_positions``, token id) per probability that is read."""
    match request.want:
        case Candidates(token_ids):
            return [(0, token) for token in token_ids]
        case Continuation(num_tokens):
            return list(enumerate(request.token_ids[-num_tokens:]))
        case Generation():
            raise ValueError(f"{request.key}: a generation request cannot be scored")


def _is_cache_reusable(cache: Any) -> bool:
    """Whether every layer keeps plain keys and values, so that many rows can share one prefix."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return bool(cache.layers) and all(type(layer) in plain for layer in cache.layers)


def _expand_cache(cache: Any, rows: int) -> Any:
    """A cache of ``rows`` rows that all begin with the one row of ``cache``, for one pass. It takes memory a
    layer at a time and leaves ``cache`` unchanged: new keys and values are appended, not kept.
    """
    wide = copy.copy(cache)
    wide.layers = [_expand_layer(layer, rows) for layer in cache.layers]
    return wide


def _expand_layer(layer: Any, rows: int) -> Any:
    import torch

    wide = copy.copy(layer)
    wide.keys, wide.values = (kept.expand(rows, -1, -1, -1) for kept in (layer.keys, layer.values))

    def update(keys: Any, values: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return torch.cat([wide.keys, keys], dim=-2), torch.cat([wide.values, values], dim=-2)

    wide.update = update
    return wide
