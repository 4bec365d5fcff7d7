"""How the questions are asked: prompt style, method, the letters' tokens, and the check that every prompt
bears them out.

In: what is wanted (``Asking``), questions, exemplars, a tokenizer. Out: a method and the rendered prompts;
ConfigError where the wishes or the adapters contradict each other. Knows nothing of engines, runs or command
lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from kmmlu_fast.asking.methods import (
    DIRECT_MAX_TOKENS,
    ContinuationChoice,
    GenerateUntil,
    Method,
    MultipleChoice,
)
from kmmlu_fast.asking.prompts import ENDING_TOKENS, Prompt, encode, letter_tokens, template_digest
from kmmlu_fast.asking.tokens import TokenIds, check_lengths, render
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import OPTION_LETTERS, Adapter, Question


class Asking(Protocol):
    """What is wanted of the prompts; ``EvalConfig`` has all of it."""

    @property
    def output_type(self) -> str: ...
    @property
    def prompt_style(self) -> str | None: ...
    @property
    def rotations(self) -> int | str: ...
    @property
    def max_tokens(self) -> int | None: ...
    @property
    def num_samples(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def cot_below(self) -> float | None: ...
    @property
    def thinking(self) -> bool: ...


def choose_style(config: Asking, adapters: list[Adapter], tokenizer: Any) -> str:
    """The style asked for; else the one the adapters were trained with; else the output type's.
    ConfigError where adapters disagree.
    """
    wanted = {adapter.prompt_style for adapter in adapters if adapter.prompt_style}
    if config.prompt_style:
        other = wanted - {config.prompt_style}
        if other:
            raise ConfigError(
                f"--prompt-style {config.prompt_style}: the adapter was trained with"
                f" {' and '.join(sorted(other))}, another wording would measure the wording; leave the flag"
                f" out, or give --prompt-style {sorted(other)[0]}"
            )
        return config.prompt_style
    if len(wanted) > 1:
        raise ConfigError(
            f"the adapters were trained with different prompt styles ({', '.join(sorted(wanted))}); evaluate"
            " them in separate commands"
        )
    if wanted:
        return wanted.pop()
    if config.output_type == "cot":
        from kmmlu_fast.asking.cot import default_style

        return default_style(tokenizer)
    return "lm-eval"


def foreign_templates(adapters: list[Adapter], template: str) -> list[str]:
    return [
        f"adapter {adapter.name} was trained with another template (digest {adapter.template_digest}, here"
        f" {template}): the prompts differ"
        for adapter in adapters
        if adapter.template_digest and adapter.template_digest != template
    ]


def choose_method(
    config: Asking,
    style: str,
    questions: list[Question],
    exemplars: dict[str, list[Question]],
    tokenizer: Any,
) -> tuple[Method, list[list[Prompt]], tuple[int, ...], list[str]]:
    """The method with its letters' tokens checked on a prompt of each subject, every rendered
    prompt, and notes for the run.
    """
    method: Method
    letters = OPTION_LETTERS[: max(len(question.options) for question in questions)]
    if config.output_type == "cot":
        from kmmlu_fast.asking.cot import build_method

        method = build_method(
            style,
            tokenizer,
            max_tokens=config.max_tokens,
            num_samples=config.num_samples,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=config.seed,
            below=config.cot_below,
            thinking=config.thinking,
            letters=letters,
        )
        return method, render(questions, exemplars, method, tokenizer), method.force_letter_ids, []
    wrap = _rotating(config.rotations, questions)
    if config.output_type == "generate_until":
        seed = config.seed if config.temperature > 0 else None
        method = GenerateUntil(
            style, config.max_tokens or DIRECT_MAX_TOKENS, config.temperature, config.top_p, seed
        )
    else:
        method = wrap(MultipleChoice(style, tuple(range(len(letters)))))
    rendered = render(questions, exemplars, method, tokenizer)
    some = list(
        {question.subject: prompts for question, prompts in zip(questions, rendered, strict=True)}.values()
    )
    shown = [prompt for prompts in some for prompt in prompts]
    found = letter_tokens(tokenizer, shown, encode(tokenizer, shown), style, letters)
    if config.output_type == "generate_until":
        return method, rendered, found.ids or _any_candidates(tokenizer), []
    if found.ids:
        return wrap(MultipleChoice(style, found.ids)), rendered, found.ids, []
    method = wrap(ContinuationChoice(style))
    prefills = "four prefills a question" if len(letters) == 4 else "one prefill a letter"
    note = f"letters are scored as continuations, {prefills}: {found.reason}"
    return method, render(questions, exemplars, method, tokenizer), _any_candidates(tokenizer), [note]


def _rotating(rotations: int | str, questions: list[Question]) -> Callable[[Method], Method]:
    """What puts a method under rotations; ConfigError where four of them would not bring every
    option to every place.
    """
    from kmmlu_fast.asking.rotations import ALL, Rotations

    if rotations == 1:
        return lambda inner: inner
    counts = {len(question.options) for question in questions}
    if rotations == 4 and counts != {4}:
        raise ConfigError(
            f"--rotations 4: questions here have {' or '.join(map(str, sorted(counts)))} options; give"
            " --rotations all (as many orders as a question has options) or 2"
        )
    return lambda inner: Rotations(inner, ALL if rotations == "all" else int(rotations))


class PromptChecks:
    """What every prompt must hold once it is tokenised; found to hold on some of them before, here on all."""

    def __init__(
        self, style: str, tokenizer: Any, method: Method, max_model_len: int, output_tokens: int
    ) -> None:
        self._style, self._tokenizer, self._max_model_len, self._output_tokens = (
            style,
            tokenizer,
            max_model_len,
            output_tokens,
        )
        scored = getattr(method, "inner", method)  # under rotations
        self._letters = scored.letter_ids if isinstance(scored, MultipleChoice) else None
        self._endings: set[tuple[int, ...]] = set()

    def __call__(
        self, questions: Sequence[Question], rendered: Sequence[list[Prompt]], token_ids: TokenIds
    ) -> None:
        """ConfigError where a prompt does not fit, or where the letters after it are other
        tokens than those that are scored.
        """
        tokens = {
            question.question_id: max(map(len, ids))
            for question, ids in zip(questions, token_ids, strict=True)
        }
        check_lengths(tokens, self._max_model_len, self._output_tokens)
        if self._letters is None:
            return
        new = {
            tuple(ids[-ENDING_TOKENS:]): (prompt, ids)
            for prompts, rows in zip(rendered, token_ids, strict=True)
            for prompt, ids in zip(prompts, rows, strict=True)
            if tuple(ids[-ENDING_TOKENS:]) not in self._endings
        }
        if not new:
            return
        self._endings |= new.keys()
        names = OPTION_LETTERS[: len(self._letters)]
        letters = letter_tokens(
            self._tokenizer,
            [p for p, _ in new.values()],
            [ids for _, ids in new.values()],
            self._style,
            names,
        )
        if letters.ids != self._letters:
            raise ConfigError(
                "the letters' tokens depend on the question with this tokenizer"
                f" ({letters.reason or 'they differ between prompts'}), so one prefill does not score them;"
                " use --output-type generate_until, or another --prompt-style"
            )


def _any_candidates(tokenizer: Any) -> tuple[int, ...]:
    """Four token ids to probe with where the letters have none of their own."""
    return tuple(range(min(100, len(tokenizer) - 4), min(104, len(tokenizer))))


def template_of(config: Asking, style: str, tokenizer: Any, method: Method, is_kmmlu: bool = True) -> str:
    """The digest of the wording; KMMLU's own reasoning instructions are only part of it where
    KMMLU is asked.
    """
    if config.output_type == "cot":
        from kmmlu_fast.asking.cot import wording_digest

        return wording_digest(method, tokenizer, is_kmmlu)  # type: ignore[arg-type]
    return template_digest(style, tokenizer, thinking=config.thinking)
