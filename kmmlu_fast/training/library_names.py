"""Names that belong to other libraries: schedulers and optimisers; checked while flags are parsed.

In: a name. Out: the name, or ValueError with what is allowed. The lists are data, so that a misspelt name is
refused without importing transformers; a test holds them against the pinned version. Knows nothing of models.
"""

from __future__ import annotations

from kmmlu_fast.core.known_names import check_known_name, is_module_installed, offer_names

SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "warmup_stable_decay",  # its decay is the last fifth (``training.arguments``)
)
_WANTS_SETTINGS = "needs settings of its own, which are not offered here"
_WANTS_A_METRIC = "follows an evaluation loss that is not computed here"
UNUSABLE_SCHEDULERS = {
    "cosine_with_min_lr": _WANTS_SETTINGS,
    "cosine_warmup_with_min_lr": _WANTS_SETTINGS,
    "reduce_lr_on_plateau": _WANTS_A_METRIC,
    "greedy": _WANTS_A_METRIC,
}
OPTIMISERS = (
    "adamw_8bit",
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_8bit",
    "lion_32bit",
    "paged_lion_8bit",
    "paged_lion_32bit",
    "ademamix",
    "ademamix_8bit",
    "paged_ademamix_8bit",
    "paged_ademamix_32bit",
    "adafactor",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "adagrad",
    "sgd",
)
# Optimisers that work once a package is installed that nothing here needs.
OPTIMISER_MODULES = {
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    "grokadamw": "grokadamw",
    "schedule_free_adamw": "schedulefree",
    "schedule_free_radam": "schedulefree",
    "schedule_free_sgd": "schedulefree",
    "stable_adamw": "optimi",
}
_ALL_WEIGHTS = "is for training all weights, not a LoRA"
_OTHER_DEVICE = "is for another kind of device"
UNUSABLE_OPTIMISERS = {
    **dict.fromkeys(
        (
            "galore_adamw",
            "galore_adamw_8bit",
            "galore_adafactor",
            "galore_adamw_layerwise",
            "galore_adamw_8bit_layerwise",
            "galore_adafactor_layerwise",
            "lomo",
            "adalomo",
            "apollo_adamw",
            "apollo_adamw_layerwise",
        ),
        _ALL_WEIGHTS,
    ),
    "adamw_torch_xla": _OTHER_DEVICE,
    "adamw_torch_npu_fused": _OTHER_DEVICE,
    "adamw_anyprecision": "needs torchdistx, which no longer installs",
}


def check_scheduler_name(name: str) -> str:
    """The name; ValueError for one that transformers does not have, or that needs more than a name."""
    return check_known_name(name, SCHEDULERS, UNUSABLE_SCHEDULERS)


def check_optimiser_name(name: str) -> str:
    """The name; ValueError for one that transformers does not have, or that cannot train a LoRA here."""
    module = OPTIMISER_MODULES.get(name)
    if module is not None:
        if not is_module_installed(module):
            raise ValueError(f"needs the package {module}, which is not installed; {offer_names(OPTIMISERS)}")
        return name
    return check_known_name(name, OPTIMISERS, UNUSABLE_OPTIMISERS)
