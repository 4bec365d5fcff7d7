"""The loss of a training step, with logits computed only where there is a label.

In: a causal language model (bare or PEFT's), batches of token ids with labels. Out: the loss and gradients of
the model's own forward, to rounding, with the vocabulary's products at the labelled positions alone. Letter
rows have one to three labels in a hundred tokens: TRL 1.14's chunked loss computes 256 positions for them,
Unsloth's fused loss on a GPU every position of the row. Measured (docs/performance.md: 4 rows of 128 tokens,
two labels each, AVX512_BF16): a peak of 1.9 GiB instead of 2.58, so activations can be kept and a step takes
1.2 s instead of 3.6. ``attach_labelled_loss`` replaces one model's
``forward``, as TRL's and Unsloth's own losses do, and first checks itself on a row. Knows nothing of KMMLU,
files or plans.
"""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.training.encoded import MASKED, EncodedRow

# Bytes per logit at the peak: 2 + 4 in 16 and 32 bit, 4 of log-softmax, 4 + 2 of the gradients.
LOGIT_BYTES = 16
CHUNK_BYTES = 2**30
_AGREES = 0.02  # relative: both losses of the check use the same 16-bit products
_LOGITS = "UNSLOTH_RETURN_LOGITS"  # its other switch: the loss from logits, without its compiled fused loss
_HIDDEN = "UNSLOTH_RETURN_HIDDEN_STATES"  # Unsloth's own switch: forward returns hidden states as ``logits``
_IGNORED = "_kmmlu_fast_switch_ignored"
_NOT_OF_THE_BACKBONE = frozenset(
    [
        "labels",
        "shift_labels",
        "num_items_in_batch",
        "n_items",
        "use_cache",
        "return_dict",
        "logits_to_keep",
        "num_logits_to_keep",
    ]
)


