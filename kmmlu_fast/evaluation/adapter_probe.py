"""Proof that an adapter is applied: how far it moves the letters' log-probabilities on probe prompts.

In: an engine and the token ids of a few prompts. Out: the largest shift in nats; zero is an error, not a
result. The only file is the base run's probe, kept so that a reused base need not be started again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.core.digests import text_digest
from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.core.files import read_json, write_json_atomically
from kmmlu_fast.core.schema import Adapter, Candidates, Request
from kmmlu_fast.engines.protocol import Engine

PROBES = 16
FILE = "probe.json"
_NO_SHIFT = 1e-6  # nats: an adapter that is not applied gives exactly the same numbers


def measure_probe_logprobs(
    engine: Engine, prompts: Sequence[Sequence[int]], candidate_ids: tuple[int, ...], adapter: Adapter | None
) -> list[list[float]]:
    """Log-probabilities of the candidates after each prompt, shape (prompts, candidates)."""
    requests = [
        Request(
            question_id=f"probe/{i}",
            stage="letters",
            token_ids=tuple(ids),
            want=Candidates(candidate_ids),
            adapter=adapter,
        )
        for i, ids in enumerate(prompts)
    ]
    logprobs = {reply.request.question_id: list(reply.logprobs) for reply in engine.generate(requests)}
    return [logprobs[request.question_id] for request in requests]


def measure_adapter_shift(
    adapter: Adapter, base: list[list[float]], applied: list[list[float]]
) -> dict[str, Any]:
    """Largest and mean absolute shift over all probes and candidates. AdapterError if there is none."""
    differences = [
        abs(a - b)
        for row_a, row_b in zip(base, applied, strict=True)
        for a, b in zip(row_a, row_b, strict=True)
    ]
    largest = max(differences)
    if not largest > _NO_SHIFT:  # also catches NaN
        raise AdapterError(
            f"adapter {adapter.name} ({adapter.path}) changes no log-probability on {len(base)} probe"
            " prompts: it is not applied, or its lora_B matrices are all zero; check that it was trained and"
            " saved"
        )
    return {
        "probes": len(base),
        "largest_nats": round(largest, 6),
        "mean_nats": round(sum(differences) / len(differences), 6),
    }


def probe_digest(prompts: Sequence[Sequence[int]], candidate_ids: tuple[int, ...]) -> str:
    """Identifies the prompts and candidates: a saved base probe is used only for the same ones."""
    return text_digest(repr(([list(p) for p in prompts], candidate_ids)))


def save_base_probe(folder: Path, key: str, logprobs: list[list[float]]) -> None:
    write_json_atomically(folder / FILE, {"digest": key, "logprobs": logprobs})


def load_base_probe(folder: Path, key: str, shape: tuple[int, int]) -> list[list[float]] | None:
    """The base run's probe, if it exists, its prompts and candidates are the same, and it has numbers of this
    ``shape`` (prompts, candidates); else it is measured again.
    """
    if not (folder / FILE).exists():
        return None
    saved = read_json(folder / FILE)
    logprobs = saved.get("logprobs")
    is_whole = _is_matrix(logprobs, *shape)
    return logprobs if saved.get("digest") == key and is_whole else None


def _is_matrix(value: Any, rows: int, columns: int) -> bool:
    if not isinstance(value, list) or len(value) != rows:
        return False
    if not all(isinstance(row, list) and len(row) == columns for row in value):
        return False
    return all(type(number) in (int, float) and math.isfinite(number) for row in value for number in row)
