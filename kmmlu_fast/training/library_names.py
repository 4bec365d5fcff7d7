"""Names that belong to other libraries: schedulers, optimisers, trackers; checked while flags are parsed.

In: a name. Out: the name, or ValueError with what is allowed. The lists are data, so that a misspelt name is
refused without importing transformers; a test holds them against the pinned version. Knows nothing of models.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence

from kmmlu_fast.core.errors import InstallError

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
# The modules that a tracker needs; of several in one entry, one is enough.
TRACKERS: dict[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard|tensorboardX",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "comet_ml": ("comet_ml",),
    "clearml": ("clearml",),
    "swanlab": ("swanlab",),
    "neptune": ("neptune",),
    "dvclive": ("dvclive",),
    "dagshub": ("dagshub", "mlflow"),
    "codecarbon": ("codecarbon",),
    "azure_ml": ("azureml",),
    "flyte": ("flytekit",),
    "kubeflow": (),
}


def check_scheduler_name(name: str) -> str:
    """The name; ValueError for one that transformers does not have, or that needs more than a name."""
    return _check_name(name, SCHEDULERS, UNUSABLE_SCHEDULERS)


def check_optimiser_name(name: str) -> str:
    """The name; ValueError for one that transformers does not have, or that cannot train a LoRA here."""
    module = OPTIMISER_MODULES.get(name)
    if module is not None:
        if not _is_installed(module):
            raise ValueError(f"needs the package {module}, which is not installed; {_offer(OPTIMISERS)}")
        return name
    return _check_name(name, OPTIMISERS, UNUSABLE_OPTIMISERS)


def check_tracker_names(names: Sequence[str]) -> list[str]:
    """The names without "none"; ValueError for one that transformers does not report to."""
    for name in names:
        _check_name(name, (*TRACKERS, "all", "none"), {})
    alone = {"all", "none"} & {*names}
    if alone and len(names) > 1:
        raise ValueError(f"{sorted(alone)[0]} stands alone; give it, or names of trackers")
    return [name for name in names if name != "none"]


def require_trackers(names: Sequence[str]) -> None:
    """InstallError for a tracker that is not installed, before anything is loaded."""
    for name in names:
        absent = [module.split("|")[0] for module in TRACKERS.get(name, ()) if not _is_installed(module)]
        if absent:
            raise InstallError(
                f"--report-to {name}: needs {', '.join(absent)}, which is not installed: pip install"
                f" {' '.join(absent)}, or leave it out (extra trackers: pip install 'kmmlu-fast[trackers]')"
            )


def _is_installed(module: str) -> bool:
    return any(importlib.util.find_spec(name) is not None for name in module.split("|"))


def _check_name(name: str, allowed: Sequence[str], unusable: Mapping[str, str]) -> str:
    if name in allowed:
        return name
    if name in unusable:
        raise ValueError(f"{unusable[name]}; {_offer(allowed)}")
    word = name.lower().replace("-", "_")
    begun = [known for known in allowed if known.startswith(word)]
    near = begun[:3] or difflib.get_close_matches(word, allowed, n=3, cutoff=0.6)
    raise ValueError(f"is not known; did you mean {' or '.join(near)}?" if near else _offer(allowed))


def _offer(allowed: Iterable[str]) -> str:
    return f"give one of {', '.join(allowed)}"
