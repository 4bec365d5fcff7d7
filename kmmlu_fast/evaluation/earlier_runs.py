"""Finds runs that were made when a local model's digest did not yet cover every byte of it.

In: the fingerprint parts of a new run, the model, the output directory. Out: the digest that belongs in the
parts. Knows nothing of engines or prompts.

Until November 2026 the digest was names, sizes and both ends of each file (``model_files.edge_digest``). A
run of that time still is the run of this model if no file of the model has changed since the run began; only
then its fingerprint is kept, and with it all that continues or reuses it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.reading import read_json
from kmmlu_fast.models.model import Model
from kmmlu_fast.models.model_files import edge_digest, model_changed_ns


def digest_for_runs(
    parts: dict[str, Any], model: Model, adapter_digests: Sequence[str], output_dir: Path
) -> str:
    """The model's digest, or the earlier kind if the directory holds runs under it that are still valid."""
    folder = Path(model.path)
    if not folder.is_dir() or not output_dir.is_dir():
        return model.digest
    earlier = edge_digest(folder)
    runs: list[Path] = []
    for adapter_digest in [None, *adapter_digests]:
        earlier_parts = {**parts, "model_digest": earlier, "adapter_digest": adapter_digest}
        runs += output_dir.glob(f"*-{compute_fingerprint(earlier_parts)}")
    if not runs:
        return model.digest
    changed_ns = model_changed_ns(folder)
    stale = [run for run in runs if _run_time_ns(run) <= changed_ns]
    for run in stale:
        log_note(
            f"note: {run} is not reused: files of {folder} changed after it was made, and it recorded only"
            " the ends of the weight files"
        )
    return model.digest if stale else earlier


def _run_time_ns(run: Path) -> int:
    """When the run began, or earlier than it can have ended if that is known better (a copy of a run is
    younger than the run). 0 if it cannot be told.
    """
    try:
        began_ns = (run / "config.json").stat().st_mtime_ns
        environment = run / "environment.json"
        if not environment.exists():
            return began_ns
        finished = datetime.datetime.strptime(str(read_json(environment)["finished"]), "%Y-%m-%dT%H:%M:%S%z")
        return min(began_ns, int(finished.timestamp()) * 10**9)
    except (OSError, KmmluError, KeyError, ValueError, OverflowError):
        return 0
