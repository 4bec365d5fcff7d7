"""Sampling that no flag sets: the model's own, where its answers are sampled or it thinks first.

In: an ``EvalConfig``, the model, a method. Out: both with the model's settings, and notes; ConfigError if
several samples would all be equal. Knows nothing of engines or prompts.

Greedy decoding is the default everywhere else, and stays it where a run of the same command exists: a run
that was begun greedily is continued greedily, so no finished work is asked again under another fingerprint.
Thinking models are published with sampling, and greedy decoding makes many of them repeat themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.models.generation_defaults import read_sampling_defaults
from kmmlu_fast.models.model import Model
from kmmlu_fast.prompting.cot import ChainOfThought
from kmmlu_fast.prompting.methods import Method

_FLAGS = {"temperature", "top_p", "top_k"}


def use_model_sampling(
    config: EvalConfig,
    model: Model,
    method: Method,
    parts_of: Callable[[Method], dict[str, Any]],
    adapter_digests: Sequence[str],
) -> tuple[EvalConfig, Method, list[str]]:
    """Config and method as they are asked. ``parts_of``: a method's fingerprint, without the adapter."""
    if not isinstance(method, ChainOfThought) or _FLAGS & config.model_fields_set:
        return config, method, []
    if method.num_samples == 1 and not method.thinking:
        return config, method, []
    found = read_sampling_defaults(model)
    if found is None:
        if method.num_samples > 1:
            raise ConfigError(
                "--num-samples above 1 needs --temperature above 0 (such as 0.7): greedy samples are equal,"
                " and the model's generation_config.json names no sampling"
            )
        return config, method, []
    for digest in (None, *adapter_digests):
        earlier = compute_fingerprint({**parts_of(method), "adapter_digest": digest})
        if any(config.output_dir.glob(f"*-{earlier}")):
            note = (
                f"greedy decoding, as in the run *-{earlier} in {config.output_dir}; the model's own"
                f" ({found.describe()}) is the default where there is no such run: give another --output-dir"
            )
            return config, method, [note]
    values: dict[str, Any] = {
        "temperature": found.temperature,
        "top_p": found.top_p,
        "top_k": found.top_k,
    }
    note = f"sampling as the model's generation_config.json has it: {found.describe()}"
    if found.left_out:
        note += f"; its {' and '.join(found.left_out)} is left out"
    sampled = replace(method, **values, min_p=found.min_p)
    return config.model_copy(update=values), sampled, [f"{note} (--temperature 0 is greedy)"]
