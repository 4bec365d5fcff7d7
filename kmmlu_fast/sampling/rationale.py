"""Rationales for training rows: the model's own reasoning, kept only where it reached the key (rejection
sampling).

In: training rows, an engine (or the settings to open one). Out: the rows with a ``response``, and counts of
what was found. The reasoning is asked for and read by ``cot``, so that it is worded as an evaluation with
``--output-type cot`` is. Knows nothing of files.

Of the attempts whose stated answer is the key the shortest is kept: with the same answer, more words are
mostly more detours. Forced answers don't count, nor do attempts with fewer than MIN_REASONING characters
before the answer: they reason about nothing.
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
        self.found: dict[str, Prediction] = {}

    def append(self, prediction: Prediction) -> None:
        self.found[prediction.question_id] = prediction


def shortest_correct_response(texts: Sequence[str], question: Question) -> str | None:
    """The shortest of ``texts`` that reasons and states the key, ended by one line ``정답: X``;
    None where none does.
    """
    kept = [response for text in texts if (response := _training_response(text, question)) is not None]
    return min(kept, key=lambda text: (len(text), text), default=None)


def _training_response(text: str, question: Question) -> str | None:
    """The text as a training response, or None where it is not one."""
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
    return sink.found


def attach_rationales(
    rows: Sequence[SftRow], found: dict[str, Prediction], missing: str
) -> tuple[list[SftRow], int]:
    """Rows with their rationales (ids as ``questions_with_repeat_ids`` gives them), and how many have none:
    these keep the letter alone, or go ("drop").
    """
    kept, without = [], 0
    for row, question in zip(rows, questions_with_repeat_ids(rows), strict=True):
        response = shortest_correct_response(found[question.question_id].texts or [], row.question)
        without += response is None
        if response is not None or missing == "answer":
            kept.append(replace(row, response=response))
    return kept, without


def questions_with_repeat_ids(rows: Sequence[SftRow]) -> list[Question]:
    """The rows' questions under ids that tell repeated uses of one question apart."""
    return [replace(row.question, question_id=f"{row.question.question_id}#{row.repeat}") for row in rows]


def add_rationales(
    rows: Sequence[SftRow], config: SampleFlags, engine: Engine | None = None, tokenizer: Any = None
) -> tuple[list[SftRow], dict[str, Any]]:
    """The rows with rationales where the model has them, and the counts for the card. Opens the
    engine unless one is given.
    """
    from kmmlu_fast.engines import factory as engines
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
    asked, _ = render_and_tokenise(
        questions, {question.subject: [] for question in questions}, method, tokenizer
    )
    opened = engine is None
    if engine is None:
        assert model is not None  # an engine is given together with its tokenizer
        tokens = {item.question.question_id: max(map(len, item.token_ids)) for item in asked}
        length = config.max_model_len or min(
            max(tokens.values()) + method.output_tokens + 32, model.context_tokens
        )
        check_prompt_lengths(tokens, length, method.output_tokens)
        engine = engines.open_engine(config, model, [], length)
    try:
        found = generate_attempts(engine, asked, method)
    finally:
        if opened:
            engine.close()
    kept, without = attach_rationales(rows, found, config.rationale_missing)
    became = "left out of the file" if config.rationale_missing == "drop" else "kept with the letter alone"
    facts = {"asked": len(rows), "with": len(rows) - without, "without": without, "became": became}
    return kept, {
        **facts,
        "samples": config.rationale_samples,
        "model": config.model,
        "temperature": config.temperature,
    }
