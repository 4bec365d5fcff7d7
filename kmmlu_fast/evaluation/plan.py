"""Everything that is decided before an engine starts: questions, exemplars, model, adapters, method, token
ids, fingerprint.

In: an ``EvalConfig``. Out: one ``EvalPlan`` per protocol and exam, the same for the base and all adapters.
Every fault of the input is reported here, within a second. Prompts are tokenised in the background while the
engine starts. Knows nothing of engines or run directories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import Adapter, Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.exam_source import ExamSource
from kmmlu_fast.engines.compute_type import resolve_compute_type
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.evaluation import adapter_probe
from kmmlu_fast.evaluation.adapter_mode import adapter_loading_mode
from kmmlu_fast.evaluation.base_model import take_base_from_adapters
from kmmlu_fast.evaluation.chat_settings import ChatSettings, choose_chat_settings
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.earlier_runs import digest_for_runs
from kmmlu_fast.evaluation.questions import EvalQuestions, load_eval_questions
from kmmlu_fast.evaluation.sampling_defaults import use_model_sampling
from kmmlu_fast.machine import environment
from kmmlu_fast.models import model as models
from kmmlu_fast.models.adapter_files import require_adapter_folder, split_adapter_spec
from kmmlu_fast.models.adapters import adapter_warnings, load_adapters
from kmmlu_fast.models.model import Model
from kmmlu_fast.models.tokens import open_tokenizer
from kmmlu_fast.prompting.cot import ChainOfThought
from kmmlu_fast.prompting.method_choice import (
    PromptChecker,
    choose_method,
    choose_style,
    template_mismatch_notes,
)
from kmmlu_fast.prompting.methods import Method
from kmmlu_fast.prompting.prompts import Prompt, encode_prompts, template_digest
from kmmlu_fast.prompting.template_options import check_template_file
from kmmlu_fast.prompting.tokens import (
    TokenisedQuestion,
    check_prompt_lengths,
    longest_prompt_lengths,
    most_exemplars_that_fit,
    tokenise_prompts,
)

_CONTEXT_STEP_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalPlan:
    """Everything that is the same for base and adapters: one token list for all of them."""

    config: EvalConfig
    source: ExamSource
    model: Model
    adapters: list[Adapter]
    style: str
    method: Method
    asked: list[TokenisedQuestion]  # in dataset order; in random order if the evaluation may stop early
    question_ids: list[str]  # in dataset order
    max_model_len: int
    candidate_ids: tuple[int, ...]  # the letters' tokens, for the probes
    probes: list[list[int]]  # token ids of some prompts, which show whether an adapter is applied
    parts: dict[str, Any]  # of the fingerprint, without the adapter
    notes: list[str]

    def close(self) -> None:
        """Cancel the tokenisation of questions that are no longer needed."""
        for item in self.asked:
            item.cancel()


def make_eval_plan(config: EvalConfig) -> EvalPlan:
    """The plan of a single exam; see ``make_eval_plans``. ConfigError if the config has several."""
    for flag, names in (("exam", config.exam), ("protocols", config.protocols)):
        if len(names) > 1:
            raise ConfigError(f"--{flag} {', '.join(names)}: give one {flag.removesuffix('s')} here")
    (plan,) = make_eval_plans(config)
    return plan


def make_eval_plans(config: EvalConfig) -> list[EvalPlan]:
    """Read, check and render everything before an engine starts; tokens follow in the background.

    Returns one plan per protocol and exam. All have the same ``max_model_len`` and what the engine decides by
    the number of questions, so one engine answers them all.
    """
    drafts = [_draft_plans(each) for each in config.by_protocol()]
    plans = [plan for draft in _choose_for_questions(drafts) for plan in _finish_plans(draft)]
    longest = max(plan.max_model_len for plan in plans)
    return [replace(plan, max_model_len=longest) for plan in plans]


@dataclass(frozen=True, slots=True)
class _Draft:
    """One protocol's exams, before it is known what the engine does with all protocols' questions."""

    config: EvalConfig
    question_sets: list[EvalQuestions]
    model: Model
    notes: list[str]


def _draft_plans(config: EvalConfig) -> _Draft:
    config = take_base_from_adapters(config)
    _check_local_files(config)
    question_sets = load_eval_questions(config)
    model = models.resolve_model(config.model, config.revision, config.trust_remote_code)
    config, note = resolve_compute_type(config, model)
    return _Draft(config, question_sets, model, [note] if note else [])


def _finish_plans(draft: _Draft) -> list[EvalPlan]:
    config, model = draft.config, draft.model
    adapters = load_adapters(config.adapter, model, adapter_loading_mode(config))
    chat = choose_chat_settings(config, model, adapters, open_tokenizer(model))
    return [_plan_exam(config, one, model, adapters, chat, draft.notes) for one in draft.question_sets]


def _check_local_files(config: EvalConfig) -> None:
    """ModelError, AdapterError or ConfigError for a file that is missing, before the hub is asked for
    anything."""
    if config.model.startswith((".", "/", "~")):
        models.resolve_model(config.model, config.revision, config.trust_remote_code)
    for spec in config.adapter:
        require_adapter_folder(split_adapter_spec(spec)[1])
    if config.chat_template is not None:
        check_template_file(config.chat_template, config.chat_template_kwargs)


def _plan_exam(
    config: EvalConfig,
    question_set: EvalQuestions,
    model: Model,
    adapters: list[Adapter],
    chat: ChatSettings,
    more_notes: list[str],
) -> EvalPlan:
    tokenizer = chat.tokenizer
    source, questions, exemplars = question_set.source, question_set.questions, question_set.exemplars
    exam_parts = source.exam.fingerprint_parts
    warnings = [text for adapter in adapters for text in adapter_warnings(adapter, model)]
    notes = [*question_set.notes, *more_notes, *warnings]
    style = choose_style(config, adapters, tokenizer)
    chat_parts = chat.fingerprint_parts(style)
    notes += chat.notes(style)
    method, rendered, candidates, method_notes = choose_method(
        config, style, questions, exemplars, tokenizer, chat.stop_ids
    )
    _check_special_tokens(config, method)
    shown = [exemplar for group in exemplars.values() for exemplar in group]
    template = method.wording_digest(tokenizer, thinking=config.thinking, varied_options=bool(exam_parts))
    notes += method_notes + template_mismatch_notes(adapters, template_digest(style, tokenizer))
    output_tokens = method.output_tokens
    limit = config.max_model_len and config.max_model_len - output_tokens
    lengths = longest_prompt_lengths(questions, rendered, tokenizer, limit)
    max_model_len = config.max_model_len
    if not max_model_len:
        max_model_len = _needed_context_tokens(max(lengths.values()) + output_tokens, model)
    if not config.max_model_len and max(lengths.values()) + output_tokens > model.context_tokens:
        room = model.context_tokens - output_tokens
        long = [question for question in questions if lengths.get(question.question_id, 0) > room]
        fitting = most_exemplars_that_fit(long, exemplars, method, tokenizer, room)
        advice = _length_advice(fitting, config)
        check_prompt_lengths(lengths, max_model_len, output_tokens, model.context_tokens, advice)
    check_prompt_lengths(lengths, max_model_len, output_tokens)

    def parts_of(asked: Method) -> dict[str, Any]:
        own = _fingerprint_parts(config, model, style, template, questions, shown, asked)
        return own | exam_parts | chat_parts

    digests = [adapter.digest for adapter in adapters]
    config, method, sampling_notes = use_model_sampling(config, model, method, parts_of, digests)
    notes += sampling_notes
    parts = parts_of(method)
    parts["model_digest"] = digest_for_runs(parts, model, digests, config.output_dir)
    probes = _probe_token_ids(rendered, tokenizer)
    question_ids = [question.question_id for question in questions]
    if config.may_stop:
        places = {question_id: place for place, question_id in enumerate(question_ids)}
        questions = dataset.permute_questions(questions, config.seed)
        rendered = [rendered[places[question.question_id]] for question in questions]
    checker = PromptChecker(style, tokenizer, method, max_model_len)
    return EvalPlan(
        config=config,
        source=source,
        model=model,
        adapters=adapters,
        style=style,
        method=method,
        asked=tokenise_prompts(questions, rendered, tokenizer, checker),
        question_ids=question_ids,
        max_model_len=max_model_len,
        candidate_ids=candidates,
        probes=probes,
        parts=parts,
        notes=notes,
    )


def _length_advice(fitting: int | None, config: EvalConfig) -> str:
    """What to do about prompts that are too long, of which all fit with ``fitting`` exemplars."""
    if fitting is not None:
        return f"--num-fewshot {fitting} fits"
    if config.output_type != "multiple_choice":
        return "no number of exemplars fits: lower --max-tokens, or leave out such subjects with --subjects"
    return "no number of exemplars fits: leave out such subjects with --subjects"


def _check_special_tokens(config: EvalConfig, method: Method) -> None:
    """ConfigError if thoughts are marked by special tokens and the engine leaves these out of its texts."""
    if not isinstance(method, ChainOfThought) or not method.special_texts:
        return
    if not find_engine_kind(config.engine).keeps_special:
        raise ConfigError(
            f"--output-type cot: thoughts end in {method.parser.closers[0]}, a special token that"
            f" --engine {config.engine} leaves out of its texts; use another engine, switch thinking off with"
            " --chat-template-kwargs NAME=VALUE, or use --output-type multiple_choice"
        )


def _probe_token_ids(rendered: list[list[Prompt]], tokenizer: Any) -> list[list[int]]:
    """Token ids of the first prompts of some questions, evenly spaced over all of them."""
    some = rendered[:: max(1, len(rendered) // adapter_probe.PROBES)][: adapter_probe.PROBES]
    return encode_prompts(tokenizer, [prompts[0] for prompts in some])


def _choose_for_questions(drafts: list[_Draft]) -> list[_Draft]:
    """The drafts with what the engine decides by the number of questions: once, for one engine answers them
    all. Every question that may be asked counts, answered ones too: a continued run decides as before.
    """
    first = drafts[0].config
    chosen, note = find_engine_kind(first.engine).choose_for_questions(
        first,
        sum(_most_asked(draft.config, one) for draft in drafts for one in draft.question_sets),
        letters=all(draft.config.output_type == "multiple_choice" for draft in drafts),
        adapters=bool(first.adapter),
    )
    notes = [note] if note else []
    return [
        replace(draft, config=draft.config.model_copy(update=chosen), notes=[*draft.notes, *notes])
        for draft in drafts
    ]


def _most_asked(config: EvalConfig, exam: EvalQuestions) -> int:
    """How many of an exam's questions may be asked at most."""
    return min(len(exam.questions), config.questions or config.max_questions or len(exam.questions))


def _needed_context_tokens(needed: int, model: Model) -> int:
    """The tokens of the longest prompt, rounded up, but at most the model's context."""
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
    parts = {
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
    }
    # Options and engines that were added later change the fingerprint only if they are used, so that earlier
    # runs keep theirs.
    if config.trust_remote_code:
        parts["trust_remote_code"] = True
    if config.letter_precision != "auto":
        parts["letter_precision"] = config.letter_precision
    engine = find_engine_kind(config.engine)
    parts |= engine.fingerprint_parts(config)
    parts["versions"] = {name: environment.package_version(name) for name in engine.libraries(config)}
    return parts
