"""Chooses how questions are asked: prompt style, method and letter tokens, and checks every prompt for them.

In: settings (``PromptSettings``), questions, exemplars, a tokenizer. Out: a method and the rendered prompts;
ConfigError if settings or adapters contradict each other. Knows nothing of engines, runs or command lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.letters import rotate_question
from kmmlu_fast.core.schema import OPTION_LETTERS, Adapter, Question
from kmmlu_fast.prompting.chat_template import find_chat_template
from kmmlu_fast.prompting.letter_forms import (
    EITHER,
    SPACED,
    form_delimiter,
    other_letter_form,
    style_letter_form,
)
from kmmlu_fast.prompting.methods import (
    DIRECT_MAX_TOKENS,
    DIRECT_STOPS,
    ContinuationChoice,
    GenerateUntil,
    Method,
    MultipleChoice,
)
from kmmlu_fast.prompting.prompt_styles import find_prompt_style
from kmmlu_fast.prompting.prompts import (
    ENDING_TOKENS,
    LetterTokens,
    Prompt,
    encode_prompts,
    find_unknown_id,
    letter_tokens,
    render_prompt,
)
from kmmlu_fast.prompting.protocols import find_protocol
from kmmlu_fast.prompting.rotations import ALL, Rotations, rotation_shifts
from kmmlu_fast.prompting.tokens import TokenIds, check_prompt_lengths, render_all_prompts
from kmmlu_fast.prompting.vote_stopping import VoteStopping

# Of a prompt's tokens: from where on it is said, and refused.
SOME_UNKNOWN, MOST_UNKNOWN = 0.01, 0.2


class PromptSettings(Protocol):
    """The settings that decide the prompts; ``EvalConfig`` has all of them."""

    @property
    def output_type(self) -> str: ...
    @property
    def prompt_style(self) -> str | None: ...
    @property
    def letter_form(self) -> str | None: ...
    @property
    def protocol(self) -> str | None: ...
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
    def vote_stopping(self) -> VoteStopping: ...
    @property
    def thinking_budgets(self) -> list[int]: ...
    @property
    def thinking(self) -> bool: ...
    @property
    def reasoning_parser(self) -> str | None: ...


def choose_style(config: PromptSettings, adapters: list[Adapter], tokenizer: Any) -> str:
    """The style of the settings, else the one the adapters were trained with, else the output type's default.
    ConfigError if they disagree.
    """
    trained = {adapter.prompt_style for adapter in adapters if adapter.prompt_style}
    if config.protocol:  # says itself what is measured
        return find_protocol(config.protocol).style
    if config.prompt_style:
        other = sorted(trained - {config.prompt_style})
        if other:
            raise ConfigError(
                f"--prompt-style {config.prompt_style}: the adapter was trained with {' and '.join(other)};"
                " with another style you would measure the change of wording; leave the flag out, or give"
                f" --prompt-style {other[0]}"
            )
        return config.prompt_style
    if len(trained) > 1:
        raise ConfigError(
            f"the adapters were trained with different prompt styles ({', '.join(sorted(trained))}); evaluate"
            " them in separate commands"
        )
    if trained:
        return trained.pop()
    if config.output_type == "cot":
        from kmmlu_fast.prompting.cot_wording import default_cot_style

        return default_cot_style(tokenizer)
    return "lm-eval"


def template_mismatch_notes(adapters: list[Adapter], template: str) -> list[str]:
    return [
        f"adapter {adapter.name} was trained with another template (digest {adapter.template_digest}, but"
        f" {template} here): the prompts differ"
        for adapter in adapters
        if adapter.template_digest and adapter.template_digest != template
    ]


def choose_method(
    config: PromptSettings,
    style: str,
    questions: Sequence[Question],
    exemplars: Mapping[str, Sequence[Question]],
    tokenizer: Any,
    stop_ids: Sequence[int] = (),
) -> tuple[Method, list[list[Prompt]], tuple[int, ...], list[str]]:
    """The method, every rendered prompt, the letters' tokens for probes, and notes for the run.

    The letters' tokens are checked on one prompt of each subject.
    """
    only_reasoning = config.output_type == "cot" and config.cot_below is None
    notes = chat_notes(style, tokenizer, only_reasoning)
    method: Method
    ids: tuple[int, ...] | None
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
            vote_stopping=config.vote_stopping,
            budgets=sorted(config.thinking_budgets),
            thinking=config.thinking,
            letters=letters_for_most_options(questions),
            stop_ids=stop_ids,
            reasoning_parser=config.reasoning_parser,
        )
        ids = reasoning.force_letter_ids
        if reasoning.thinking and not config.thinking:
            notes.append(
                "the chat template lets the model think before it answers: what follows"
                f" {reasoning.parser.closers[0]} is read; give enough --max-tokens"
            )
    else:
        count = _rotation_count(config.rotations, questions)
        letters = prompt_letter_tokens(style, questions, exemplars, tokenizer, count)
        ids = letters.ids
        if config.output_type == "generate_until":
            seed = config.seed if config.temperature > 0 else None
            rule = find_protocol(config.protocol).answer if config.protocol else None
            method = GenerateUntil(
                style,
                max_tokens=config.max_tokens or DIRECT_MAX_TOKENS,
                temperature=config.temperature,
                top_p=config.top_p,
                seed=seed,
                stop_ids=tuple(stop_ids),
                stops=rule.stop if rule else DIRECT_STOPS,
                pattern=rule.pattern if rule else "",
                removed=rule.remove if rule else (),
            )
        else:
            others = prompt_letter_tokens(
                style, questions, exemplars, tokenizer, count, _unscored_delimiter(style, tokenizer)
            )
            method, more_notes = _scoring_method(
                style, config.letter_form, letters, others, questions, tokenizer
            )
            notes += more_notes
            if count != 1:
                method = Rotations(method, count)
    prompts = render_all_prompts(questions, exemplars, method, tokenizer)
    notes += check_known_tokens(tokenizer, [prompts[0][0]])
    return method, prompts, ids or _fallback_probe_ids(tokenizer), notes


def chat_notes(style: str, tokenizer: Any, reasoning: bool = False) -> list[str]:
    """What the chat template's rendering does to the turns; [] for other styles."""
    return find_chat_template(tokenizer).notes(reasoning) if find_prompt_style(style).chat else []


