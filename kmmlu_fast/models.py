"""Which model, and which adapters: names to paths, checked before any engine starts.

In: a hub id, a local directory or ``demo``; adapter directories as PEFT writes them. Out: ``Model`` and ``Adapter`` records, tokenizers,
and merged copies for the CPU. A wrong adapter would kill the engine or, worse, be ignored: it is refused here in one line.
Knows nothing of prompts.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.demo import cache_root, demo_model_path
from kmmlu_fast.errors import AdapterError, ModelError
from kmmlu_fast.schema import Adapter

ADAPTER_CARD = "kmmlu_fast.json"  # what train wrote beside the weights
_WEIGHTS = "adapter_model.safetensors"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be loaded: ``path`` is a local directory or a hub id, ``digest`` tells its weights apart."""

    name: str
    path: str
    revision: str | None
    digest: str

    def config(self) -> dict[str, Any]:
        """config.json; text settings of a multimodal model lifted to the top."""
        loaded: dict[str, Any] = json.loads(_config_path(self.path, self.revision).read_text(encoding="utf-8"))
        return {**loaded, **loaded.get("text_config", {})}

    @property
    def context_tokens(self) -> int:
        return int(self.config().get("max_position_embeddings") or 2048)


def resolve_model(name: str, revision: str | None = None) -> Model:
    """The model of that name. ModelError if the directory is no model, or the hub cannot be reached or does not have it."""
    if name == "demo":
        path = demo_model_path()
        return Model("demo", str(path), None, (path / "complete").read_text().strip()[:16])
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            hint = (
                "; it is an adapter: give it with --adapter and its base with --model" if (folder / "adapter_config.json").exists() else ""
            )
            raise ModelError(f"model {name}: the directory has no config.json{hint}")
        return Model(folder.resolve().name, str(folder.resolve()), None, _directory_digest(folder))
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"model {name!r}: no such directory; give a local model directory, a hub id such as skt/A.X-4.0-Light, or 'demo'")
    commit = _config_path(name, revision).parent.name
    return Model(name, name, commit, commit[:16])


def _config_path(path: str, revision: str | None) -> Path:
    if Path(path).is_dir():
        return Path(path) / "config.json"
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(path, "config.json", revision=revision))
    except Exception as error:  # the hub client raises a dozen kinds; all mean the same to a user
        raise ModelError(
            f"model {path!r}: the hub cannot be reached or does not have it ({type(error).__name__}); check the name, --revision and the "
            "network, or give a local directory, or --model demo"
        ) from error


def _directory_digest(folder: Path) -> str:
    """sha256 (16 hex digits) over names, sizes and the first and last MiB of config, tokenizer and weights: quick at any size."""
    state = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin", ".model", ".jinja")):
        size = path.stat().st_size
        state.update(f"{path.name}\x1f{size}\x1f".encode())
        with path.open("rb") as file:
            state.update(file.read(_MIB))
            if size > _MIB:
                file.seek(max(_MIB, size - _MIB))
                state.update(file.read(_MIB))
    return state.hexdigest()[:16]


