"""Makes predictions, and reads their log-probabilities back.

In: a question and the letter read from its answer. Out: a ``Prediction`` with the question's own fields; from
a prediction, its letters' log-probabilities and the mass on them. Knows nothing of how an answer is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kmmlu_fast.core.digests import tokens_digest
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS, Prediction, Question
from kmmlu_fast.prompting.letter_forms import BARE, SPACED, letter_mass

_FORM_COLUMNS = {SPACED: ("spaced_logprobs", "spaced_mass"), BARE: ("bare_logprobs", "bare_mass")}


def make_prediction(
    question: Question,
    prediction: str | None,
    read_by: str | None,
    prompt_ids: Sequence[int],
    *,
    logprobs: Sequence[float] | None = None,
    forms: Mapping[str, Sequence[float]] | None = None,
    **fields: Any,
) -> Prediction:
    """A Prediction with the question's own fields filled in.

    ``logprobs`` (one per option, A first) is spread over the columns that hold them; so is ``forms``, written
    form -> log-probabilities.
    """
    if logprobs is not None:
        fields.update(zip(LOGPROB_COLUMNS, logprobs, strict=False))
        if len(logprobs) > len(LETTERS):
            fields["option_logprobs"] = list(logprobs)
    for form, values in (forms or {}).items():
        column, mass = _FORM_COLUMNS[form]
        fields[column], fields[mass] = list(values), letter_mass(values)
    return Prediction(
        question_id=question.question_id,
        subject=question.subject,
        supercategory=question.supercategory,
        split=question.split,
        row=question.row,
        answer=question.answer,
        prediction=prediction,
        correct=prediction == question.answer,
        read_by=read_by,
        prompt_tokens=len(prompt_ids),
        prompt_digest=tokens_digest(prompt_ids),
        num_options=len(question.options),
        **fields,
    )


def prediction_logprobs(prediction: Prediction) -> list[float]:
    """The log-probabilities of the question's letters, A first (natural logarithms)."""
    if prediction.option_logprobs is not None:
        return list(prediction.option_logprobs)
    four = (prediction.logprob_A, prediction.logprob_B, prediction.logprob_C, prediction.logprob_D)
    return [value for value in four if value is not None]


def prediction_letter_mass(prediction: Prediction) -> float | None:
    """The probability that the next token is one of the question's letters, in whichever written form was
    read, 0-1; None if it is not known: letters of several tokens, or a model that gives no numbers.
    """
    forms = (prediction.spaced_logprobs, prediction.bare_logprobs)
    values = [value for logprobs in forms if logprobs is not None for value in logprobs]
    if not values or any(math.isnan(value) for value in values):
        return None
    return letter_mass(values)