def check_known_tokens(tokenizer: Any, prompts: Sequence[Prompt]) -> list[str]:
    """A note if some of these prompts' tokens are the unknown token; ConfigError if many are: the model does
    not see the question.
    """
    unknown = find_unknown_id(tokenizer)
    if unknown is None:
        return []
    tokens = [token for ids in encode_prompts(tokenizer, prompts) for token in ids]
    count = tokens.count(unknown)
    share = count / max(1, len(tokens))
    said = f"{count} of {len(tokens)} tokens of a prompt ({share:.0%}) are the unknown token"
    if share > MOST_UNKNOWN:
        raise ConfigError(
            f"{said}: the model's vocabulary does not have this language's characters, so it would not see"
            " the question; use another model"
        )
    return [f"{said}: the model does not see these characters"] if share > SOME_UNKNOWN else []


def letters_for_most_options(questions: Sequence[Question]) -> tuple[str, ...]:
    """The letters of the question with the most options."""
    return OPTION_LETTERS[: max(len(question.options) for question in questions)]


def prompt_letter_tokens(
    style: str,
    questions: Sequence[Question],
    exemplars: Mapping[str, Sequence[Question]],
    tokenizer: Any,
    count: int = 1,
    delimiter: str | None = None,
) -> LetterTokens:
    """The letters' tokens after the prompts of one question per subject, under ``count`` orders of its
    options (``Rotations.count``). ``delimiter``: between prompt and letter; default: the style's.
    """
    prompts = []
    for question in {question.subject: question for question in questions}.values():
        shifts = [0] if count == 1 else rotation_shifts(question, count)
        for shift in shifts:
            turned = rotate_question(question, shift)
            prompts.append(render_prompt(turned, exemplars[question.subject], style, tokenizer))
    token_ids = encode_prompts(tokenizer, prompts)
    names = letters_for_most_options(questions)
    return letter_tokens(tokenizer, prompts, token_ids, style, names, delimiter)


def _unscored_delimiter(style: str, tokenizer: Any) -> str:
    """The text before a letter in the form that the style does not score by default."""
    return form_delimiter(other_letter_form(style_letter_form(style, tokenizer)), style, tokenizer)


