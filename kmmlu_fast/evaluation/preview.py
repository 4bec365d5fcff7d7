"""``eval --plan``: what would be asked, what it needs and how long it would take, without an engine.

In: an ``EvalConfig``, optionally with the memory of a GPU that is not here. Out: an ``EvalPreview``. The
questions, prompts, adapters and runs are the evaluation's own, so whatever it would refuse is refused here.
Without the model's tokenizer only counts from its config.json remain, which is said. Computed, not measured.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.errors import InstallError, ModelError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.engines.options import NF4_NAMES
from kmmlu_fast.evaluation.adapter_mode import choose_adapter_mode
from kmmlu_fast.evaluation.base_model import take_base_from_adapters
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import EvalPlan, make_eval_plans
from kmmlu_fast.evaluation.questions import load_eval_questions
from kmmlu_fast.evaluation.run_names import run_directory_name
from kmmlu_fast.machine import throughput_estimate
from kmmlu_fast.machine.gpus import Gpu, assume_gpu, list_gpus
from kmmlu_fast.machine.host import best_cpu_dtype, detect_machine
from kmmlu_fast.machine.memory_fit import (
    BFLOAT16,
    GIB,
    MemoryOption,
    cpu_memory_options,
    engine_bytes,
    engine_memory_budget,
    fitting_batch,
    gpu_memory_options,
    memory_advice,
    settings_for_memory,
)
from kmmlu_fast.machine.model_size import ModelFacts, find_model_facts
from kmmlu_fast.runs.layout import is_complete_run

_METHODS = {
    "multiple_choice": "letters from one prefill per prompt",
    "generate_until": "a generated letter",
    "cot": "chain of thought",
}


@dataclass(frozen=True, slots=True)
class EvalPreview:
    """Lines to show, and why the evaluation would not fit (else "")."""

    lines: list[str]
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One exam's questions. ``tokens``: of all prompts, without beginnings that the one before has too; the
    lowest and the highest estimate."""

    label: str
    questions: int
    subjects: int
    tokens: tuple[int, int]
    about: str  # how the prompts' tokens are known
    runs: list[tuple[str, str]]  # model state, what becomes of it
    left: int  # runs to be computed


def preview_evaluation(config: EvalConfig) -> EvalPreview:
    """What the evaluation would do. Raises what it would raise before its engine starts."""
    config = take_base_from_adapters(config)
    facts = find_model_facts(config.model)
    try:
        plans = make_eval_plans(config)
    except (ModelError, InstallError) as error:
        if facts is None:
            raise
        asked = _count_without_tokenizer(config, str(error).partition("; ")[0])
    else:
        asked = [_count_prompts(plan) for plan in plans]
        for plan in plans:
            plan.close()
    card = assume_gpu(config.gpu_memory) if config.gpu_memory else next(iter(list_gpus()), None)
    device = card.name if card else f"the CPU ({best_cpu_dtype()})"
    lines = [f"{config.model} on {device}"]
    for one in asked:
        lines += _describe_exam(config, one)
    if not find_engine_kind(config.engine).computes_here:
        return EvalPreview([*lines, f"memory and time: --engine {config.engine} computes elsewhere"], "")
    if facts is None:
        unknown = "memory and time: not known, the model's config.json has no sizes that are read here"
        return EvalPreview([*lines, unknown], "")
    option = _choose_memory_option(config, facts, card)
    lines += _describe_memory(option)
    lines.append(_describe_time(config, facts, card, option, asked))
    lines.append("Computed from the model's counts and the prompts, not measured.")
    if option.fits:
        return EvalPreview(lines, "")
    return EvalPreview(lines, memory_advice([option, *_other_options(facts, card, option)], facts))


