"""Keyword arguments of the public functions, by name and type; made by ``scripts/api_settings.py``.

What each one means: ``kmmlu-fast help VERB``, or docs/reference.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

Text = str | Path
Texts = str | Path | Sequence[str | Path]


class EvalSettings(TypedDict, total=False):
    """Fields of ``EvalConfig``."""

    model: Text
    revision: str | None
    trust_remote_code: bool
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    letter_precision: Literal["auto", "float32"]
    quantization: str | None
    compile: Literal["off", "auto", "on"]
    max_model_len: int | None
    gpu_memory_utilization: float
    tensor_parallel_size: int
    data_parallel_size: int
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    load_format: str
    engine: Literal["vllm", "ray", "server", "transformers", "llama-cpp"]
    num_replicas: int
    gpus_per_replica: int | None
    ray_address: str | None
    base_url: str | None
    concurrency: int | None
    seed: int
    adapter: Texts
    no_base: bool
    adapter_mode: Literal["auto", "serve", "swap", "merge"]
    exam: Texts
    dataset: Text
    dataset_revision: str | None
    split: Literal["train", "dev", "test"]
    subjects: Texts
    limit: int | None
    limit_mode: Literal["random", "first"]
    questions: int | None
    until_decided: bool
    margin: float
    population: Literal["like", "these"]
    until_precise: float | None
    max_questions: int | None
    order: Literal["auto", "adaptive", "uniform"]
    until_best: bool
    protocol: str | None
    protocols: Texts
    num_fewshot: int
    prompt_style: Literal["lm-eval", "qa", "chat"] | None
    output_type: Literal["multiple_choice", "generate_until", "cot"]
    letter_form: Literal["lm-eval", "bare", "either"] | None
    max_tokens: int | None
    num_samples: int
    vote_stopping: Literal["none", "exact", "likely"]
    thinking_budgets: Sequence[int | str]
    temperature: float
    top_p: float
    top_k: int
    cot_below: float | None
    rotations: Literal[1, 2, 4, "all"]
    chat_template: str | None
    chat_template_kwargs: Texts
    thinking: bool
    reasoning_parser: str | None
    output_dir: Text
    overwrite: bool
    lang: Literal["en", "ko"]
    report_to: Texts
    warm_engine: bool
    plan: bool
    gpu_memory: float | None


class SampleSettings(TypedDict, total=False):
    """Fields of ``SampleConfig``."""

    model: Text
    revision: str | None
    trust_remote_code: bool
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    letter_precision: Literal["auto", "float32"]
    quantization: str | None
    compile: Literal["off", "auto", "on"]
    max_model_len: int | None
    gpu_memory_utilization: float
    tensor_parallel_size: int
    data_parallel_size: int
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    load_format: str
    engine: Literal["vllm", "ray", "server", "transformers", "llama-cpp"]
    num_replicas: int
    gpus_per_replica: int | None
    ray_address: str | None
    base_url: str | None
    concurrency: int | None
    seed: int
    size: int
    out: Text
    overwrite: bool
    exam: str
    dataset: Text
    dataset_revision: str | None
    subjects: Texts
    strategy: Literal["strategic", "uniform", "proportional", "errors"]
    weak_share: float
    weak_fraction: float | None
    weak_subjects: Texts
    weak_prior: str
    errors_order: Literal["hardest", "random"]
    permute_options: bool
    max_repeats: int
    rationale: Literal["none", "self"]
    rationale_samples: int
    rationale_tokens: int
    temperature: float
    rationale_missing: Literal["answer", "drop"]
    source: Any


class TrainSettings(TypedDict, total=False):
    """Fields of ``TrainConfig``."""

    data: Texts
    columns: Texts
    answer_coding: Literal["auto", "from 0", "from 1", "letter", "text"]
    bad_rows: Literal["refuse", "drop"]
    turns: Literal["all", "last"]
    rationale: Literal["none", "given"]
    show_rows: int
    output_dir: Text
    model: Text
    revision: str | None
    trust_remote_code: bool
    prompt_style: Literal["lm-eval", "qa", "chat"]
    chat_template: str | None
    chat_template_kwargs: Texts
    max_seq_length: int
    too_long: Literal["truncate", "drop", "refuse", "cut"]
    rotate_options: bool
    init_adapter: str | None
    load_in_4bit: bool
    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Texts
    use_rslora: bool
    use_dora: bool
    init_lora_weights: Literal["default", "gaussian", "loftq"]
    modules_to_save: Texts
    neftune_noise_alpha: float | None
    num_train_epochs: int
    max_steps: int | None
    learning_rate: float
    lr_scheduler_type: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    optim: str
    effective_batch: int
    micro_batch: int | None
    gradient_checkpointing: Literal["auto", "on", "off"]
    max_memory_gib: float | None
    plan: bool
    gpu_memory: float | None
    seed: int
    held_out: int
    forgetting: int
    held_out_data: Text | None
    measure_every: int | None
    keep: Literal["best-loss", "best-accuracy", "last"]
    early_stopping: int | None
    stop_when: Literal["worse", "collapsed"] | None
    save_every: int | None
    stop_after: float | None
    keep_checkpoints: bool
    resume: bool
    report_to: Texts
    dataset: Text
    dataset_revision: str | None
    guard: Texts
    allow_leakage: bool


class ExportSettings(TypedDict, total=False):
    """Fields of ``ExportConfig``."""

    to: Literal["merged", "gguf", "gguf-lora"]
    quantize: Texts
    name: str | None
    model: str | None
    revision: str | None
    trust_remote_code: bool
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    converter: Text | None


class CheckSettings(TypedDict, total=False):
    """Fields of ``CheckConfig``."""

    model: str | None
    revision: str | None
    trust_remote_code: bool
    base_url: str | None
    trained_reference: bool
    questions: int
    dataset: Text
    prompt_style: Literal["lm-eval", "qa", "chat"] | None
    generations: int
    margin: float
    seed: int
    json_file: Text | None
    junit: Text | None
    overwrite: bool
