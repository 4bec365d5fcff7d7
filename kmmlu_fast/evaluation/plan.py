"""What is asked, decided before any engine starts: questions, exemplars, model, adapters, method, token ids,
fingerprint.

In: an ``EvalConfig``. Out: a ``EvalPlan`` an exam, the same for the base and all adapters. Every fault of the
input shows here, in a second. The prompts are tokenised in the background from there on, while the engine
starts. Knows nothing of engines or run directories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter, Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.evaluation import adapter_probe
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.questions import EvalQuestions, load_eval_questions
from kmmlu_fast.machine import environment
from kmmlu_fast.machine.device import gpu_capability, resolve_auto_dtype
from kmmlu_fast.models import model as models
from kmmlu_fast.models.adapters import base_model_warning, load_adapters
from kmmlu_fast.models.model import Model
from kmmlu_fast.models.tokens import open_tokenizer
from kmmlu_fast.prompting.method_choice import (
    PromptChecker,
    choose_method,
    choose_style,
    template_mismatch_notes,
)
from kmmlu_fast.prompting.methods import Method
from kmmlu_fast.prompting.prompts import Prompt, encode_prompts, template_digest
from kmmlu_fast.prompting.tokens import (
    TokenisedQuestion,
    check_prompt_lengths,
    longest_prompt_lengths,
    tokenise_prompts,
)

_CONTEXT_STEP_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalPlan:
    """Everything that is the same for base and adapters: one token list for all of them."""

    config: EvalConfig
    exam: Exam
    source: str | None  # where the exam's rows are, if not where its declaration says
    model: Model
    adapters: list[Adapter]
    style: str
    method: Method
    asked: list[
        TokenisedQuestion
    ]  # in dataset order; in the one random order where the evaluation may stop early
    question_ids: list[str]  # in dataset order
    max_model_len: int
    candidate_ids: tuple[int, ...]  # the letters' tokens, for the probes
    probes: list[list[int]]  # token ids of some prompts, on which base and adapters are told apart
    parts: dict[str, Any]  # of the fingerprint, without the adapter
    notes: list[str]

    def close(self) -> None:
        """Stop tokenising what nobody waits for any more."""
        for item in self.asked:
            item.cancel()


def make_eval_plan(config: EvalConfig) -> EvalPlan:
    """The plan of a single exam; see ``make_eval_plans``. ConfigError where the config has several."""
    if len(config.exam) > 1:
        raise ConfigError(f"--exam {', '.join(config.exam)}: give one exam here")
    (plan,) = make_eval_plans(config)
    return plan


def make_eval_plans(config: EvalConfig) -> list[EvalPlan]:
    """Read, check and render everything before any engine starts; the tokens follow in the background. One
    plan an exam.

    All have the same ``max_model_len``: one engine answers them all.
    """
    material = load_eval_questions(config)
    model = models.resolve_model(config.model, config.revision, config.trust_remote_code)
    config, type_notes = _resolve_dtype(config, model)
    by_peft = config.engine == "transformers" and config.adapter_mode != "merge"
    adapters = load_adapters(config.adapter, model, "peft" if by_peft else config.adapter_mode)
    tokenizer = open_tokenizer(model)
    plans = [_plan_exam(config, one, model, adapters, tokenizer, type_notes) for one in material]
    longest = max(plan.max_model_len for plan in plans)
    return [replace(plan, max_model_len=longest) for plan in plans]


def _plan_exam(
    config: EvalConfig,
    material: EvalQuestions,
    model: Model,
    adapters: list[Adapter],
    tokenizer: Any,
    more_notes: list[str],
) -> EvalPlan:
    exam, questions, exemplars = material.exam, material.questions, material.exemplars
    notes = [
        *material.notes,
        *more_notes,
        *(warning for adapter in adapters if (warning := base_model_warning(adapter, model))),
    ]
    style = choose_style(config, adapters, tokenizer)
    method, rendered, candidates, more = choose_method(config, style, questions, exemplars, tokenizer)
    template = method.wording_digest(tokenizer, thinking=config.thinking, is_kmmlu=exam.is_kmmlu)
    notes += more + template_mismatch_notes(adapters, template_digest(style, tokenizer))
    more_tokens = method.output_tokens
    tokens = longest_prompt_lengths(
        questions, rendered, tokenizer, config.max_model_len and config.max_model_len - more_tokens
    )
    max_model_len = config.max_model_len or _needed_context_tokens(max(tokens.values()) + more_tokens, model)
    check_prompt_lengths(tokens, max_model_len, more_tokens)
    shown = [exemplar for group in exemplars.values() for exemplar in group]
    parts = _fingerprint_parts(config, model, style, template, questions, shown, method)
    if not exam.is_kmmlu:  # a KMMLU run has the fingerprint that it had before there were others
        parts["exam"] = exam.name
    probes = _probe_token_ids(rendered, tokenizer)
    question_ids = [question.question_id for question in questions]
    if config.may_stop:
        places = {question_id: place for place, question_id in enumerate(question_ids)}
        questions = dataset.permute_questions(questions, config.seed)
        rendered = [rendered[places[question.question_id]] for question in questions]
    asked = tokenise_prompts(
        questions, rendered, tokenizer, PromptChecker(style, tokenizer, method, max_model_len)
    )
    return EvalPlan(
        config=config,
        exam=exam,
        source=material.source,
        model=model,
        adapters=adapters,
        style=style,
        method=method,
        asked=asked,
        question_ids=question_ids,
        max_model_len=max_model_len,
        candidate_ids=candidates,
        probes=probes,
        parts=parts,
        notes=notes,
    )


def _probe_token_ids(rendered: list[list[Prompt]], tokenizer: Any) -> list[list[int]]:
    """Token ids of the first prompts of some questions, evenly over all of them."""
    some = rendered[:: max(1, len(rendered) // adapter_probe.PROBES)][: adapter_probe.PROBES]
    return encode_prompts(tokenizer, [prompts[0] for prompts in some])


def _resolve_dtype(config: EvalConfig, model: Model) -> tuple[EvalConfig, list[str]]:
    """The config with ``--dtype auto`` replaced by what this device computes in, where that is
    another type than on most; and why.
    """
    if (
        config.dtype != "auto" or config.engine == "server" or config.ray_address
    ):  # other machines compute there
        return config, []
    about = model.config()
    dtype, why = resolve_auto_dtype(
        gpu_capability(), str(about.get("model_type", "")), bool(about.get("quantization_config"))
    )
    return config.model_copy(update={"dtype": dtype}), [why] if why else []


def _needed_context_tokens(needed: int, model: Model) -> int:
    """What the longest prompt needs, rounded up, within what the model has."""
    rounded = -(-(needed + 32) // _CONTEXT_STEP_TOKENS) * _CONTEXT_STEP_TOKENS
    return min(rounded, model.context_tokens)


def _fingerprint_parts(
    config: EvalConfig,
    model: Model,
    style: str,
    template: str,
    questions: list[Question],
    shown: list[Question],
    method: Method,
) -> dict[str, Any]:
    decoding = method.decoding(questions)
    if config.output_type != "multiple_choice":
        decoding["thinking"] = config.thinking
    trusted = {"trust_remote_code": True} if config.trust_remote_code else {}
    return {
        **trusted,
        "model": model.name,
        "model_digest": model.digest,
        "model_revision": model.revision,
        "dtype": config.dtype,
        "quantization": config.quantization,
        "load_format": config.load_format,
        "dataset_digest": dataset.questions_digest([*questions, *shown]),
        "split": config.split,
        "prompt_style": style,
        "template_digest": template,
        "output_type": config.output_type,
        "num_fewshot": config.num_fewshot,
        "decoding": decoding,
        "versions": {name: environment.package_version(name) for name in ("vllm", "transformers")},
        # Only where it is not the default, so that the fingerprints of runs made before it existed stay as
        # they are.
        **({"letter_precision": config.letter_precision} if config.letter_precision != "auto" else {}),
        **_engine_fingerprint_parts(config),
    }


def _engine_fingerprint_parts(config: EvalConfig) -> dict[str, Any]:
    """What another engine than vLLM changes in the parts; {} for those that run vLLM, whose
    fingerprints stay as they were.
    """
    if config.engine != "transformers":
        return {}
    libraries = ("transformers", "bitsandbytes") if config.quantization else ("transformers",)
    return {
        "engine": config.engine,
        "quantization": "nf4" if config.quantization else None,
        "versions": {name: environment.package_version(name) for name in libraries},
    }
