"""Measures the model in training on the held-out rows: loss, and the letters it would answer.

In: a PEFT model, encoded rows. Out: a ``HeldOutMeasurement``. Needs only torch, so it works with a model of
Unsloth's or of plain PEFT. Knows nothing of TRL, files or logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.training.encoded import MASKED, EncodedRow
from kmmlu_fast.training.held_out import HeldOutMeasurement, summarise_held_out

_PASS_TOKENS = 16_384  # padded tokens in one forward pass at most
LOGIT_ROWS = 256  # positions of a response that go through ``lm_head`` at a time


def measure_held_out(
    model: Any,
    rows: list[EncodedRow],
    asked: list[EncodedRow],
    letter_ids: list[list[int]],
    step: int,
    half: str | None = None,
    pass_tokens: int = _PASS_TOKENS,
) -> HeldOutMeasurement:
    """Loss on ``rows``, and the letters predicted for ``asked`` (questions answered by the letter alone).

    The letter is the most likely one after the prompt, as in evaluation. The loss is the mean over response
    tokens, as in training. ``pass_tokens``: padded tokens in one forward pass; with those of a training
    step's micro-batch, measuring needs no more memory than the step did.
    """
    import torch

    common = _common_prefix(letter_ids)
    choice = [ids[common] for ids in letter_ids]

    masses: list[float] = []  # known if the letters are one token each

    def best_letter(row: EncodedRow, logits: Any) -> str:
        letters = logits[common, choice[: row.num_options]]
        if common == 0:
            masses.append(float((letters - logits[0].logsumexp(-1)).exp().sum()))
        return OPTION_LETTERS[int(letters.argmax())]

    loss_sum, loss_tokens = 0.0, 0
    predicted: dict[int, str] = {}
    was_training = model.training
    model.eval()
    try:
        for row, first, logits in _response_logits(model, rows, half, pass_tokens):
            start = row.prompt_tokens + first
            targets = torch.tensor(row.labels[start : start + len(logits)], device=logits.device)
            loss_sum += float(
                torch.nn.functional.cross_entropy(logits, targets, reduction="sum", ignore_index=MASKED)
            )
            loss_tokens += int((targets != MASKED).sum())
            if first == 0 and asked is rows:
                predicted[id(row)] = best_letter(row, logits)
        if asked is not rows:
            for row, first, logits in _response_logits(model, asked, half, pass_tokens):
                if first == 0:
                    predicted[id(row)] = best_letter(row, logits)
    finally:
        model.train(was_training)
    answers = [row.answer for row in asked]
    return summarise_held_out(
        step, loss_sum / loss_tokens, answers, [predicted[id(row)] for row in asked], masses
    )


def _response_logits(
    model: Any, rows: list[EncodedRow], half: str | None, pass_tokens: int
) -> Iterator[tuple[EncodedRow, int, Any]]:
    """(row, the piece's first token, logits) for each row: the float32 logits before its response tokens, in
    pieces.

    Rows are padded on the right, and a causal model's logits do not depend on what follows, so no mask is
    needed. Only the positions that are read go through ``lm_head``.
    """
    import torch

    base = model.get_base_model()
    head = base.get_output_embeddings()
    softcap = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
    # Not the first parameters' device: on small GPUs Unsloth keeps the input embeddings on the host.
    device = head.weight.device
    for batch in _batches_by_length(rows, pass_tokens):
        longest = max(len(row.input_ids) for row in batch)
        padded = [[*row.input_ids, *[0] * (longest - len(row.input_ids))] for row in batch]
        ids = torch.tensor(padded, device=device)
        with (
            torch.no_grad(),
            torch.autocast(device.type, dtype=getattr(torch, half or "bfloat16"), enabled=half is not None),
        ):
            hidden = getattr(base, base.base_model_prefix)(input_ids=ids, use_cache=False)[0]
            for row, states in zip(batch, hidden, strict=True):
                before = states[row.prompt_tokens - 1 : len(row.input_ids) - 1]
                for first in range(0, len(before), LOGIT_ROWS):
                    logits = head(before[first : first + LOGIT_ROWS].to(head.weight.dtype)).float()
                    yield row, first, softcap * torch.tanh(logits / softcap) if softcap else logits


def _batches_by_length(rows: list[EncodedRow], pass_tokens: int) -> Iterator[list[EncodedRow]]:
    batch: list[EncodedRow] = []
    for row in sorted(rows, key=lambda r: len(r.input_ids)):
        if batch and (len(batch) + 1) * len(row.input_ids) > pass_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _common_prefix(letter_ids: list[list[int]]) -> int:
    """How many first tokens the letters share; 0 if each is one token."""
    columns = [set(tokens) for tokens in zip(*letter_ids, strict=False)]
    common = next((i for i, tokens in enumerate(columns) if len(tokens) > 1), len(columns))
    if letter_ids and (common == len(columns) or len(columns[common]) < len(letter_ids)):
        raise TrainError(
            f"the letters do not differ in one token of this tokenizer ({letter_ids}); use --held-out 0"
            " --keep last"
        )
    return common
