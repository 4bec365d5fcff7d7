"""Rationales for training rows: the model's own reasoning if it reached the key (rejection sampling).

In: training rows, an engine (or the settings to open one). Out: the rows with a ``response``, and counts for
the data card. ``prompting.cot`` words and reads the prompts, as in an evaluation with ``--output-type cot``.
Knows nothing of files.

The shortest attempt that states the key is kept, because longer ones mostly contain more detours. Forced
answers do not count, nor do attempts with fewer than MIN_REASONING characters before the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kmmlu_fast.core.schema import OPTION_LETTERS, Prediction, Question
from kmmlu_fast.data.alpaca import SftRow
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.evaluation import runner
from kmmlu_fast.prompting.answer_extraction import EXPLICIT, LADDER, extract_answer
from kmmlu_fast.prompting.tokens import TokenisedQuestion, check_prompt_lengths, render_and_tokenise

if TYPE_CHECKING:
    from kmmlu_fast.sampling.config import SampleFlags


MIN_REASONING = 20
_EXPLICIT = {name: LADDER[name] for name in EXPLICIT}


class _PredictionCollector:
    """A sink that keeps predictions by question id."""

    def __init__(self) -> None:
        self.predictions: dict[str, Prediction] = {}

    def append(self, prediction: Prediction) -> None:
        self.predictions[prediction.question_id] = prediction


def shortest_correct_response(texts: Sequence[str], question: Question) -> str | None:
    """The shortest of ``texts`` that reasons and states the key, ending in one line ``정답: X``, or None."""
    responses = [_training_response(text, question) for text in texts]
    return min(filter(None, responses), key=lambda text: (len(text), text), default=None)


def _training_response(text: str, question: Question) -> str | None:
    """The text as a training response, or None if it does not reason or does not state the key."""
    body = text.rpartition("</think>")[2].split("\n문제:")[0].strip()
    reading = extract_answer(body, question.options, ladder=_EXPLICIT)
    if reading.letter != question.answer:
        return None
    lines = body.split("\n")
    if reading.rung == "final_line":
        lines = lines[:-1]
    reasoning = "\n".join(lines).strip()
    return f"{reasoning}\n정답: {question.answer}" if len(reasoning) >= MIN_REASONING else None


def generate_attempts(
    engine: Engine, asked: Sequence[TokenisedQuestion], method: Any
) -> dict[str, Prediction]:
    """Every question's attempts, by question id."""
    sink = _PredictionCollector()
    runner.ask_questions(engine, asked, method, None, sink, label="rationales")
    return sink.predictions


def attach_rationales(
    rows: Sequence[SftRow], predictions: dict[str, Prediction], missing: str
) -> tuple[list[SftRow], int]:
    """Rows with their rationales, and how many have none; these keep the letter alone, or go ("drop").

    ``predictions`` have the ids of ``questions_with_repeat_ids``.
    """
    kept, without = [], 0
    for row, question in zip(rows, questions_with_repeat_ids(rows), strict=True):
        response = shortest_correct_response(predictions[question.question_id].texts or [], row.question)
        without += response is None
        if response is not None or missing == "answer":
            kept.append(replace(row, response=response))
    return kept, without


def questions_with_repeat_ids(rows: Sequence[SftRow]) -> list[Question]:
    """The rows' questions, with ids that distinguish repeated uses of one question."""
    return [replace(row.question, question_id=f"{row.question.question_id}#{row.repeat}") for row in rows]


def add_rationales(
    rows: Sequence[SftRow], config: SampleFlags, engine: Engine | None = None, tokenizer: Any = None
) -> tuple[list[SftRow], dict[str, Any]]:
    """The rows with the model's rationales, and the counts for the card. Opens an engine if none is given."""
    from kmmlu_fast.engines import factory
    from kmmlu_fast.models import model as models
    from kmmlu_fast.prompting.cot_tokens import build_chain_of_thought
    from kmmlu_fast.prompting.cot_wording import default_cot_style

    model = None
    if tokenizer is None:
        model = models.resolve_model(config.model, config.revision, config.trust_remote_code)
        tokenizer = models.load_tokenizer(model)
    method = build_chain_of_thought(
        default_cot_style(tokenizer),
        tokenizer,
        max_tokens=config.rationale_tokens,
        num_samples=config.rationale_samples,
        temperature=config.temperature,
        seed=config.seed,
        letters=OPTION_LETTERS[: max(len(row.question.options) for row in rows)],
    )
    questions = questions_with_repeat_ids(rows)
    no_exemplars: dict[str, list[Question]] = {question.subject: [] for question in questions}
    asked, _ = render_and_tokenise(questions, no_exemplars, method, tokenizer)
    opened = engine is None
    if engine is None:
        assert model is not None  # an engine is passed together with its tokenizer
        lengths = {item.question.question_id: max(map(len, item.token_ids)) for item in asked}
        needed = max(lengths.values()) + method.output_tokens + 32
        max_model_len = config.max_model_len or min(needed, model.context_tokens)
        check_prompt_lengths(lengths, max_model_len, method.output_tokens)
        engine = factory.open_engine(config, model, [], max_model_len)
    try:
        predictions = generate_attempts(engine, asked, method)
    finally:
        if opened:
            engine.close()
    kept, without = attach_rationales(rows, predictions, config.rationale_missing)
    became = "left out of the file" if config.rationale_missing == "drop" else "kept with the letter alone"
    return kept, {
        "asked": len(rows),
        "with": len(rows) - without,
        "without": without,
        "became": became,
        "samples": config.rationale_samples,
        "model": config.model,
        "temperature": config.temperature,
    }
