"""A training row as the model sees it: token ids, and which of them are trained on. Knows nothing of where
they came from."""

from __future__ import annotations

from dataclasses import dataclass

MASKED = -100  # the label that transformers' and TRL's losses leave out


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRow:
    """One row: ``input_ids[:prompt_tokens]`` is the prompt, the rest is trained on; with ``mask``, only
    where that is true."""

    question_id: str
    answer: str  # the letter; "" where the row asks for none
    input_ids: tuple[int, ...]
    prompt_tokens: int  # before the first token that is trained on
    cut_tokens: int = 0  # tokens cut to fit
    num_options: int = 4  # of its question, where it is one
    mask: tuple[bool, ...] | None = None  # one a token; None: everything after the prompt is trained on

    @property
    def labels(self) -> list[int]:
        if self.mask is not None:
            return [
                token if trained else MASKED for token, trained in zip(self.input_ids, self.mask, strict=True)
            ]
        return [MASKED] * self.prompt_tokens + list(self.input_ids[self.prompt_tokens :])
