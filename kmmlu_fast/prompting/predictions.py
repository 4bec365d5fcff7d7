"""Makes predictions, and reads their log-probabilities back.

In: a question and the letter read from its answer. Out: a ``Prediction`` with the question's own fields; from
a prediction, its letters' log-probabilities. Knows nothing of how an answer is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kmmlu_fast.core.digests import tokens_digest
from kmmlu_fast.core.schema import LETTERS, Prediction, Question
from kmmlu_fast.prompting.letter_forms import SPACED, letter_mass


def make_prediction(
    question: Question, prediction: str | None, read_by: str | None, prompt_ids: Sequence[int], **fields: Any
) -> Prediction:
    """A Prediction with the question's own fields filled in.

    ``logprobs`` (one per option, A first) is spread over the columns that hold them; so is ``forms``, written
    form -> log-probabilities.
    """
    logprobs = fields.pop("logprobs", None)
    if logprobs is not None:
        fields |= {f"logprob_{letter}": value for letter, value in zip(LETTERS, logprobs, strict=False)}
        fields["option_logprobs"] = list(logprobs) if len(logprobs) > len(LETTERS) else None
    for form, values in fields.pop("forms", {}).items():
        name = "spaced" if form == SPACED else "bare"
        fields |= {f"{name}_logprobs": list(values), f"{name}_mass": letter_mass(values)}
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
