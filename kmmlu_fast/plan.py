"""What is asked, decided before any engine starts: questions, exemplars, model, adapters, method, token ids, fingerprint.

In: an ``EvalConfig``. Out: a ``Plan``, the same for the base and all adapters. Every fault of the input shows here, in a second.
Knows nothing of engines or run directories.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from kmmlu_fast import dataset, environment, models, proof, runner
from kmmlu_fast.config import EvalConfig
from kmmlu_fast.errors import ConfigError
from kmmlu_fast.models import Model
from kmmlu_fast.prompts import letter_tokens, template_digest
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
    parts: dict[str, Any]  # of the fingerprint, without the adapter
    notes: list[str]

    @property
    def probes(self) -> list[list[int]]:
        step = max(1, len(self.asked) // proof.PROBES)
        return [item.lists()[0] for item in self.asked[::step][: proof.PROBES]]


def make_plan(config: EvalConfig) -> Plan:
    """Read, check, render and tokenise everything before any engine starts."""
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
    method, asked, candidates, more = _ask(config, style, questions, exemplars, tokenizer)
    template = _template(config, style, tokenizer, method)
    notes += more + _foreign_templates(adapters, template_digest(style, tokenizer))
    output_tokens = getattr(method, "output_tokens", None) or (
        config.max_tokens or DIRECT_MAX_TOKENS if config.output_type == "generate_until" else 1
    )
    max_model_len = config.max_model_len or _context(asked, output_tokens, model)
    runner.check_lengths(asked, max_model_len, output_tokens)
    shown = [exemplar for group in exemplars.values() for exemplar in group]
    parts = _fingerprint_parts(config, model, style, template, dataset.digest([*questions, *shown]), method)
    return Plan(config, model, adapters, style, method, asked, max_model_len, candidates, parts, notes)


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
) -> tuple[Method, list[runner.Asked], tuple[int, ...], list[str]]:
    """The method with its letters' tokens checked, the tokenised questions, and notes for the run."""
    from kmmlu_fast.rotations import Rotations

    method: Method
    if config.output_type == "cot":
        from kmmlu_fast.cot import build_method

        method = build_method(
            style, tokenizer, max_tokens=config.max_tokens, num_samples=config.num_samples, temperature=config.temperature,
            top_p=config.top_p, seed=config.seed, below=config.cot_below, thinking=config.thinking,
        )  # fmt: skip
        return method, runner.prepare(questions, exemplars, method, tokenizer)[0], method.force_letter_ids, []
    if config.output_type == "generate_until":
        seed = config.seed if config.temperature > 0 else None
        method = GenerateUntil(style, config.max_tokens or DIRECT_MAX_TOKENS, config.temperature, config.top_p, seed)
        asked, rendered = runner.prepare(questions, exemplars, method, tokenizer)
        letters = letter_tokens(tokenizer, [r[0] for r in rendered], [a.token_ids[0] for a in asked], style)
        return method, asked, letters.ids or _any_candidates(tokenizer), []
    choice: Method = MultipleChoice(style, (0, 1, 2, 3))
    wrap = (lambda inner: Rotations(inner, config.rotations)) if config.rotations > 1 else (lambda inner: inner)
    asked, rendered = runner.prepare(questions, exemplars, wrap(choice), tokenizer)
    letters = letter_tokens(tokenizer, [p for r in rendered for p in r], [ids for a in asked for ids in a.token_ids], style)
    if letters.ids:
        return wrap(MultipleChoice(style, letters.ids)), asked, letters.ids, []
    method = wrap(ContinuationChoice(style))
    asked, _ = runner.prepare(questions, exemplars, method, tokenizer)
    return method, asked, _any_candidates(tokenizer), [f"letters are scored as continuations, four prefills a question: {letters.reason}"]


def _any_candidates(tokenizer: Any) -> tuple[int, ...]:
    """Four token ids to probe with where the letters have none of their own."""
    return tuple(range(min(100, len(tokenizer) - 4), min(104, len(tokenizer))))


def _template(config: EvalConfig, style: str, tokenizer: Any, method: Method) -> str:
    if config.output_type == "cot":
        from kmmlu_fast.cot import wording_digest

        return wording_digest(method, tokenizer)  # type: ignore[arg-type]
    return template_digest(style, tokenizer, thinking=config.thinking)


def _context(asked: list[runner.Asked], output_tokens: int, model: Model) -> int:
    """What the longest prompt needs, rounded up, within what the model has."""
    needed = max(len(ids) for item in asked for ids in item.token_ids) + output_tokens
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
