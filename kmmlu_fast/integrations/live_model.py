"""A model in training as an engine: the weights that the trainer holds, asked between two steps.

In: a trainer, Requests of token ids. Out: Responses. The forward pass and the reading of log-probabilities
are the transformers engine's (``engines.hf.scoring``), so a look equals an evaluation of the weights saved at
that step. Afterwards the model is as it was: mode, gradients, random numbers. Knows nothing of KMMLU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.schema import Request, Response
from kmmlu_fast.engines.hf.batching import BatchLimits, scoring_batches
from kmmlu_fast.engines.hf.model import is_out_of_memory
from kmmlu_fast.engines.hf.scoring import Scorer

_CPU_LIMITS, _GPU_LIMITS = BatchLimits(2048, 64, 0), BatchLimits(8192, 128, 0)


class LiveModel:
    """Asks the model of ``trainer`` as it is now."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._limits: BatchLimits | None = None

    def ask(self, requests: Iterable[Request]) -> Iterator[Response]:
        """Responses to scoring requests, not in their order. TrainError if not even one fits into memory."""
        import torch

        trainer, model = self._trainer, _unwrapped_model(self._trainer)
        with _evaluation_mode(model), torch.no_grad(), trainer.accelerator.autocast():
            device = model.get_output_embeddings().weight.device  # small GPUs keep the embeddings on the host
            scorer = Scorer(_scored_model(model), str(device), trains=True)
            try:
                yield from self._ask_in_batches(scorer, list(requests), device.type)
            finally:
                scorer.close()

    def _ask_in_batches(self, scorer: Scorer, requests: list[Request], device: str) -> Iterator[Response]:
        limits = self._limits or (_CPU_LIMITS if device == "cpu" else _GPU_LIMITS)
        waiting = list(scoring_batches(requests, limits, None))
        while waiting:
            batch = waiting.pop(0)
            try:
                scores = scorer.score(batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch.requests) == 1:
                    raise TrainError(
                        "watch: not even one question fits into the memory that training leaves; train with a"
                        " smaller per_device_train_batch_size"
                    ) from error
                limits = limits.after_out_of_memory(len(batch.requests), batch.longest_suffix_tokens)
                left = [request for each in (batch, *waiting) for request in each.requests]
                waiting = list(scoring_batches(left, limits, None))
                continue
            for request, logprobs in zip(batch.requests, scores, strict=True):
                yield Response(request, logprobs=logprobs)
        self._limits = limits


def _unwrapped_model(trainer: Any) -> Any:
    """The model without what distributed training or compilation wraps around it."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)


@contextmanager
def _evaluation_mode(model: Any) -> Iterator[None]:
    """Dropout and gradient checkpointing are off inside; each module's own mode is restored, for some keep
    parts of a model in evaluation mode.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _scored_model(model: Any) -> Any:
    """The model, or for Unsloth's, whose own forward pass may return no logits, its decoder and its head."""
    return _DecoderAndHead(model) if hasattr(model, "for_training") else model


def logit_scale(config: Any) -> float:
    """What a model multiplies its output layer's logits by: Cohere, Falcon-H1, Granite (which divides),
    HyperCLOVA X.
    """
    scale = 1.0
    for name in ("logit_scale", "lm_head_multiplier", "output_multiplier"):
        scale *= float(getattr(config, name, None) or 1.0)
    scaling = float(getattr(config, "logits_scaling", None) or 1.0)
    if config.model_type == "minicpm3":  # scales the hidden states before the output layer
        return scale
    return scale * scaling if config.model_type == "hyperclovax" else scale / scaling


class _DecoderAndHead:
    """What ``Scorer`` needs of a model: the decoder's hidden states through the output layer."""

    def __init__(self, model: Any) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._decoder = getattr(base, base.base_model_prefix)
        self._head = base.get_output_embeddings()
        self.config, self.name_or_path = base.config, base.name_or_path
        text_config = base.config.get_text_config()
        self._scale = logit_scale(text_config)
        self._softcap = getattr(text_config, "final_logit_softcapping", None)

    def get_output_embeddings(self) -> Any:
        return self._head

    def __call__(self, input_ids: Any, **options: Any) -> SimpleNamespace:
        import torch

        hidden = self._decoder(input_ids=input_ids, use_cache=False)[0]
        logits = self._head(hidden.to(self._head.weight.dtype))
        if self._scale != 1.0:
            logits = logits * self._scale
        if self._softcap:
            logits = self._softcap * torch.tanh(logits / self._softcap)
        return SimpleNamespace(logits=logits)
