"""Answers of a model state for the release gate: letters' log-probabilities, and a few generated texts.

In: token ids, an engine's settings. Out: rows of log-probabilities in the order of the prompts, texts. The
same token ids go to every state, so that a difference is the weights'. Knows nothing of what it means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter, Candidates, Completion, Generation, Question, Request
from kmmlu_fast.engines.config import EngineConfig
from kmmlu_fast.engines.factory import open_engine
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.machine.model_size import repository_quantization
from kmmlu_fast.models.model import Model
from kmmlu_fast.prompting.prompts import encode_prompts, letter_tokens, render_prompt
from kmmlu_fast.shipping.artefact import Artefact

TEXT_TOKENS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePrompts:
    """The gate's questions as the reference's token ids, and the letters' tokens."""

    questions: tuple[Question, ...]
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    letter_ids: tuple[int, ...]

    @property
    def keys(self) -> list[int]:
        """The right option of each question."""
        return [question.letters.index(question.answer) for question in self.questions]

    @property
    def context_tokens(self) -> int:
        return max(map(len, self.token_ids)) + TEXT_TOKENS + 8


def make_gate_prompts(questions: Sequence[Question], style: str, tokenizer: object) -> GatePrompts:
    """Render and tokenise as evaluation does. ConfigError if a letter is several tokens after the prompt."""
    prompts = [render_prompt(question, [], style, tokenizer) for question in questions]
    ids = encode_prompts(tokenizer, prompts)
    most = max(questions, key=lambda question: len(question.options)).letters
    letters = letter_tokens(tokenizer, prompts, ids, style, most)
    if letters.ids is None:
        raise ConfigError(f"--prompt-style {style}: {letters.reason}; give another style")
    return GatePrompts(
        questions=tuple(questions),
        texts=tuple(prompt.text for prompt in prompts),
        token_ids=tuple(map(tuple, ids)),
        letter_ids=letters.ids,
    )


def ask_letters(
    engine: Engine, prompts: GatePrompts, count: int | None = None, adapter: Adapter | None = None
) -> list[tuple[float, ...]]:
    """The letters' log-probabilities of the first ``count`` prompts."""
    requests = [
        Request(
            question_id=str(place),
            stage="letters",
            token_ids=ids,
            want=Candidates(prompts.letter_ids[: len(question.options)]),
            adapter=adapter,
        )
        for place, (question, ids) in enumerate(
            zip(prompts.questions[:count], prompts.token_ids[:count], strict=True)
        )
    ]
    rows = {int(reply.request.question_id): reply.logprobs for reply in engine.generate(requests)}
    return [rows[place] for place in range(len(requests))]


def ask_texts(
    engine: Engine, prompts: GatePrompts, count: int, adapter: Adapter | None = None
) -> list[Completion]:
    """Greedy texts after the first ``count`` prompts."""
    requests = [
        Request(
            question_id=str(place),
            stage="text",
            token_ids=ids,
            want=Generation(max_tokens=TEXT_TOKENS),
            adapter=adapter,
        )
        for place, ids in enumerate(prompts.token_ids[:count])
    ]
    texts = {int(reply.request.question_id): reply.completions[0] for reply in engine.generate(requests)}
    return [texts[place] for place in range(len(requests))]


@contextmanager
def reference_engine(
    model: Model,
    adapters: Sequence[Adapter],
    context_tokens: int,
    quantization: str | None = None,
    merged: str | None = None,
) -> Iterator[Engine]:
    """transformers with the adapter beside the base, as PEFT applies it; ``quantization`` nf4: as trained;
    ``merged``: the directory of a merged copy, in the base's place.
    """
    config = EngineConfig(
        model=model.path,
        engine="transformers",
        quantization=quantization,
        trust_remote_code=model.trust_remote_code,
    )
    engine = open_engine(config, model, list(adapters), context_tokens, merged, is_users_choice=False)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def artefact_engine(artefact: Artefact, context_tokens: int) -> Iterator[Engine]:
    """The engine that serves the artefact: llama.cpp, transformers, vLLM (quantised repositories), a
    server."""
    if artefact.kind == "gguf":
        config = EngineConfig(model=str(artefact.path), engine="llama-cpp")
        model = Model(artefact.name, str(artefact.path), None, "")
    elif artefact.kind == "server":
        config = EngineConfig(model=artefact.name, engine="server", base_url=artefact.base_url)
        model = Model(artefact.name, artefact.name, None, "")
    else:
        assert artefact.model is not None
        stored_as = repository_quantization(artefact.model.config())
        by_transformers = stored_as in (None, "bitsandbytes")
        # What is stored in float32 is asked in float32: "auto" would round it to 16 bit.
        dtype = "float32" if artefact.stored_dtype == "float32" else "auto"
        engine_name = "transformers" if by_transformers else "vllm"
        config = EngineConfig(model=artefact.model.path, engine=engine_name, dtype=dtype)
        model = artefact.model
    engine = open_engine(config, model, [], context_tokens, is_users_choice=False)
    try:
        yield engine
    finally:
        engine.close()