def _scoring_method(
    style: str,
    wanted_form: str | None,
    style_letters: LetterTokens,
    other_letters: LetterTokens,
    questions: Sequence[Question],
    tokenizer: Any,
) -> tuple[Method, list[str]]:
    """Letters from one prefill if each is one token; else as continuations, with a note.

    ``style_letters``: in the form that the style scores by default; ``other_letters``: in the other form,
    which the same prefill gives too. ``wanted_form``: --letter-form.
    """
    style_form = style_letter_form(style, tokenizer)
    tokens = {style_form: style_letters, other_letter_form(style_form): other_letters}
    form = wanted_form or style_form
    if form == EITHER:
        missing = next((each for each in tokens.values() if each.ids is None), None)
        if missing is not None or set(style_letters.ids or ()) & set(other_letters.ids or ()):
            reason = missing.reason if missing else "both forms are the same tokens"
            raise ConfigError(
                f"--letter-form either: {reason}, so the two forms cannot be summed; leave the flag out"
            )
    first = SPACED if form == EITHER else form
    letters, others = tokens[first], tokens[other_letter_form(first)]
    if letters.ids:
        ids = others.ids or ()
        notes = []
        if set(ids) & set(letters.ids):
            ids = ()
        if not ids:
            notes.append(
                f"only one written form of the letters is read: {others.reason or 'both are the same'}"
            )
        return MultipleChoice(style, letters.ids, ids, form, style_form), notes
    is_four = len(letters_for_most_options(questions)) == 4
    prefills = "four prefills per question" if is_four else "one prefill per letter"
    note = f"letters are scored as continuations, {prefills}: {letters.reason}"
    return ContinuationChoice(style, form, style_form), [note]


def _rotation_count(rotations: int | str, questions: Sequence[Question]) -> int:
    """``Rotations.count`` of --rotations; ConfigError if 4 orders do not bring each option to each place."""
    counts = {len(question.options) for question in questions}
    if rotations == 4 and counts != {4}:
        raise ConfigError(
            f"--rotations 4: these questions have {' or '.join(map(str, sorted(counts)))} options; give"
            " --rotations all (as many orders as a question has options) or 2"
        )
    return ALL if rotations == "all" else int(rotations)


class PromptChecker:
    """Checks every tokenised prompt for what ``choose_method`` checked on one prompt of each subject."""

    def __init__(self, style: str, tokenizer: Any, method: Method, max_model_len: int) -> None:
        self._style, self._tokenizer, self._max_model_len = style, tokenizer, max_model_len
        self._output_tokens = method.output_tokens
        self._forms = method.scored_forms
        self._endings: set[tuple[int, ...]] = set()

    def __call__(
        self, questions: Sequence[Question], rendered: Sequence[list[Prompt]], token_ids: TokenIds
    ) -> None:
        """ConfigError if a prompt does not fit, or if the letters after it are not the scored tokens."""
        tokens = {
            question.question_id: max(map(len, ids))
            for question, ids in zip(questions, token_ids, strict=True)
        }
        check_prompt_lengths(tokens, self._max_model_len, self._output_tokens)
        if not self._forms:
            return
        by_ending = {
            tuple(ids[-ENDING_TOKENS:]): (prompt, ids)
            for prompts, rows in zip(rendered, token_ids, strict=True)
            for prompt, ids in zip(prompts, rows, strict=True)
        }
        new = [pair for ending, pair in by_ending.items() if ending not in self._endings]
        if not new:
            return
        self._endings |= by_ending.keys()
        new_prompts, new_ids = [prompt for prompt, _ in new], [ids for _, ids in new]
        for form, scored in self._forms.items():
            names = OPTION_LETTERS[: len(scored)]
            delimiter = form_delimiter(form, self._style, self._tokenizer)
            letters = letter_tokens(self._tokenizer, new_prompts, new_ids, self._style, names, delimiter)
            if letters.ids != scored:
                raise ConfigError(
                    "the letters' tokens depend on the question with this tokenizer"
                    f" ({letters.reason or 'they differ between prompts'}), so one prefill does not score"
                    " them; use --output-type generate_until, or another --prompt-style"
                )


def _fallback_probe_ids(tokenizer: Any) -> tuple[int, ...]:
    """Four token ids to probe with if the letters are not one token each."""
    return tuple(range(min(100, len(tokenizer) - 4), min(104, len(tokenizer))))
