"""How much of the adapter's change an export keeps: forecast before merging, measured in every file.

In: the base, the adapter's factors, a type or a file. Out: ``KeptChange``, and warnings if rounding takes a
part that matters. Knows nothing of answers: whether the loss matters is the gate's to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.models.adapters import adapter_way_problem
from kmmlu_fast.models.deltas import LoraDelta, read_lora_deltas
from kmmlu_fast.shipping.llama_tools import QUANTISED
from kmmlu_fast.shipping.rounding import KeptChange, measure_kept_share
from kmmlu_fast.shipping.source import ShippingSource
from kmmlu_fast.shipping.tensors import TensorSource, open_tensors, plain_name
from kmmlu_fast.shipping.weights import (
    STORED_GRIDS,
    change_of_rows,
    sampled_rows,
    sum_up_shares,
    whole_power,
)

_SAME_SHARE = 0.02  # of the adapter's change: a file that holds what the forecast said


def read_plain_deltas(source: ShippingSource) -> dict[str, LoraDelta]:
    """The adapter's changes; none if it is more than W + s·B·A, whose rounding is not computed."""
    if adapter_way_problem(source.adapter.path, "swap"):
        return {}
    return read_lora_deltas(source.adapter.path)


def forecast_kept_change(base: Path, deltas: Mapping[str, LoraDelta], kind: str) -> KeptChange | None:
    """What rounding a merge to ``kind`` ("auto": as the base is stored) will keep; None if that is not
    known."""
    reference = open_tensors(base)
    if reference is None:
        return None
    shares = []
    for name, rows, change in _changed_rows(reference, deltas):
        grid = kind if kind != "auto" else STORED_GRIDS.get(reference.stored_as(name), "float32")
        kept = measure_kept_share(reference.read(name, rows), change, grid)
        shares.append((kept, whole_power(change, reference.shape(name))))
    return sum_up_shares(shares)


def measure_kept_change(base: Path, deltas: Mapping[str, LoraDelta], artefact: Path) -> KeptChange | None:
    """What an artefact holds of the adapter's change; None if its names cannot be mapped to the base's."""
    import numpy as np

    reference, other = open_tensors(base), open_tensors(artefact, base)
    if reference is None or other is None:
        return None
    shares = []
    for name, rows, change in _changed_rows(reference, deltas):
        if name not in other.names or other.shape(name) != reference.shape(name):
            continue
        difference = other.read(name, rows) - reference.read(name, rows)
        power = max(float(np.vdot(change, change)), 1e-30)
        slope = float(np.vdot(difference, change)) / power
        shares.append((slope, whole_power(change, reference.shape(name))))
    return sum_up_shares(shares)


def warn_of_rounding(
    source: ShippingSource, deltas: Mapping[str, LoraDelta], dtype: str, to: str, float32_bytes: int
) -> KeptChange | None:
    """Forecast the merge, and warn if its type rounds a part of the adapter away. None if the base's weights
    are not here yet (on the hub)."""
    kept = forecast_kept_change(source.model.folder(), deltas, dtype)
    if kept is not None and not kept.is_enough:
        log_note(f"warning: rounding to 16 bit keeps {kept.describe()}: {_way_out(to, float32_bytes)}")
    return kept


def measure_exported_files(
    source: ShippingSource,
    deltas: Mapping[str, LoraDelta],
    folder: Path,
    forecast: KeptChange | None,
    float32_bytes: int,
) -> dict[str, KeptChange]:
    """What each written file holds of the adapter's change. Warn of files that hold less than was said."""
    kept: dict[str, KeptChange] = {}
    files = sorted(folder.glob("*.gguf"))
    for path in files or [folder]:
        name = path.name if files else "merged"
        with report_wait(f"export: comparing {name}"):
            measured = measure_kept_change(source.model.folder(), deltas, path)
        if measured is None:
            continue
        kept[name] = measured
        is_said = forecast is not None and abs(measured.share - forecast.share) < _SAME_SHARE
        if measured.is_enough or is_said:
            continue
        way_out = _way_out("gguf" if files else "merged", float32_bytes)
        if path.stem.endswith(tuple(f"-{kind}" for kind in QUANTISED)):
            way_out = "choose a finer --quantize, or --to gguf-lora and serve it beside the quantised base"
        log_note(f"warning: {name} holds {measured.describe()}: {way_out}")
    return kept


def _way_out(to: str, float32_bytes: int) -> str:
    flags = "--dtype float32" if to == "merged" else "--dtype float32 --quantize f32"
    size = f"{float32_bytes / 1e9:.1f} GB; " if float32_bytes else ""
    return (
        f"{flags} keeps all of it ({size}serve it in float32, such as vLLM's --dtype float32),"
        " and so does serving the adapter beside its base; or train longer or with a larger scale"
    )


def _changed_rows(reference: TensorSource, deltas: Mapping[str, LoraDelta]) -> Iterator[tuple[str, Any, Any]]:
    """Each changed weight of the base, sampled rows of it, and the change of these rows."""
    for module, delta in deltas.items():
        name = f"{plain_name(module)}.weight"
        if name not in reference.names:
            continue
        shape = reference.shape(name)
        if shape == (delta.up.shape[0], delta.down.shape[1]):
            rows = sampled_rows(shape)
            yield name, rows, change_of_rows(delta, rows)
