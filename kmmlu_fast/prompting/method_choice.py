"""How the questions are asked: prompt style, method, the letters' tokens, and the check that every prompt
bears them out.

In: what is wanted (``PromptSettings``), questions, exemplars, a tokenizer. Out: a method and the rendered prompts;
ConfigError where the wishes or the adapters contradict each other. Knows nothing of engines, runs or command
lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.letters import rotate_question
from kmmlu_fast.core.schema import OPTION_LETTERS, Adapter, Question
from kmmlu_fast.prompting.methods import (
    DIRECT_MAX_TOKENS,
    ContinuationChoice,
    GenerateUntil,
    Method,
    MultipleChoice,
)
from kmmlu_fast.prompting.prompts import (
    ENDING_TOKENS,
    LetterTokens,
    Prompt,
    encode_prompts,
    letter_tokens,
    render_prompt,
)
from kmmlu_fast.prompting.rotations import ALL, Rotations, rotation_shifts
from kmmlu_fast.prompting.tokens import TokenIds, check_prompt_lengths, render_all_prompts


class PromptSettings(Protocol):
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


def choose_style(config: PromptSettings, adapters: list[Adapter], tokenizer: Any) -> str:
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
        from kmmlu_fast.prompting.cot_wording import default_cot_style

        return default_cot_style(tokenizer)
    return "lm-eval"


def template_mismatch_notes(adapters: list[Adapter], template: str) -> list[str]:
    return [
        f"adapter {adapter.name} was trained with another template (digest {adapter.template_digest}, here"
        f" {template}): the prompts differ"
        for adapter in adapters
        if adapter.template_digest and adapter.template_digest != template
    ]


def choose_method(
    config: PromptSettings,
    style: str,
    questions: Sequence[Question],
    exemplars: Mapping[str, Sequence[Question]],
    tokenizer: Any,
) -> tuple[Method, list[list[Prompt]], tuple[int, ...], list[str]]:
    """The method with its letters' tokens checked on a prompt of each subject, every rendered prompt, the
    letters' tokens for probes, and notes for the run.
    """
    notes: list[str] = []
    method: Method
    if config.output_type == "cot":
        from kmmlu_fast.prompting.cot_tokens import build_chain_of_thought

        method = reasoning = build_chain_of_thought(
            style,
            tokenizer,
            max_tokens=config.max_tokens,
            num_samples=config.num_samples,
            temperature=config.temperature,
            top_p=config.top_p,
            seed=config.seed,
            below=config.cot_below,
            thinking=config.thinking,
            letters=letters_for_most_options(questions),
        )
        ids: tuple[int, ...] | None = reasoning.force_letter_ids
    else:
        count = _rotation_count(config.rotations, questions)
        found = prompt_letter_tokens(style, questions, exemplars, tokenizer, count)
        ids = found.ids
        if config.output_type == "generate_until":
            seed = config.seed if config.temperature > 0 else None
            method = GenerateUntil(
                style, config.max_tokens or DIRECT_MAX_TOKENS, config.temperature, config.top_p, seed
            )
        else:
            method, notes = _scoring_method(style, found, questions)
            method = method if count == 1 else Rotations(method, count)
    return (
        method,
        render_all_prompts(questions, exemplars, method, tokenizer),
        ids or _fallback_probe_ids(tokenizer),
        notes,
    )


def letters_for_most_options(questions: Sequence[Question]) -> tuple[str, ...]:
    """The letters of the question with the most options."""
    return OPTION_LETTERS[: max(len(question.options) for question in questions)]


def prompt_letter_tokens(
    style: str,
    questions: Sequence[Question],
    exemplars: Mapping[str, Sequence[Question]],
    tokenizer: Any,
    count: int = 1,
) -> LetterTokens:
    """The letters' tokens, as the prompts of one question a subject have them (under ``count`` orders of its
    options, as ``Rotations`` takes it).
    """
    some = {question.subject: question for question in questions}.values()
    shown = [
        render_prompt(rotate_question(question, shift), exemplars[question.subject], style, tokenizer)
        for question in some
        for shift in ([0] if count == 1 else rotation_shifts(question, count))
    ]
    return letter_tokens(
        tokenizer, shown, encode_prompts(tokenizer, shown), style, letters_for_most_options(questions)
    )


def _scoring_method(
    style: str, found: LetterTokens, questions: Sequence[Question]
) -> tuple[Method, list[str]]:
    """Letters from one prefill where each is a token, else as continuations, and a note that says so."""
    if found.ids:
        return MultipleChoice(style, found.ids), []
    four = len(letters_for_most_options(questions)) == 4
    prefills = "four prefills a question" if four else "one prefill a letter"
    note = f"letters are scored as continuations, {prefills}: {found.reason}"
    return ContinuationChoice(style), [note]


def _rotation_count(rotations: int | str, questions: Sequence[Question]) -> int:
    """--rotations as ``Rotations`` takes it; ConfigError where four of them would not bring every option to
    every place.
    """
    counts = {len(question.options) for question in questions}
    if rotations == 4 and counts != {4}:
        raise ConfigError(
            f"--rotations 4: questions here have {' or '.join(map(str, sorted(counts)))} options; give"
            " --rotations all (as many orders as a question has options) or 2"
        )
    return ALL if rotations == "all" else int(rotations)


class PromptChecker:
    """What every prompt must hold once it is tokenised; found to hold on some of them before, here on all."""

    def __init__(self, style: str, tokenizer: Any, method: Method, max_model_len: int) -> None:
        self._style, self._tokenizer, self._max_model_len = style, tokenizer, max_model_len
        self._output_tokens = method.output_tokens
        self._letters = method.letter_ids
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
        check_prompt_lengths(tokens, self._max_model_len, self._output_tokens)
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


def _fallback_probe_ids(tokenizer: Any) -> tuple[int, ...]:
    """Four token ids to probe with where the letters have none of their own."""
    return tuple(range(min(100, len(tokenizer) - 4), min(104, len(tokenizer))))
