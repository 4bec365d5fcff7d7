"""What an adapter is, by PEFT's settings and the names of its tensors, and which ways of applying it are
exact.

In: adapter_config.json and tensor names. Out: for each way (served by vLLM, swapped into its weights, merged
by PEFT, unmerged by PEFT) the reason why it would give other answers than PEFT, or None. Sources: PEFT 0.21
``LoraConfig``, ``LoraVariant.merge_safe``; vLLM 0.32 ``PEFTHelper._validate_features``,
``parse_fine_tuned_lora_name``. Tests hold both tables against the installed libraries. Reads no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from kmmlu_fast.core.untrusted_text import bounded_repr, one_line

Way = Literal["serve", "swap", "merge", "unmerged"]
WAYS: tuple[Way, ...] = get_args(Way)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MAX_SERVED_RANK = 512  # vLLM's largest max_lora_rank
FACTOR_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
# Projections of dense decoders, which checkpoints store as one matrix each.
_STORED_WHOLE = _words("q_proj k_proj v_proj o_proj gate_proj up_proj down_proj qkv_proj gate_up_proj")
# Names of the same layers in other families. vLLM adapts every linear layer; swapping knows the ones above.
_SERVED = _STORED_WHOLE | _words(
    "query_key_value dense dense_h_to_4h dense_4h_to_h c_attn c_proj c_fc c_fc_0 c_fc_1 out_proj fc1 fc2"
    " fc_in fc_out w1 w2 w3 wq wk wv wo wqkv Wqkv in_proj W_pack dense_proj"
)
_NOT_TEXT = re.compile(r"(?:^|\.)(?:vision|visual|audio|image|multi_modal|mm_projector|embed_vision)")


@dataclass(frozen=True, slots=True)
class Feature:
    """A setting that makes an adapter more than W + s·B·A: vLLM neither serves it nor can it be swapped
    in."""

    name: str
    merges: bool = True  # PEFT's merge gives what PEFT gives unmerged
    unmerged: bool = True  # PEFT applies it beside an unchanged base, and can switch it off again
    remedy: str = ""  # if no way is left


_CONVERT = (
    "convert it to a plain LoRA with PEFT (save_pretrained with path_initial_model_for_weight_conversion)"
)

FEATURES: dict[str, Feature] = {
    "use_dora": Feature("DoRA"),
    "use_bdlora": Feature("block-diagonal LoRA"),
    "use_qalora": Feature("QALoRA", merges=False, unmerged=False, remedy="evaluate it with PEFT on its base"),
    "lora_bias": Feature("with a bias in lora_B"),
    "bias": Feature("with trained biases, which PEFT leaves in the base", unmerged=False),
    "layer_replication": Feature(
        "for a base with replicated layers",
        merges=False,
        unmerged=False,
        remedy="save the base with its layers replicated, and train on that",
    ),
    "target_parameters": Feature("for matrices of experts"),
    "trainable_token_indices": Feature("with trained token embeddings"),
    "modules_to_save": Feature("with whole modules"),
    "fan_in_fan_out": Feature("for transposed weights"),
    "alora_invocation_tokens": Feature(
        "an activated LoRA, which starts at a phrase in the prompt",
        merges=False,
        unmerged=False,
        remedy="train it as a plain LoRA",
    ),
    "arrow_config": Feature(
        "an Arrow router over other adapters",
        merges=False,
        unmerged=False,
        remedy="give the adapters that it routes to",
    ),
    "megatron_config": Feature(
        "for Megatron's layers", merges=False, unmerged=False, remedy="convert it to a plain LoRA"
    ),
    "kasa_config": Feature("KaSA, which changes the base's weights", unmerged=False),
    "monteclora_config": Feature("MonteCLoRA"),
}

# Settings that every way takes: they decide the tensors and their scale, or matter in training alone.
PLAIN_SETTINGS = _words(
    "task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode r"
    " target_modules exclude_modules lora_alpha lora_dropout use_rslora layers_to_transform layers_pattern"
    " rank_pattern alpha_pattern megatron_core loftq_config eva_config corda_config lora_ga_config"
    " velora_config qalora_group_size runtime_config ensure_weight_tying init_lora_weights"
)

# Ways to start training. A name that is not known counts as one that changes the base's weights.
_HARMLESS_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
# Which base it was cannot be computed again from the base alone (CorDA), or on a GPU only (LoftQ).
_LOST_BASE_STARTS = ("corda", "loftq")


def way_problem(config: Mapping[str, Any], keys: Iterable[str], way: Way) -> str | None:
    """Why ``way`` would not apply the adapter as PEFT does; None if it does."""
    for name, feature in FEATURES.items():
        value = config.get(name)
        if not value or (name == "bias" and value == "none"):
            continue
        if way in ("serve", "swap") or not (feature.merges if way == "merge" else feature.unmerged):
            return f"it is {feature.name} ({name} {bounded_repr(value)} in adapter_config.json)"
    start = _start_problem(config, way)
    if start:
        return start
    if way in ("merge", "unmerged"):
        return None
    rank = largest_rank(config)
    if way == "serve" and rank > MAX_SERVED_RANK:
        return f"its rank {rank} is above vLLM's maximum of {MAX_SERVED_RANK}"
    return _key_problem(keys, _STORED_WHOLE if way == "swap" else _SERVED)


def _start_problem(config: Mapping[str, Any], way: Way) -> str | None:
    start = config.get("init_lora_weights", True)
    if not isinstance(start, str) or start.lower() in _HARMLESS_STARTS:
        return None
    shown = f"init_lora_weights {bounded_repr(start)}"
    if start.lower().startswith(_LOST_BASE_STARTS):
        return f"{shown}: it was trained on other weights than the base's, which are lost"
    if way == "merge":
        return None
    return f"{shown}: it was trained on other weights than the base's"


def _key_problem(keys: Iterable[str], known_names: frozenset[str]) -> str | None:
    """The first tensor that is not a factor of a decoder's linear layer."""
    for key in keys:
        match = FACTOR_KEY.fullmatch(key)
        if match is None:
            return f"it changes {one_line(key.removeprefix('base_model.model.'), 120)}"
        module = match[1]
        leaf = module.rpartition(".")[2]
        if leaf not in known_names or ".experts." in module or _NOT_TEXT.search(module):
            return f"it changes {one_line(module, 120)}"
    return None


def remedy(config: Mapping[str, Any]) -> str:
    """What to do with an adapter that no way applies."""
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_LOST_BASE_STARTS):
        return _CONVERT
    texts = (feature.remedy for name, feature in FEATURES.items() if config.get(name))
    return next(filter(None, texts), _CONVERT)


def largest_rank(config: Mapping[str, Any]) -> int:
    return int(max([config["r"], *(config.get("rank_pattern") or {}).values()]))


def adapter_notes(name: str, config: Mapping[str, Any]) -> list[str]:
    """What the user should know about settings of an adapter that is applied."""
    notes = []
    unknown = [key for key, value in config.items() if value and key not in PLAIN_SETTINGS | set(FEATURES)]
    if unknown:
        notes.append(
            f"adapter {name}: adapter_config.json sets {one_line(', '.join(sorted(unknown)), 200)}, which the"
            " PEFT that this version was made for does not have; it is ignored"
        )
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith("pissa_niter"):
        notes.append(
            f"adapter {name}: {start} starts from a randomised SVD, which PEFT computes again when it loads"
            f" the adapter: what is evaluated is only near to what was trained; {_CONVERT}"
        )
    return notes
