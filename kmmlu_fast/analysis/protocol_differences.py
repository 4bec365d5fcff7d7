"""Whether two runs were asked the same, in the same way: what is known to differ, and what is not known.

In: two ``Run``s. Out: differences as "name first -> second"; those of the prompt are separate. Differences of
the adapter, and of the model if two models are compared, are not reported. Knows nothing of statistics or
words.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from kmmlu_fast.runs.run import PROTOCOL_KEYS, Run

# What is compared, if the models' names differ
_MODEL = ("model", "model_digest", "model_revision")
_ELSEWHERE = ("dataset_digest", "model_id", "split")  # checked through the questions themselves

# Stated only by runs that used it.
_IF_USED = ("compiled",)


def prompt_differences(first: Run, second: Run) -> list[str]:
    """Known facts of the prompt in which two runs differ, as "name first -> second"; the scored form of the
    letters is one of them.
    """
    facts = _differing_facts(first.protocol, second.protocol)
    one, other = find_letter_form(first), find_letter_form(second)
    if first.facts and second.facts and one != other:
        facts.append(("letter_form", one or _style_form(first), other or _style_form(second)))
    return [f"{name} {one} -> {other}" for name, one, other in facts]


def find_letter_form(run: Run) -> str | None:
    """--letter-form, if it is another one than the prompt style's."""
    decoding = run.facts.get("decoding")
    form = decoding.get("letter_form") if isinstance(decoding, dict) else None
    return None if form is None else str(form)


def setting_differences(first: Run, second: Run) -> list[str]:
    """Known facts besides the prompt in which two runs differ: quantization, dtype, decoding, versions."""
    ignored = {*PROTOCOL_KEYS, *_ELSEWHERE}
    if first.facts.get("model") != second.facts.get("model"):
        ignored.update(_MODEL)
    one, other = _flatten_facts(first.facts), _flatten_facts(second.facts)
    if one and other:  # of an imported run nothing is known
        one, other = ({**dict.fromkeys(_IF_USED, False), **facts} for facts in (one, other))
    facts = _differing_facts(one, other)
    return [
        f"{name} {one} -> {other}"
        for name, one, other in facts
        if name.split(".")[0] not in ignored
        and not name.startswith("adapter")
        and name != "decoding.letter_form"  # of the prompt's differences
    ]


def _style_form(run: Run) -> str:
    return "bare" if run.facts.get("prompt_style") == "chat" else "lm-eval"


def is_protocol_unknown(run: Run) -> bool:
    """Whether nothing is known about how the run was asked (imported predictions)."""
    return not run.protocol


def find_prompt_digest_change(first: Run, second: Run, joined: pl.DataFrame) -> str | None:
    """Number of questions whose prompts had other tokens, if both runs are of one model; ``joined``:
    prompt_digest and prompt_digest_second.
    """
    if first.facts.get("model") is None or first.facts.get("model") != second.facts.get("model"):
        return None  # two tokenizers, two digests
    both = joined.filter((pl.col("prompt_digest") != "") & (pl.col("prompt_digest_second") != ""))
    count = int((both["prompt_digest"] != both["prompt_digest_second"]).sum())
    return f"prompt_digest of {count:,} questions" if count else None


def find_dataset_digest_change(first: Run, second: Run) -> str | None:
    """The datasets' digests, if both are known and differ."""
    one, other = first.facts.get("dataset_digest"), second.facts.get("dataset_digest")
    return f"dataset_digest {one} -> {other}" if one and other and one != other else None


def _differing_facts(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, value, other value) of the facts that both have with different values."""
    return [(name, one[name], other[name]) for name in one if name in other and one[name] != other[name]]


def _flatten_facts(facts: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts as "decoding.temperature": value; without those that are None (not known)."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            flat |= _flatten_facts(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = value
    return flat
