"""A training row as the model sees it: token ids, and which are trained on. Knows nothing of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MASKED = -100  # the label that the losses of transformers and TRL ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRow:
    """One row. The tokens after the prompt are trained on; with ``mask``, only those for which it is true."""

    question_id: str
    answer: str  # the letter; "" if the row is not a question
    input_ids: tuple[int, ...]
    prompt_tokens: int  # before the first trained token
    cut_tokens: int = 0  # tokens cut to fit
    num_options: int = 4  # of its question, if it is one
    mask: tuple[bool, ...] | None = None  # one per token; None: everything after the prompt is trained on

    @property
    def labels(self) -> list[int]:
        if self.mask is None:
            return [MASKED] * self.prompt_tokens + list(self.input_ids[self.prompt_tokens :])
        pairs = zip(self.input_ids, self.mask, strict=True)
        return [token if trained else MASKED for token, trained in pairs]


def response_ids(context: list[int], whole: list[int], response: str, tokenizer: Any) -> Sequence[int]:
    """The response's tokens after the prompt's (``context``). ``whole``: both tokenised together.

    If that changes the prompt's own last tokens, the response is tokenised alone: evaluation sends the
    prompt's ids unchanged.
    """
    if whole[: len(context)] == context:
        return whole[len(context) :]
    alone: list[int] = tokenizer(response, add_special_tokens=False)["input_ids"]
    return alone


def count_trained_tokens(row: EncodedRow) -> int:
    """How many of the row's tokens are trained on."""
    return sum(label != MASKED for label in row.labels)