def logit_chunk_rows(vocabulary: int) -> int:
    """How many positions' logits are in memory at once. More labelled positions are computed in pieces, and
    again for their gradients.
    """
    return max(CHUNK_BYTES // (vocabulary * LOGIT_BYTES), 16)


def labelled_loss(
    hidden: Any,
    labels: Any,
    head: Callable[[Any], Any],
    num_items: Any = None,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
) -> Any:
    """Cross entropy of the next token, in nats: its sum over the labelled positions divided by ``num_items``,
    or its mean if that is None.

    ``hidden`` (rows, tokens, width) are the states before ``head``; ``labels`` (rows, tokens) are not
    shifted, -100 = no label. ``num_items`` counts the labels of all micro-batches of an optimiser step (as
    ``Trainer`` counts them), so that accumulation changes nothing.
    """
    import torch

    targets = labels[:, 1:].to(hidden.device)
    labelled = targets != MASKED
    states, targets = hidden[:, :-1][labelled], targets[labelled]

    def loss_sum(states: Any, targets: Any) -> Any:
        logits = head(states).float()
        if scale != 1.0:
            logits = logits * scale
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")

    if chunk is None or len(targets) <= chunk:
        total = loss_sum(states, targets)
    else:
        checkpoint = torch.utils.checkpoint.checkpoint
        pieces = zip(states.split(chunk), targets.split(chunk), strict=True)
        total = sum(checkpoint(loss_sum, *piece, use_reentrant=False) for piece in pieces)
    return total / (max(len(targets), 1) if num_items is None else num_items)


def attach_labelled_loss(model: Any, row: dict[str, Any] | None = None) -> bool:
    """Give the model a forward that computes ``labelled_loss`` for batches with labels; without labels it is
    unchanged.

    ``row``: a batch of one row with labels, on which the new loss is compared with the model's own (one
    forward pass each, no gradients). If they differ, the model stays as it was and the result is False: its
    loss is more than the cross entropy of its head (such as a router's).
    """
    import torch

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    usual, was_replaced = base.forward, "forward" in vars(base)
    expected = None if row is None else _evaluate_loss(model, row)

    def forward(
        self: Any, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **more: Any
    ) -> Any:
        if labels is None:
            return usual(input_ids=input_ids, attention_mask=attention_mask, **more)
        from transformers.modeling_outputs import CausalLMOutputWithPast

        text = self.config.get_text_config()
        hidden = _hidden_states(self, usual, input_ids, attention_mask, labels, more)
        head = self.get_output_embeddings()
        loss = labelled_loss(
            hidden,
            labels,
            lambda states: head(states.to(head.weight.dtype)),
            more.get("num_items_in_batch"),
            softcap=getattr(text, "final_logit_softcapping", None),
            scale=getattr(text, "logit_scale", None) or 1.0,
            chunk=logit_chunk_rows(text.vocab_size),
        )
        return CausalLMOutputWithPast(loss=loss)

    if hasattr(usual, "__func__"):  # transformers and PEFT read which arguments a model takes
        forward.__signature__ = inspect.signature(usual.__func__)  # type: ignore[attr-defined]
    base.forward = types.MethodType(forward, base)
    if expected is None:
        return True
    loss = _evaluate_loss(model, row or {})
    if torch.isfinite(loss) and abs(loss - expected) <= _AGREES * max(abs(expected), 1e-3):
        return True
    if was_replaced:
        base.forward = usual
    else:
        del base.forward
    return False


def make_labelled_trainer(trainer_class: Any) -> Any:
    """TRL's trainer with the loss of ``attach_labelled_loss``, without TRL's metrics, which need all logits.

    ``model_accepts_loss_kwargs`` is set: the loss is normalised by the labels of the whole step, even if the
    model's own loss is not.
    """
    from transformers import Trainer

    class LabelledTrainer(trainer_class):  # type: ignore[misc]
        labelled = False

        def use_labelled_loss(self) -> None:
            self.labelled = self.model_accepts_loss_kwargs = self._loss_shifts_labels = True

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if not self.labelled:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            # By keyword: Unsloth's patch of transformers' step looks for it there.
            return Trainer.compute_loss(
                self, model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )

    return LabelledTrainer


def _hidden_states(
    model: Any, usual: Any, input_ids: Any, attention_mask: Any, labels: Any, more: dict[str, Any]
) -> Any:
    """The states before the head. On a GPU Unsloth replaces forwards, and with them the masks, so its own
    switch is used to get the states.
    """
    import torch

    if labels.device.type == "cuda" and not vars(model).get(_IGNORED):
        with _environment_switch(_HIDDEN):
            states = usual(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **more).logits
        # Without the switch Unsloth returns a placeholder, whose every attribute is a function.
        if (
            isinstance(states, torch.Tensor)
            and states.shape[-1] == model.config.get_text_config().hidden_size
        ):
            return states
        vars(model)[_IGNORED] = True
    named = {name: value for name, value in more.items() if value is not None}
    passed = {name: value for name, value in named.items() if name not in _NOT_OF_THE_BACKBONE}
    backbone = getattr(model, model.base_model_prefix)
    return backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **passed)[0]


@contextmanager
def _environment_switch(name: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _evaluate_loss(model: Any, row: dict[str, Any]) -> Any:
    import torch

    training = model.training
    model.eval()  # no dropout: the two losses must be the same
    try:
        # From the logits of the row: to compile Unsloth's fused loss takes a minute.
        with torch.no_grad(), _environment_switch(_LOGITS):
            return model(**row).loss.detach().float()
    finally:
        model.train(training)


def enable_labelled_loss(trainer: Any, model: Any, row: EncodedRow, device: Any, half: str | None) -> None:
    """Compute logits only where there are labels, if that gives the model's own loss on a row; otherwise log
    a note and leave the loss alone.
    """
    import torch

    ids = torch.tensor([row.input_ids], device=device)
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([row.labels], device=device),
    }
    with torch.autocast(device.type, dtype=getattr(torch, half or "bfloat16"), enabled=half is not None):
        agrees = attach_labelled_loss(model, batch)
    if agrees:
        trainer.use_labelled_loss()
    else:
        log_note(
            "the model's loss is not the cross entropy of its labelled positions alone: the model computes it"
            " itself, which takes longer"
        )
