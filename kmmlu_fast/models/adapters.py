"""LoRA adapters as evaluation takes them: found, named, and checked against their base before an engine
starts.

In: ``--adapter`` arguments and a ``Model``. Out: ``Adapter`` records, or AdapterError that names the file.
Knows PEFT's files and the card and log that ``train`` writes beside them, but no engines or questions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.core.reading import parse_json, read_bytes, read_json
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line
from kmmlu_fast.models.adapter_features import (
    WAYS,
    Way,
    adapter_notes,
    largest_rank,
    remedy,
    way_problem,
)
from kmmlu_fast.models.adapter_files import ADAPTER_CARD as ADAPTER_CARD
from kmmlu_fast.models.adapter_files import STATE as STATE
from kmmlu_fast.models.adapter_files import (
    AdapterFiles,
    find_adapter_folder,
    read_adapter_files,
    split_adapter_spec,
)
from kmmlu_fast.models.adapter_fit import check_adapter_fit
from kmmlu_fast.models.model import Model

PLOT = "loss.svg"
LOG = "train_log.jsonl"
_MAX_RANK = 8192
# The ways of applying an adapter that each mode may take, the preferred one first.
_WAYS_OF_MODE: dict[str, tuple[Way, ...]] = {
    "auto": ("serve", "swap", "merge"),
    "serve": ("serve",),
    "swap": ("swap", "merge"),
    "merge": ("merge",),
    "peft": ("unmerged",),
    "peft or merge": ("unmerged", "merge"),
    "server": (),  # what a server applies is the server's to check
}


def load_adapters(specs: list[str], model: Model, mode: str) -> list[Adapter]:
    """Adapters for ``[NAME=]PATH`` or ``[NAME=]ORG/NAME[@REVISION]`` specs, checked against the base model,
    with distinct names and ids. AdapterError says what is wrong.

    ``mode``, how they will be applied: "serve" (by vLLM), "swap", "merge", "auto" (any of these), "peft"
    (unmerged, by the transformers engine), "peft or merge", or "server".
    """
    adapters: list[Adapter] = []
    for number, spec in enumerate(specs, start=1):
        name, path = split_adapter_spec(spec)
        folder, own_name = find_adapter_folder(path)
        taken = {adapter.name for adapter in adapters}
        if not name:  # vLLM distinguishes adapters by name only, so "a/lora" and "b/lora" need two names
            name = next(each for each in _candidate_names(own_name, folder) if each not in taken)
        if name in taken or name == "base":
            raise AdapterError(f"--adapter {spec}: the name {name!r} is taken; give another as NAME={path}")
        adapters.append(_load_adapter(folder, name, number, model, mode))
    return adapters


def _candidate_names(own_name: str, folder: Path) -> list[str]:
    numbered = [f"{own_name}-{number}" for number in range(2, 1000)]
    return [own_name, f"{folder.resolve().parent.name}-{own_name}", *numbered]


def _load_adapter(folder: Path, name: str, adapter_id: int, model: Model, mode: str) -> Adapter:
    where = f"--adapter {folder}"
    files = read_adapter_files(folder, where)
    check_adapter(files, model, mode, where)
    card = read_adapter_card_file(folder)
    return Adapter(
        name=name,
        path=files.folder,
        adapter_id=adapter_id,
        rank=largest_rank(files.config),
        digest=files.digest,
        base_model=_text_or_none(files.config.get("base_model_name_or_path")),
        prompt_style=_text_or_none(card.get("prompt_style")),
        template_digest=_text_or_none(card.get("template_digest")),
    )


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def check_adapter(files: AdapterFiles, model: Model, mode: str, where: str) -> None:
    """AdapterError unless every tensor has its place in the base, and one of the mode's ways applies it as
    PEFT does."""
    _check_settings(where, files.config)
    _check_shapes(where, files, model)
    problems = {way: way_problem(files.config, files.shapes, way) for way in WAYS}
    if None not in problems.values():
        raise AdapterError(f"{where}: {problems['merge']}: no engine here applies it; {remedy(files.config)}")
    unbiased = check_adapter_fit(files, model, where)
    if unbiased and not problems["merge"]:
        problems["merge"] = f"it has a bias for {unbiased}, which has none in the base"
    wanted = [problems[way] for way in _WAYS_OF_MODE[mode]]
    if not wanted or None in wanted:
        return
    if not problems["merge"]:
        by = "vLLM cannot serve it" if mode == "serve" else "PEFT cannot apply it beside an unchanged base"
        raise AdapterError(f"{where}: {wanted[0]}: {by}; use --adapter-mode merge")
    raise AdapterError(f"{where}: {wanted[-1]}: it cannot be merged; use --engine transformers")


def _check_settings(where: str, config: dict[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise AdapterError(f"{where}: peft_type is {bounded_repr(kind)}; only LORA adapters can be evaluated")
    pattern = config.get("rank_pattern") or {}
    if not isinstance(pattern, dict):
        pattern = {"rank_pattern": pattern}
    for name, rank in [("rank r", config.get("r")), *pattern.items()]:
        if type(rank) is not int or not 1 <= rank <= _MAX_RANK:
            raise AdapterError(
                f"{where}: {one_line(name, 100)} is {bounded_repr(rank)}; it must be a whole number from 1 to"
                f" {_MAX_RANK}"
            )
    if not config.get("target_modules") and not config.get("target_parameters"):
        raise AdapterError(f"{where}: target_modules is empty, so the adapter changes nothing")


def _check_shapes(where: str, files: AdapterFiles, model: Model) -> None:
    """What the shapes and the base's config.json tell at once, in the words of a user's likeliest mistake."""
    factors = {key: shape for key, shape in files.shapes.items() if "lora_A" in key}
    if not factors and not any("lora_embedding_A" in key for key in files.shapes):
        raise AdapterError(f"{where}: adapter_model.safetensors holds no lora_A matrices")
    rank = largest_rank(files.config)
    base = model.config()
    hidden, layers = base.get("hidden_size"), base.get("num_hidden_layers")
    for key, shape in factors.items():
        if len(shape) != 2:
            raise AdapterError(
                f"{where}: {bounded_repr(key)} has {len(shape)} dimensions; a LoRA matrix has 2"
            )
        # The factors of experts in one matrix have rank r for each expert.
        if shape[0] > rank and not files.config.get("target_parameters"):
            raise AdapterError(f"{where}: {key} has rank {shape[0]}, adapter_config.json says {rank}")
        reads_hidden = re.search(r"layers\.\d+\.self_attn\.(q_proj|k_proj|v_proj)\.", key)
        in_vision = re.search(r"vision|visual|audio", key)
        if reads_hidden and not in_vision and hidden and shape[1] != hidden:
            raise AdapterError(
                f"{where}: was made for a base of hidden size {shape[1]}, {model.name} has {hidden}; give its"
                " base with --model"
            )
        layer = re.search(r"layers\.(\d+)\.", key)
        replicated = files.config.get("layer_replication")
        if (
            layer
            and not in_vision
            and not replicated
            and isinstance(layers, int)
            and int(layer[1][:9]) >= layers
        ):
            raise AdapterError(
                f"{where}: has weights for layer {layer[1]}, {model.name} has {layers} layers; give its base"
                " with --model"
            )


def read_adapter_card_file(folder: Path) -> dict[str, Any]:
    """The card that ``train`` wrote, {} if there is none. AdapterError if it is unreadable."""
    path = folder / ADAPTER_CARD
    if not path.exists():
        return {}
    try:
        return read_json(path, AdapterError)
    except AdapterError as error:
        raise AdapterError(f"{error}; delete it or train again") from error


def adapter_way_problem(folder: Path, way: Way) -> str | None:
    """Why ``way`` would not apply the adapter in ``folder`` as PEFT does; None if it does."""
    files = read_adapter_files(folder, f"--adapter {folder}")
    return way_problem(files.config, files.shapes, way)


def adapter_warnings(adapter: Adapter, model: Model) -> list[str]:
    """What to say about an adapter that is evaluated: another base than it names, settings that nobody
    knows."""
    config = read_json(adapter.path / "adapter_config.json", AdapterError)
    other_base = base_model_warning(adapter, model)
    return [*([other_base] if other_base else []), *adapter_notes(adapter.name, config)]


def base_model_warning(adapter: Adapter, model: Model) -> str | None:
    """A warning if the adapter's recorded base has another name than the model, else None. Only the last part
    of a path counts: paths differ between machines."""
    if not adapter.base_model or adapter.base_model == model.name:
        return None
    if Path(adapter.base_model).name.lower() == Path(model.path).name.lower():
        return None
    return (
        f"adapter {adapter.name} was made for base model {adapter.base_model!r}, but is evaluated on"
        f" {model.name!r}; sizes agree"
    )


def read_training_log(path: Path) -> list[dict[str, Any]]:
    """The log's records up to the first line that is not one (such as a last line cut off by a kill)."""
    records: list[dict[str, Any]] = []
    if not path.exists():
        return records
    for line in read_bytes(path, AdapterError).decode("utf-8", "replace").split("\n"):
        try:
            record = parse_json(line, str(path), AdapterError)
        except AdapterError:
            break
        if not isinstance(record, dict):
            break
        if not isinstance(record.get("kind"), str) or type(record.get("step")) is not int:
            break
        records.append(record)
    return records
