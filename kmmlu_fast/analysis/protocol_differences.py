"""Whether two runs were asked the same, in the same way: what is known to differ, and what is not known.

In: two ``Run``s. Out: differences as "name first -> second", those of the prompt apart. Only the adapter,
and the model where two models are compared, may differ in silence. Knows nothing of statistics or words.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from kmmlu_fast.runs.run import PROTOCOL_KEYS, Run

_MODEL = (
    "model",
    "model_digest",
    "model_revision",
)  # the object of the comparison, where the models' names differ
_ELSEWHERE = ("dataset_digest", "model_id", "split")  # compared by the questions themselves


def prompt_differences(first: Run, second: Run) -> list[str]:
    """Known facts of the prompt in which two runs differ, as "name first -> second"."""
    one, other = first.protocol, second.protocol
    return [
        f"{name} {one[name]} -> {other[name]}" for name in one if name in other and one[name] != other[name]
    ]


def setting_differences(first: Run, second: Run) -> list[str]:
    """Known facts besides the prompt in which they differ: quantization, dtype, decoding, versions, ..."""
    one, other = _flatten_facts(first.facts), _flatten_facts(second.facts)
    free = (
        *PROTOCOL_KEYS,
        *_ELSEWHERE,
        *(_MODEL if first.facts.get("model") != second.facts.get("model") else ()),
    )
    return [
        f"{name} {one[name]} -> {other[name]}"
        for name in one
        if name in other
        and one[name] != other[name]
        and name.split(".")[0] not in free
        and not name.startswith("adapter")
    ]


def is_protocol_unknown(run: Run) -> bool:
    """Whether nothing is known of how the run was asked (imported predictions)."""
    return not run.protocol


def find_prompt_digest_change(first: Run, second: Run, joined: pl.DataFrame) -> str | None:
    """Questions whose prompts had other tokens, where one model was asked; ``joined``: prompt_digest and
    prompt_digest_second.
    """
    if first.facts.get("model") is None or first.facts.get("model") != second.facts.get("model"):
        return None  # two tokenizers, two digests
    both = joined.filter((pl.col("prompt_digest") != "") & (pl.col("prompt_digest_second") != ""))
    count = int((both["prompt_digest"] != both["prompt_digest_second"]).sum())
    return f"prompt_digest of {count:,} questions" if count else None


def find_dataset_digest_change(first: Run, second: Run) -> str | None:
    """The datasets' digests, where both are known and differ."""
    one, other = first.facts.get("dataset_digest"), second.facts.get("dataset_digest")
    return f"dataset_digest {one} -> {other}" if one and other and one != other else None


def _flatten_facts(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts as "decoding.temperature": value; None is not known."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            found |= _flatten_facts(value, f"{prefix}{name}.")
        elif value is not None:
            found[prefix + name] = value
    return found