def load_tokenizer(model: Model) -> Any:
    """The base model's tokenizer (an adapter's own is never used, as in vLLM)."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model.path, revision=model.revision)
    except (OSError, ValueError) as error:
        raise ModelError(f"model {model.name}: its tokenizer cannot be loaded ({str(error).splitlines()[0]})") from error


def load_adapters(specs: list[str], model: Model, mode: str) -> list[Adapter]:
    """Adapters for ``[NAME=]PATH`` specs, each checked against the base model; distinct names and ids. AdapterError says what is wrong."""
    adapters: list[Adapter] = []
    for number, spec in enumerate(specs, start=1):
        name, _, path = spec.rpartition("=")
        folder = Path(path).expanduser()
        if not name:  # "a/lora" and "b/lora" need different names: vLLM tells adapters apart by name alone
            name = next(n for n in _names(folder) if n not in {adapter.name for adapter in adapters})
        if name in {adapter.name for adapter in adapters} or name == "base":
            raise AdapterError(f"--adapter {spec}: the name {name!r} is taken; give another as NAME={path}")
        adapters.append(_load_adapter(folder, name, number, model, mode))
    return adapters


def _names(folder: Path) -> list[str]:
    resolved = folder.resolve()
    return [resolved.name, f"{resolved.parent.name}-{resolved.name}", *(f"{resolved.name}-{i}" for i in range(2, 1000))]


def _load_adapter(folder: Path, name: str, adapter_id: int, model: Model, mode: str) -> Adapter:
    where = f"--adapter {folder}"
    if not folder.is_dir():
        raise AdapterError(f"{where}: no such directory; give the directory that holds adapter_config.json")
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise AdapterError(f"{where}: has no readable adapter_config.json, so it is no PEFT adapter") from error
    except ValueError as error:
        raise AdapterError(f"{where}: adapter_config.json is not valid JSON ({error})") from error
    _check_config(where, config, mode)
    weights = folder / _WEIGHTS
    if not weights.exists():
        raise AdapterError(
            f"{where}: has no {_WEIGHTS}; only safetensors are loaded (pickled .bin files can run code): save it again with PEFT"
        )
    rank = max([int(config["r"]), *(int(r) for r in (config.get("rank_pattern") or {}).values())])
    _check_weights(where, weights, rank, model)
    card = _read_card(folder)
    base = config.get("base_model_name_or_path")
    return Adapter(
        name=name,
        path=folder.resolve(),
        adapter_id=adapter_id,
        rank=rank,
        digest=hashlib.sha256(weights.read_bytes() + (folder / "adapter_config.json").read_bytes()).hexdigest()[:16],
        base_model=base,
        prompt_style=card.get("prompt_style"),
        template_digest=card.get("template_digest"),
    )


def _check_config(where: str, config: dict[str, Any], mode: str) -> None:
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{where}: peft_type is {config.get('peft_type')!r}; only LORA adapters can be evaluated")
    if not isinstance(config.get("r"), int) or config["r"] < 1:
        raise AdapterError(f"{where}: rank r is {config.get('r')!r}; it must be a whole number of 1 or more")
    if not config.get("target_modules"):
        raise AdapterError(f"{where}: target_modules is empty, so the adapter changes nothing")
    if config.get("modules_to_save"):
        raise AdapterError(
            f"{where}: has modules_to_save {config['modules_to_save']}, which vLLM refuses; merge it into the base model yourself "
            "(PEFT merge_and_unload) and give the result with --model"
        )
    if mode == "serve" and config.get("use_dora"):
        raise AdapterError(f"{where}: is a DoRA adapter, which vLLM cannot serve; use --adapter-mode merge")
    if mode == "serve" and config.get("bias", "none") != "none":
        raise AdapterError(f"{where}: has bias {config['bias']!r}, which vLLM cannot serve; use --adapter-mode merge")


def _check_weights(where: str, weights: Path, rank: int, model: Model) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{where}: {_WEIGHTS} is not a safetensors file ({error})") from error
    factors = {key: shape for key, shape in shapes.items() if "lora_A" in key}
    if not factors:
        raise AdapterError(f"{where}: {_WEIGHTS} holds no lora_A matrices")
    base = model.config()
    hidden, layers = base.get("hidden_size"), base.get("num_hidden_layers")
    for key, shape in factors.items():
        if shape[0] > rank:
            raise AdapterError(f"{where}: {key} has rank {shape[0]}, adapter_config.json says {rank}")
        reads_hidden = re.search(r"\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.", key)
        if reads_hidden and hidden and shape[1] != hidden:
            raise AdapterError(
                f"{where}: was made for a base of hidden size {shape[1]}, {model.name} has {hidden}; give its base with --model"
            )
        layer = re.search(r"layers\.(\d+)\.", key)
        if layer and layers and int(layer[1]) >= layers:
            raise AdapterError(f"{where}: has weights for layer {layer[1]}, {model.name} has {layers} layers; give its base with --model")


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CARD
    if not path.exists():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"{path}: is not valid JSON ({error}); delete it or train again") from error
    return card if isinstance(card, dict) else {}


def base_disagrees(adapter: Adapter, model: Model) -> str | None:
    """A warning where the adapter's recorded base has another name than the model (paths differ between machines), else None."""
    if not adapter.base_model or adapter.base_model in (model.name, model.path):
        return None
    known, given = Path(adapter.base_model).name.lower(), Path(model.path).name.lower()
    if known == given:
        return None
    return f"adapter {adapter.name} was made for base model {adapter.base_model!r}, but is evaluated on {model.name!r}; sizes agree"


def merge_adapter(model: Model, adapter: Adapter, dtype: str) -> Path:
    """A cached copy of the base with the adapter merged by PEFT: as fast as the base where LoRA kernels are slow (CPU)."""
    target = cache_root() / "merged" / f"{model.digest}-{adapter.digest}-{dtype}"
    if (target / "config.json").exists():
        return target
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        kind = "auto" if dtype == "auto" else getattr(torch, dtype)
        base = AutoModelForCausalLM.from_pretrained(model.path, revision=model.revision, dtype=kind)
        merged = PeftModel.from_pretrained(base, str(adapter.path)).merge_and_unload(safe_merge=True)
        partial.mkdir(parents=True)
        merged.save_pretrained(partial)
        load_tokenizer(model).save_pretrained(partial)
        partial.rename(target)
    except ValueError as error:  # safe_merge: NaN; PEFT: target modules that are not in the base
        raise AdapterError(f"--adapter {adapter.path}: cannot be merged into {model.name} ({str(error).splitlines()[0]})") from error
    except OSError as error:
        raise AdapterError(
            f"--adapter {adapter.path}: no merged copy in {target} ({error}); free disk space or set KMMLU_FAST_CACHE"
        ) from error
    return target
