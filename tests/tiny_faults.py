"""Faults planted in a merged directory or a GGUF file, and exports that are right in another form.

In: a good artefact and a place for the bad one. Out: its path. Knows nothing of kmmlu_fast.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tensors = dict[str, Any]
MODULES = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def copy_model(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def edit_tensors(source: Path, target: Path, edit: Callable[[Tensors], Tensors | None]) -> Path:
    """A copy of the directory whose tensors went through ``edit``."""
    from safetensors.torch import load_file, save_file

    copy_model(source, target)
    tensors = load_file(target / "model.safetensors")
    changed = edit(tensors) or tensors
    save_file({name: tensor.contiguous() for name, tensor in changed.items()}, target / "model.safetensors")
    return target


def edit_json(folder: Path, name: str, **values: Any) -> Path:
    """Set keys of a JSON file of the directory; None removes one."""
    path = folder / name
    settings = json.loads(path.read_text("utf-8"))
    for key, value in values.items():
        settings.pop(key, None)
        if value is not None:
            settings[key] = value
    path.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    return folder


def adapter_changes(adapter: Path) -> Tensors:
    """s·B·A of every module, by the name of its weight."""
    from safetensors.torch import load_file

    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    tensors = load_file(adapter / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    changes = {}
    for key, down in tensors.items():
        if "lora_A" in key:
            up = tensors[key.replace("lora_A", "lora_B")]
            name = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            changes[name] = scale * (up.float() @ down.float())
    return changes


def rescale(merged: Path, adapter: Path, target: Path, factor: float, only: str = "") -> Path:
    """The merge with ``factor`` times the adapter's change, in modules whose name holds ``only``."""
    changes = adapter_changes(adapter)

    def edit(tensors: Tensors) -> None:
        for name, change in changes.items():
            if only in name:
                tensors[name] = (tensors[name].float() + (factor - 1) * change).to(tensors[name].dtype)

    return edit_tensors(merged, target, edit)


def edit_gguf(source: Path, target: Path, changes: dict[str, Any], drop: tuple[str, ...] = ()) -> Path:
    """A copy of a GGUF file with other metadata; tensors stay."""
    import gguf

    reader = gguf.GGUFReader(str(source))
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(str(target), architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture" or name in drop:
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, changes.get(name, field.contents()), kind, sub_type)
    for name, value in changes.items():
        if name not in reader.fields:
            is_id = isinstance(value, int) and not isinstance(value, bool)  # llama.cpp wants ids unsigned
            kind = gguf.GGUFValueType.UINT32 if is_id else gguf.GGUFValueType.get_type(value)
            writer.add_key_value(name, value, kind)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def requantize_gguf(source: Path, target: Path, levels: int) -> Path:
    """A copy of a GGUF file with its matrices in Q4_0, rounded to ``levels`` values a block before that."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(str(source))
    writer = gguf.GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = gguf.LlamaFileType.MOSTLY_Q4_0.value if name == "general.file_type" else field.contents()
        writer.add_key_value(name, value, kind, sub_type)
    for tensor in reader.tensors:
        if len(tensor.shape) < 2:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        blocks = values.reshape(-1, 32)
        step = np.maximum(np.abs(blocks).max(1, keepdims=True), 1e-9) * 2 / (levels - 1)
        coarse = (np.round(blocks / step) * step).reshape(values.shape).astype(np.float32)
        packed = gguf.quants.quantize(coarse, gguf.GGMLQuantizationType.Q4_0)
        writer.add_tensor(tensor.name, packed, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
