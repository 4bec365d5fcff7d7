"""Kinds of adapters that PEFT makes: the way each is applied on a CPU and on a card, or the reason why it is
refused; and that a merged copy answers as PEFT does unmerged.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_families import FAMILIES, PROJECTIONS, make_family_model, make_peft_adapter

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.evaluation.adapter_mode import adapter_loading_mode, choose_adapter_mode
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.machine import device
from kmmlu_fast.models.adapter_features import FEATURES, PLAIN_SETTINGS, adapter_notes, way_problem
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.merging import merge_adapter
from kmmlu_fast.models.model import resolve_model

EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
NEITHER = ("refused", "refused", "refused")
MERGED = ("merge", "merge", "serve")


@dataclasses.dataclass(frozen=True)
class Kind:
    """Settings of LoraConfig, and how the adapter is applied: vLLM on a CPU, on a card, transformers."""

    settings: dict[str, Any]
    modes: tuple[str, str, str] = ("swap", "serve", "serve")
    base: str = "qwen2"
    edit: dict[str, Any] | None = (
        None  # of adapter_config.json, where PEFT does not make such an adapter here
    )


KINDS = {
    "plain": Kind({}),
    "rslora": Kind({"use_rslora": True}),
    "patterns": Kind({"rank_pattern": {"q_proj": 8}, "alpha_pattern": {r"1\.mlp\.up_proj": 2}}),
    "all_linear": Kind({"target_modules": "all-linear"}),
    "regex": Kind({"target_modules": r".*layers\.[01]\.self_attn\.(q|v)_proj"}),
    "one_layer": Kind({"layers_to_transform": [1]}),
    "excluded": Kind({"exclude_modules": ["v_proj"]}),
    "gaussian": Kind({"init_lora_weights": "gaussian"}),
    "orthogonal": Kind({"init_lora_weights": "orthogonal"}),
    "mica": Kind({"init_lora_weights": "mica"}),
    "rank_520": Kind({"r": 520, "target_modules": ["q_proj"]}, ("swap", "swap", "serve")),
    "pissa": Kind({"init_lora_weights": "pissa"}, ("merge", "merge", "merge")),
    "olora": Kind({"init_lora_weights": "olora"}, ("merge", "merge", "merge")),
    "loftq": Kind({}, NEITHER, edit={"init_lora_weights": "loftq"}),
    "corda": Kind({}, NEITHER, edit={"init_lora_weights": "corda"}),
    "dora": Kind({"use_dora": True}, MERGED),
    "lora_bias": Kind({"lora_bias": True, "target_modules": ["q_proj", "k_proj"]}, MERGED),
    "lora_bias_no_base_bias": Kind({"lora_bias": True}, ("refused", "refused", "serve")),
    "all_biases": Kind({"bias": "all"}, ("merge", "merge", "merge")),
    "lora_only_biases": Kind({"bias": "lora_only"}, ("merge", "merge", "merge")),
    "embeddings": Kind({"target_modules": [*PROJECTIONS, "embed_tokens"]}, MERGED),
    "embeddings_of_tied": Kind({"target_modules": [*PROJECTIONS, "embed_tokens"]}, MERGED, "tied"),
    "head": Kind({"target_modules": [*PROJECTIONS, "lm_head"]}, MERGED),
    "head_of_tied": Kind({"target_modules": [*PROJECTIONS, "lm_head"]}, MERGED, "tied"),
    "tied_together": Kind(
        {"target_modules": [*PROJECTIONS, "embed_tokens"], "ensure_weight_tying": True}, MERGED, "tied"
    ),
    "saved_head": Kind({"modules_to_save": ["lm_head"]}, MERGED),
    "saved_head_of_tied": Kind({"modules_to_save": ["lm_head"]}, MERGED, "tied"),
    "saved_norms": Kind({"modules_to_save": ["input_layernorm"]}, MERGED),
    "tokens": Kind({"trainable_token_indices": [3, 4]}, MERGED),
    "tokens_of_tied": Kind({"trainable_token_indices": [3, 4]}, MERGED, "tied"),
    "experts": Kind({"target_modules": ["q_proj"], "target_parameters": EXPERTS}, MERGED, "moe"),
    "kasa": Kind({"kasa_config": {}}, ("merge", "merge", "merge")),
    "replicated": Kind({"layer_replication": [(0, 2), (0, 2)]}, NEITHER),
    "activated": Kind({}, NEITHER, edit={"alora_invocation_tokens": [5, 6]}),
    "qalora": Kind({}, NEITHER, edit={"use_qalora": True}),
    "arrow": Kind({}, NEITHER, edit={"arrow_config": {"top_k": 2}}),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("kinds")
    return {
        "qwen2": make_family_model(root / "qwen2", "Qwen2"),
        "tied": make_family_model(root / "tied", "Llama", tie_word_embeddings=True),
        "moe": make_family_model(root / "moe", "Qwen3Moe"),
    }


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Iterator[None]:
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    yield


def make_kind(kind: Kind, base: Path, folder: Path) -> Path:
    settings = dict(kind.settings)
    if "kasa_config" in settings:
        from peft import KasaConfig

        settings["kasa_config"] = KasaConfig()
    make_peft_adapter(base, folder, **settings)
    if kind.edit:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **kind.edit}))
    return folder


def mode_or_reason(base: Path, folder: Path, *flags: str) -> tuple[str, str]:
    """What an evaluation decides before it opens an engine."""
    config = parse_config(EvalConfig, ["--model", str(base), "--adapter", str(folder), *flags], "eval")
    try:
        [adapter] = load_adapters(config.adapter, resolve_model(str(base)), adapter_loading_mode(config))
    except AdapterError as error:
        assert "\n" not in str(error)
        return "refused", str(error)
    return choose_adapter_mode(config, adapter)


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_has_its_mode_or_its_reason(
    name: str, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = KINDS[name]
    base = bases[kind.base]
    folder = make_kind(kind, base, tmp_path / name)
    table = {}
    for where, card, flags in (
        ("CPU", False, []),
        ("card", True, []),
        ("transformers", False, ["--engine", "transformers"]),
    ):
        monkeypatch.setattr(device, "has_gpu", lambda card=card: card)
        table[where] = mode_or_reason(base, folder, *flags)
    print(name, table)
    assert tuple(mode for mode, _ in table.values()) == kind.modes
    if "merge" in kind.modes:
        check_merged_logits(base, folder)


def logits_of(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(torch.arange(6, 60)[None]).logits


def check_merged_logits(base: Path, folder: Path) -> None:
    """The merged copy's logits are PEFT's own, unmerged, to 1e-4; and not the base's."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = resolve_model(str(base))
    [adapter] = load_adapters([str(folder)], model, "merge")
    merged = logits_of(AutoModelForCausalLM.from_pretrained(merge_adapter(model, adapter, "float32")))
    alone = AutoModelForCausalLM.from_pretrained(base)
    before = logits_of(alone).clone()
    with torch.random.fork_rng(devices=[]):
        unmerged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    head = unmerged.get_output_embeddings()
    assert head is not None
    assert float((merged - logits_of(unmerged)).abs().max()) < 1e-4
    assert float((merged - before).abs().max()) > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_copies_of_every_family_answer_as_peft(family: str, tmp_path: Path) -> None:
    base = make_family_model(tmp_path / "base", family)
    folder = make_peft_adapter(base, tmp_path / "lora", target_modules=FAMILIES[family][1])
    check_merged_logits(base, folder)