def _count_prompts(plan: EvalPlan) -> _Asked:
    before: array[int] = array("i")
    prompts = total = fresh = longest = 0
    for item in plan.asked:
        for ids in item.token_ids:
            prompts, total, longest = prompts + 1, total + len(ids), max(longest, len(ids))
            fresh += len(ids) - _shared_length(before, ids)
            before = ids
    words = [f"{prompts:,} prompts, {total:,} tokens, {total / prompts:.0f} on average, at most {longest}"]
    if fresh < 0.9 * total:
        words.append(f"{fresh:,} of them computed, the rest is shared with the prompt before")
    runs, left = [], 0
    states: list[Adapter | None] = [*([] if plan.config.no_base else [None]), *plan.adapters]
    for adapter in states:
        state, computed = _describe_run(plan, adapter)
        runs.append((adapter.name if adapter else "base", state))
        left += computed
    return _Asked(
        label=f"{_exam_label(plan)} {plan.config.split}, {plan.style}, {plan.config.num_fewshot}-shot",
        questions=len(plan.asked),
        subjects=len({item.question.subject for item in plan.asked}),
        tokens=(fresh, fresh),
        about="; ".join(words),
        runs=runs,
        left=left,
    )


def _exam_label(plan: EvalPlan) -> str:
    exam = plan.source.label
    return f"{plan.config.protocol}: {exam}" if plan.config.protocol else exam


def _shared_length(one: array[int], other: array[int]) -> int:
    """How many tokens two prompts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _describe_run(plan: EvalPlan, adapter: Adapter | None) -> tuple[str, bool]:
    """What becomes of a model state, and whether it is computed."""
    fingerprint = compute_fingerprint({**plan.parts, "adapter_digest": adapter.digest if adapter else None})
    folder = plan.config.output_dir / f"{run_directory_name(plan, adapter, fingerprint)}-{fingerprint}"
    mode, reason = choose_adapter_mode(plan.config, adapter) if adapter else ("", "")
    how = f"{mode} ({reason}), " if reason else f"{mode}, " if mode else ""
    if plan.config.overwrite:
        return f"{how}asked, replacing {folder}" if folder.exists() else f"{how}asked, into {folder}", True
    if is_complete_run(folder):
        return f"finished before, reused from {folder}", False
    return f"{how}continued in {folder}" if folder.exists() else f"{how}asked, into {folder}", True


def _count_without_tokenizer(config: EvalConfig, why: str) -> list[_Asked]:
    """Counts if the model is not on this computer: tokens by the range that KMMLU's questions have."""
    low, high = throughput_estimate.TOKENS
    states = [*([] if config.no_base else ["base"]), *config.adapter]
    asked = []
    for one in load_eval_questions(config):
        count = len(one.questions)
        prompts = count * (1 + config.num_fewshot)
        asked.append(
            _Asked(
                label=f"{one.source.label} {config.split}, {config.num_fewshot}-shot",
                questions=count,
                subjects=len({question.subject for question in one.questions}),
                tokens=(count * low, prompts * high),
                about=f"prompts not counted, {low} to {high} tokens per question assumed ({why})",
                runs=[(name, "asked") for name in states],
                left=len(states),
            )
        )
    return asked


def _describe_exam(config: EvalConfig, asked: _Asked) -> Iterator[str]:
    questions = f"{asked.questions:,} questions of {asked.subjects} subjects"
    yield f"asked: {asked.label}: {questions}, {_METHODS[config.output_type]}"
    yield f"  {asked.about}"
    if config.until_decided or config.until_precise is not None:
        most = f", at most {config.max_questions:,} per model state" if config.max_questions else ""
        yield f"  fewer if it stops early{most}; kmmlu-fast plan says how many to expect"
    for name, state in asked.runs:
        yield f"  {name}: {state}"


