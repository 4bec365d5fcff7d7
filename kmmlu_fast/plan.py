"""What is asked, decided before any engine starts: questions, exemplars, model, adapters, method, token ids, fingerprint.

In: an ``EvalConfig``. Out: a ``Plan``, the same for the base and all adapters. Every fault of the input shows here, in a second.
The prompts are tokenised in the background from there on, while the engine starts. Knows nothing of engines or run directories.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kmmlu_fast import dataset, environment, models, proof, runner
from kmmlu_fast.config import EvalConfig
from kmmlu_fast.errors import ConfigError
from kmmlu_fast.models import Model
from kmmlu_fast.prompts import ENDING_TOKENS, Prompt, encode, letter_tokens, template_digest
from kmmlu_fast.schema import Adapter, Question
from kmmlu_fast.scoring import DIRECT_MAX_TOKENS, ContinuationChoice, GenerateUntil, Method, MultipleChoice
from kmmlu_fast.server_client import check_base_url
from kmmlu_fast.subjects import find_subjects

_CONTEXT_STEP_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is the same for base and adapters: one token list for all of them."""

    config: EvalConfig
    model: Model
    adapters: list[Adapter]
    style: str
    method: Method
    asked: list[runner.Asked]
    max_model_len: int
    candidate_ids: tuple[int, ...]  # the letters' tokens, for the probes
    probes: list[list[int]]  # token ids of some prompts, on which base and adapters are told apart
    parts: dict[str, Any]  # of the fingerprint, without the adapter
    notes: list[str]

    def close(self) -> None:
        """Stop tokenising what nobody waits for any more."""
        for item in self.asked:
            item.cancel()