def test_every_setting_of_the_installed_peft_is_known() -> None:
    """A new field of LoraConfig is judged here before a user brings it."""
    from peft import LoraConfig

    names = {field.name for field in dataclasses.fields(LoraConfig)}
    assert names - PLAIN_SETTINGS == set(FEATURES)
    assert names >= PLAIN_SETTINGS and not PLAIN_SETTINGS & set(FEATURES)


def test_a_setting_that_nobody_knows_is_said() -> None:
    [note] = adapter_notes("lora", {"r": 4, "use_newest": 3, "use_later": None})
    assert "use_newest" in note and "use_later" not in note


VLLM_REFUSES: dict[str, Any] = {
    "use_dora": True,
    "lora_bias": True,
    "alora_invocation_tokens": [5],
    "layer_replication": [[0, 2]],
    "use_bdlora": {"target_modules_bd_a": ["q_proj"]},
    "use_qalora": True,
    "modules_to_save": ["lm_head"],
    "bias": "all",
    **{f"start {name}": name for name in ("pissa", "PiSSA_niter_4", "olora", "corda", "loftq", "brand_new")},
}


@pytest.mark.parametrize("name", VLLM_REFUSES)
def test_what_vllm_refuses_is_never_served(name: str) -> None:
    """By vLLM's own check, where it is installed: every refusal is known without it."""
    helper = pytest.importorskip("vllm.lora.peft_helper").PEFTHelper
    config_of = pytest.importorskip("vllm.config.lora").LoRAConfig
    field = "init_lora_weights" if name.startswith("start ") else name
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], field: VLLM_REFUSES[name]}
    with pytest.raises(ValueError):
        helper.from_dict(config).validate_legal(config_of(max_lora_rank=8))
    assert way_problem(config, [], "serve")


@pytest.mark.parametrize("start", ["gaussian", "eva", "orthogonal", "mica", "lora_ga", True, False])
def test_what_vllm_takes_may_be_served(start: str | bool) -> None:
    helper = pytest.importorskip("vllm.lora.peft_helper").PEFTHelper
    config_of = pytest.importorskip("vllm.config.lora").LoRAConfig
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "init_lora_weights": start}
    helper.from_dict(config).validate_legal(config_of(max_lora_rank=8))
    assert (
        way_problem(config, ["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"], "serve")
        is None
    )


REFUSED_KEYS: list[tuple[str, Callable[[str], bool]]] = [
    ("base_model.model.lm_head.weight", lambda reason: "lm_head" in reason),
    ("base_model.model.model.embed_tokens.lora_embedding_A", lambda reason: "embed_tokens" in reason),
    (
        "base_model.model.model.layers.0.mlp.experts.3.up_proj.lora_A.weight",
        lambda reason: "experts" in reason,
    ),
    ("base_model.model.model.vision_tower.layers.0.self_attn.q_proj.lora_A.weight", lambda r: "vision" in r),
]


@pytest.mark.parametrize(("key", "named"), REFUSED_KEYS)
def test_tensors_that_only_peft_applies_are_named(key: str, named: Callable[[str], bool]) -> None:
    config = {"r": 4}
    for way in ("serve", "swap"):
        assert named(str(way_problem(config, [key], way)))
    assert way_problem(config, [key], "merge") is None