def _choose_memory_option(config: EvalConfig, facts: ModelFacts, card: Gpu | None) -> MemoryOption:
    """What the flags ask for, on this device."""
    quantization = "nf4" if config.quantization in NF4_NAMES else config.quantization
    quantization = "fp8_per_tensor" if quantization == "fp8" else quantization
    if card is None:
        dtype = best_cpu_dtype() if config.dtype == "auto" else config.dtype
        options = cpu_memory_options(facts, dtype, detect_machine().memory_free_bytes)
        return options[-1] if quantization == "nf4" else options[0]
    half = "bfloat16" if card.capability >= BFLOAT16 else "float16"
    dtype = half if config.dtype == "auto" else config.dtype
    name = quantization or (f"as stored ({facts.stored_as})" if facts.quantised else dtype)
    room = engine_memory_budget(card.total_bytes, card.free_bytes, config.gpu_memory_utilization)
    cards = config.tensor_parallel_size
    batch = fitting_batch(facts, name, settings_for_memory(card.total_bytes), room, cards)
    parts = engine_bytes(facts, name, batch, cards)
    return MemoryOption(name=name, flags=(), parts_bytes=parts, room_bytes=room, batch=batch, cards=cards)


def _other_options(facts: ModelFacts, card: Gpu | None, option: MemoryOption) -> list[MemoryOption]:
    if card is None:
        options = cpu_memory_options(facts, best_cpu_dtype(), detect_machine().memory_free_bytes)
    else:
        options = gpu_memory_options(facts, card.capability, card.total_bytes, card.free_bytes)
    return [other for other in options if other.name != option.name]


def _describe_memory(option: MemoryOption) -> Iterator[str]:
    share = option.total_bytes / option.room_bytes if option.room_bytes else float("inf")
    fits = "fits" if option.fits else "does not fit"
    per_card = f", on each of {option.cards} GPUs" if option.cards > 1 else ""
    size = f"{option.total_bytes / GIB:.1f} of {option.room_bytes / GIB:.1f} GiB"
    yield f"{fits}: {size} ({share:.0%}), {option.name}{per_card}"
    for name, parts in sorted(option.parts_bytes.items(), key=lambda part: -part[1]):
        yield f"  {name:<22} {parts / GIB:6.2f} GiB"


def _describe_time(
    config: EvalConfig, facts: ModelFacts, card: Gpu | None, option: MemoryOption, asked: list[_Asked]
) -> str:
    runs = sum(one.left for one in asked)
    if not runs:
        return "time: seconds, every run is finished"
    if config.output_type != "multiple_choice":
        return "time: not estimated, generated texts are as long as the model makes them"
    if card is None:
        rate = throughput_estimate.measure_cpu_flops(detect_machine().cpu.flags)
        share = throughput_estimate.CPU_SHARE
    else:
        fp8 = option.name == "fp8_per_channel"
        rate = option.cards * config.data_parallel_size * throughput_estimate.peak_flops(card.name, fp8)
        share = throughput_estimate.reached_share(card.name, fp8)
    if not rate or option.name == "nf4":
        why = "in process, which is slower" if option.name == "nf4" else "it depends on the card's name"
        return f"time: not estimated, {why}"
    low = high = 0.0
    for one in asked:
        head = 2.0 * facts.vocabulary * facts.hidden * one.questions
        lowest, highest = (tokens * facts.flops_per_token + head for tokens in one.tokens)
        low += one.left * lowest / (share[1] * rate)
        high += one.left * highest / (share[0] * rate)
    plural = "s" if runs > 1 else ""
    most = "at most " if config.may_stop else ""
    load = ", this CPU as busy as it is now" if card is None else ""
    span = format_span(low, high)
    return f"time: {most}{span} for {runs} run{plural}, the engine's start not included{load}"


def format_span(low_sec: float, high_sec: float) -> str:
    """A span of time in the unit that suits it: ``40 to 55 s``, ``3 to 9 min``, ``2 to 5 hours``."""
    units = ((48 * 3600, 86400, "days"), (3 * 3600, 3600, "hours"), (180, 60, "min"), (0, 1, "s"))
    seconds, unit = next((size, name) for start, size, name in units if high_sec >= start)
    low, high = (max(1, round(value / seconds)) for value in (low_sec, high_sec))
    return f"about {high} {unit}" if low == high else f"{low} to {high} {unit}"