def make_plan(config: EvalConfig) -> Plan:
    """Read, check and render everything before any engine starts; the tokens follow in the background."""
    if config.base_url:
        check_base_url(config.base_url)  # before anything is written: the address is saved with the run, a password must not be
    subjects = find_subjects(config.subjects)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = dataset.load_questions(config.dataset, config.split, subjects, config.dataset_revision)
    notes = [str(warning.message) for warning in caught if warning.category is UserWarning]
    questions = dataset.select(available, config.limit, config.limit_mode, config.seed)
    if not questions:
        raise ConfigError(
            f"nothing to evaluate: {config.dataset} has no {config.split} questions in {', '.join(config.subjects) or 'any subject'}"
        )
    present = [subject for subject in subjects if subject.name in {question.subject for question in questions}]
    exemplars = dataset.exemplars(config.dataset, present, config.num_fewshot, config.dataset_revision)
    model = models.resolve_model(config.model, config.revision)
    adapters = models.load_adapters(config.adapter, model, config.adapter_mode)
    notes += [warning for adapter in adapters if (warning := models.base_disagrees(adapter, model))]
    tokenizer = models.load_tokenizer(model)
    style = _style(config, adapters, tokenizer)
    method, rendered, candidates, more = _ask(config, style, questions, exemplars, tokenizer)
    template = _template(config, style, tokenizer, method)
    notes += more + _foreign_templates(adapters, template_digest(style, tokenizer))
    output_tokens = getattr(method, "output_tokens", None) or (
        config.max_tokens or DIRECT_MAX_TOKENS if config.output_type == "generate_until" else 1
    )
    tokens = runner.lengths(questions, rendered, tokenizer, config.max_model_len and config.max_model_len - output_tokens)
    max_model_len = config.max_model_len or _context(max(tokens.values()) + output_tokens, model)
    runner.check_lengths(tokens, max_model_len, output_tokens)
    shown = [exemplar for group in exemplars.values() for exemplar in group]
    parts = _fingerprint_parts(config, model, style, template, dataset.digest([*questions, *shown]), method)
    probes = encode(tokenizer, [prompts[0] for prompts in rendered[:: max(1, len(rendered) // proof.PROBES)][: proof.PROBES]])
    asked = runner.tokenise(questions, rendered, tokenizer, _Checks(style, tokenizer, method, max_model_len, output_tokens))
    return Plan(config, model, adapters, style, method, asked, max_model_len, candidates, probes, parts, notes)


def _style(config: EvalConfig, adapters: list[Adapter], tokenizer: Any) -> str:
    """The style asked for; else the one the adapters were trained with; else the output type's. ConfigError where adapters disagree."""
    wanted = {adapter.prompt_style for adapter in adapters if adapter.prompt_style}
    if config.prompt_style:
        other = wanted - {config.prompt_style}
        if other:
            raise ConfigError(
                f"--prompt-style {config.prompt_style}: the adapter was trained with {' and '.join(sorted(other))}, another wording would "
                f"measure the wording; leave the flag out, or give --prompt-style {sorted(other)[0]}"
            )
        return config.prompt_style
    if len(wanted) > 1:
        raise ConfigError(
            f"the adapters were trained with different prompt styles ({', '.join(sorted(wanted))}); evaluate them in separate commands"
        )
    if wanted:
        return wanted.pop()
    if config.output_type == "cot":
        from kmmlu_fast.cot import default_style

        return default_style(tokenizer)
    return "lm-eval"


def _foreign_templates(adapters: list[Adapter], template: str) -> list[str]:
    return [
        f"adapter {adapter.name} was trained with another template (digest {adapter.template_digest}, here {template}): the prompts differ"
        for adapter in adapters
        if adapter.template_digest and adapter.template_digest != template
    ]


def _ask(
    config: EvalConfig, style: str, questions: list[Question], exemplars: dict[str, list[Question]], tokenizer: Any
) -> tuple[Method, list[list[Prompt]], tuple[int, ...], list[str]]:
    """The method with its letters' tokens checked on a prompt of each subject, every rendered prompt, and notes for the run."""
    from kmmlu_fast.rotations import Rotations

    method: Method
    if config.output_type == "cot":
        from kmmlu_fast.cot import build_method

        method = build_method(
            style, tokenizer, max_tokens=config.max_tokens, num_samples=config.num_samples, temperature=config.temperature,
            top_p=config.top_p, seed=config.seed, below=config.cot_below, thinking=config.thinking,
        )  # fmt: skip
        return method, runner.render(questions, exemplars, method, tokenizer), method.force_letter_ids, []
    wrap = (lambda inner: Rotations(inner, config.rotations)) if config.rotations > 1 else (lambda inner: inner)
    if config.output_type == "generate_until":
        seed = config.seed if config.temperature > 0 else None
        method = GenerateUntil(style, config.max_tokens or DIRECT_MAX_TOKENS, config.temperature, config.top_p, seed)
    else:
        method = wrap(MultipleChoice(style, (0, 1, 2, 3)))
    rendered = runner.render(questions, exemplars, method, tokenizer)
    some = list({question.subject: prompts for question, prompts in zip(questions, rendered, strict=True)}.values())
    shown = [prompt for prompts in some for prompt in prompts]
    letters = letter_tokens(tokenizer, shown, encode(tokenizer, shown), style)
    if config.output_type == "generate_until":
        return method, rendered, letters.ids or _any_candidates(tokenizer), []
    if letters.ids:
        return wrap(MultipleChoice(style, letters.ids)), rendered, letters.ids, []
    method = wrap(ContinuationChoice(style))
    note = f"letters are scored as continuations, four prefills a question: {letters.reason}"
    return method, runner.render(questions, exemplars, method, tokenizer), _any_candidates(tokenizer), [note]


class _Checks:
    """What every prompt must hold once it is tokenised; found to hold on some of them before, here on all."""

    def __init__(self, style: str, tokenizer: Any, method: Method, max_model_len: int, output_tokens: int) -> None:
        self._style, self._tokenizer, self._max_model_len, self._output_tokens = style, tokenizer, max_model_len, output_tokens
        scored = getattr(method, "inner", method)  # under rotations
        self._letters = scored.letter_ids if isinstance(scored, MultipleChoice) else None
        self._endings: set[tuple[int, ...]] = set()

    def __call__(self, questions: Sequence[Question], rendered: Sequence[list[Prompt]], token_ids: runner.TokenIds) -> None:
        """ConfigError where a prompt does not fit, or where the letters after it are other tokens than those that are scored."""
        tokens = {question.question_id: max(map(len, ids)) for question, ids in zip(questions, token_ids, strict=True)}
        runner.check_lengths(tokens, self._max_model_len, self._output_tokens)
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
        letters = letter_tokens(self._tokenizer, [p for p, _ in new.values()], [ids for _, ids in new.values()], self._style)
        if letters.ids != self._letters:
            raise ConfigError(
                f"the letters' tokens depend on the question with this tokenizer ({letters.reason or 'they differ between prompts'}), "
                "so one prefill does not score them; use --output-type generate_until, or another --prompt-style"
            )


def _any_candidates(tokenizer: Any) -> tuple[int, ...]:
    """Four token ids to probe with where the letters have none of their own."""
    return tuple(range(min(100, len(tokenizer) - 4), min(104, len(tokenizer))))


def _template(config: EvalConfig, style: str, tokenizer: Any, method: Method) -> str:
    if config.output_type == "cot":
        from kmmlu_fast.cot import wording_digest

        return wording_digest(method, tokenizer)  # type: ignore[arg-type]
    return template_digest(style, tokenizer, thinking=config.thinking)


def _context(needed: int, model: Model) -> int:
    """What the longest prompt needs, rounded up, within what the model has."""
    rounded = -(-(needed + 32) // _CONTEXT_STEP_TOKENS) * _CONTEXT_STEP_TOKENS
    return min(rounded, model.context_tokens)


def _fingerprint_parts(config: EvalConfig, model: Model, style: str, template: str, rows: str, method: Method) -> dict[str, Any]:
    decoding: dict[str, Any] = {}
    if config.output_type != "multiple_choice":
        decoding = {"max_tokens": getattr(method, "max_tokens", None), "temperature": config.temperature, "top_p": config.top_p}
        decoding |= {"num_samples": config.num_samples, "cot_below": config.cot_below, "thinking": config.thinking}
        decoding |= {"seed": config.seed} if config.temperature > 0 else {}
    if config.rotations > 1:
        decoding["rotations"] = config.rotations
    return {
        "model": model.name,
        "model_digest": model.digest,
        "model_revision": model.revision,
        "dtype": config.dtype,
        "quantization": config.quantization,
        "load_format": config.load_format,
        "dataset_digest": rows,
        "split": config.split,
        "prompt_style": style,
        "template_digest": template,
        "output_type": config.output_type,
        "num_fewshot": config.num_fewshot,
        "decoding": decoding,
        "versions": {name: environment.version_of(name) for name in ("vllm", "transformers")},
    }
