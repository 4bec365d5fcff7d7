"""The written forms of a letter after a prompt: " A" with a space, as lm-eval scores it, and the bare "A".

In: a prompt style, a tokenizer; log-probabilities of both forms. Out: the text between prompt and letter; the
log-probabilities of a letter however it is written, and the mass on each form. Knows nothing of engines or
runs.

They are two tokens with two probabilities, and what everybody scores is often not what the model would
write: after "정답：" most models put nearly all of the next token's probability on the bare letter.
``either`` sums a letter's forms (surface form competition: Holtzman et al. 2021, EMNLP).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from kmmlu_fast.prompting.prompts import answer_delimiter

SPACED, BARE, EITHER = "lm-eval", "bare", "either"
LetterForm = Literal["lm-eval", "bare", "either"]
WRITTEN_FORMS = (SPACED, BARE)
_PLAIN_DELIMITERS = {SPACED: " ", BARE: ""}


def style_letter_form(style: str, tokenizer: Any = None) -> str:
    """The form that a prompt style scores by default: what its training rows write."""
    return SPACED if answer_delimiter(style, tokenizer) else BARE


def other_letter_form(form: str) -> str:
    """The other of the two written forms."""
    return BARE if form == SPACED else SPACED


def form_delimiter(form: str, style: str, tokenizer: Any = None) -> str:
    """The text between a prompt of this style and a letter in this form."""
    own = answer_delimiter(style, tokenizer)
    return own if form == style_letter_form(style, tokenizer) else _PLAIN_DELIMITERS[form]


def sum_letter_forms(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Log-probability of each letter, however it is written: log-sum-exp of its two forms."""
    return [_add_logprobs(a, b) for a, b in zip(one, other, strict=True)]


def _add_logprobs(one: float, other: float) -> float:
    top = max(one, other)
    if not math.isfinite(top):  # NaN, or both impossible
        return one + other if math.isnan(one) or math.isnan(other) else top
    return top + math.log(math.exp(one - top) + math.exp(other - top))


def letter_mass(logprobs: Sequence[float]) -> float:
    """The probability that the next token is one of these letters, 0-1 (rounding may exceed 1; it is cut)."""
    return min(1.0, sum(map(math.exp, logprobs)))
