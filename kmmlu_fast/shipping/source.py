"""What is to be shipped: an adapter, its 16-bit base, and what its card says.

In: an adapter directory, and a base if one is named. Out: ``ShippingSource``, or one line that says why it
cannot be shipped. Knows nothing of formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import AdapterError, ConfigError
from kmmlu_fast.core.reading import expand_path, read_json
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.machine.model_size import repository_quantization
from kmmlu_fast.models.adapters import load_adapters, read_adapter_card_file
from kmmlu_fast.models.demo import LICENCE as DEMO_LICENCE
from kmmlu_fast.models.model import Model, resolve_model

_OTHER_BASE = (
    "pissa",
    "olora",
    "corda",
    "loftq",
    "lora_ga",
)  # initialisations that change the base's weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippingSource:
    """An adapter and the 16-bit model that it changes. ``card`` is what ``train`` wrote, {} if it did not."""

    adapter: Adapter
    model: Model
    card: dict[str, Any]
    adapter_config: dict[str, Any]

    @property
    def initialisation(self) -> str:
        """How the adapter was initialised, if that changed the base's weights, such as ``pissa``; else ""."""
        start = self.adapter_config.get("init_lora_weights", True)
        name = start.lower() if isinstance(start, str) else ""
        return next((kind for kind in _OTHER_BASE if name.startswith(kind)), "")

    @property
    def licence(self) -> str:
        """The base's licence as its README says, or where to look."""
        if self.model.name == "demo":
            return DEMO_LICENCE
        readme = self.model.folder() / "README.md"
        lines = readme.read_text("utf-8", "replace").splitlines() if readme.is_file() else []
        stated = next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), "")
        return stated or f"see {self.model.name}"


def load_shipping_source(
    adapter: str, model: str | None, revision: str | None = None, trust_remote_code: bool = False
) -> ShippingSource:
    """The adapter on the base that is named, else on the one that it was trained on. AdapterError or
    ConfigError if there is none in 16 bit."""
    folder = expand_path(adapter, "adapter")
    config_file = folder / "adapter_config.json"
    if not config_file.is_file():
        raise AdapterError(f"{adapter}: has no adapter_config.json; give the directory of a LoRA adapter")
    config, card = read_json(config_file, AdapterError), read_adapter_card_file(folder)
    name = model or _recorded_base(folder, config, card)
    if model is None:
        revision = revision or config.get("revision")
    base = resolve_model(name, revision, trust_remote_code)
    if stored_as := repository_quantization(base.config()):
        raise ConfigError(
            f"model {base.name} is quantised ({bounded_repr(stored_as)}): merging into"
            " its weights would round the adapter away; give the 16-bit model that it was made from with"
            " --model"
        )
    (loaded,) = load_adapters([str(folder)], base, "peft or merge")
    return ShippingSource(adapter=loaded, model=base, card=card, adapter_config=config)


def _recorded_base(folder: Path, config: dict[str, Any], card: dict[str, Any]) -> str:
    recorded = card.get("base_model")
    if isinstance(recorded, dict) and recorded.get("name") == "demo":
        return "demo"
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise AdapterError(f"{folder}: adapter_config.json names no base model; give it with --model")
    return name
