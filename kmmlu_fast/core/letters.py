"""Letters: reading log-probabilities, softmax, rotating and reordering options, lm-eval's exact match.

In: numbers, questions, texts. Out: letters and log-probabilities (natural logarithms, A first, one per
option). Knows nothing of prompts or engines.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS, Question

MAX_LOGPROB = 1e-3  # nats above 0 that rounding can cause; more cannot be a log-probability
_IGNORED = str.maketrans("", "", string.punctuation + " ")


# In every text in which ``position_reference_pattern`` finds something; without look-around, for polars.
REFERENCE_HINT = r"[①-⑩]|번|위|이상|[A-J][\s\x1c-\x1f]*(?:와|과|,|및|and)[\s\x1c-\x1f]*[A-J]"


@cache
def position_reference_pattern(options: int) -> re.Pattern[str]:
    """Matches an option that refers to others by number or position, given the number of options."""
    most = max(options, len(LETTERS))
    figures = "[1-9]|10" if most > 9 else f"[1-{most}]"
    circled = "[①-⑩]" if most > 9 else "[①-⑨]"
    letter = f"[A-{OPTION_LETTERS[most - 1]}]"
    return re.compile(
        rf"{circled}|(?<!\d)(?:{figures})\s*번(?!째)|(?:위|이상)의?\s*(?:모두|전부|것|항|보기|사항|내용)|"
        rf"\b{letter}\s*(?:와|과|,|및|and)\s*{letter}\b"
    )


def names_other_options(options: Sequence[str]) -> bool:
    """Whether one of the options refers to others by number or position ("1번과 2번", "위의 모두")."""
    apart = "\0".join(options)  # no match crosses it
    return position_reference_pattern(len(options)).search(apart) is not None


def is_position_bound(question: Question) -> bool:
    """Whether the options must keep their order: one of them refers to others by number or position."""
    return names_other_options(question.options)


def rotate_question(question: Question, shift: int) -> Question:
    """The question with its options moved up by ``shift``: letter i now labels original option i + shift.
    The answer moves along.
    """
    letters = question.letters
    shift %= len(letters)
    return reorder_question(question, "".join(letters[shift:] + letters[:shift]))


def normalize_logprobs(values: Sequence[float]) -> list[float]:
    """Log-probabilities conditional on the answer being one of these."""
    top = max(values)
    total = top + math.log(sum(math.exp(value - top) for value in values))
    return [value - total for value in values]


@dataclass(frozen=True, slots=True)
class LetterReading:
    """The best letter by log-probability (natural log, A first)."""

    letter: str
    margin: float  # lead over the second-best letter, nats
    confidence: float  # softmax share


def read_letters(logprobs: Sequence[float]) -> LetterReading:
    """argmax over the letters, the earlier letter on an exact tie (as numpy's argmax in lm-eval does)."""
    top = max(logprobs)
    if any(map(math.isnan, logprobs)) or top > MAX_LOGPROB or top == -math.inf:
        raise EngineError(
            f"the model gives the letters log-probabilities of {list(logprobs)}: its numbers overflow, or its"
            " weights are damaged; try --dtype float32, or another copy of the model"
        )
    total = sum([math.exp(value - top) for value in logprobs])
    return LetterReading(OPTION_LETTERS[logprobs.index(top)], logprob_margin(logprobs), 1.0 / total)


def argmax_index(logprobs: Sequence[float]) -> int:
    """argmax; the earlier index on an exact tie."""
    return max(range(len(logprobs)), key=lambda index: logprobs[index])


def logprob_margin(logprobs: Sequence[float]) -> float:
    """Best minus second-best, nats."""
    best, second = sorted(logprobs, reverse=True)[:2]
    return best - second


def exact_match(text: str, letters: Sequence[str] = LETTERS) -> str | None:
    """The letter if the text is one of ``letters``, ignoring case, ASCII punctuation and spaces
    (lm-eval ``kmmlu_direct``).
    """
    letter = text.translate(_IGNORED).upper()
    return letter if letter in letters else None


def reorder_question(question: Question, order: str) -> Question:
    """The question with its options in ``order`` (source letters, "CABD"); the answer follows its option."""
    letters = question.letters
    options = tuple(question.options[letters.index(letter)] for letter in order)
    return replace(question, options=options, answer=letters[order.index(question.answer)])
