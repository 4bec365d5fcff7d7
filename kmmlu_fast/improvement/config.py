"""The flags of ``python -m kmmlu_fast.improve``.

In: values from YAML and the command line. Out: a frozen ``ImproveConfig``. Knows nothing of what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PositiveInt, ValidationInfo, field_validator, model_validator

from kmmlu_fast.data.default_exam import DEFAULT_DATASET
from kmmlu_fast.engines.config import EngineConfig
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.engines.names import ENGINES
from kmmlu_fast.models.gguf import GGUF_IS_SERVED_ONLY, is_gguf_path

# Settings that may differ when a search is continued: they change no answer and no choice made so far.
_FREE = frozenset(
    {
        *("output_dir", "recipes", "minutes", "gpu_memory_utilization", "max_num_seqs"),
        *("ray_address", "num_replicas", "gpus_per_replica"),  # where it computes
    }
)
_SAME_ANSWERS = {"ray": "vllm"}  # engines that are another one, in other places


class ImproveConfig(EngineConfig):
    """python -m kmmlu_fast.improve: train many recipes, score them together, confirm the best on test."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "search": ("recipes", "rungs", "keep", "seeds", "minutes", "seed"),
        "data": ("dataset", "dataset_revision", "selection", "weakness"),
        "confirmation": ("max_questions", "margin", "fewshot_rival"),
        "output": ("output_dir",),
    }
    first: ClassVar[tuple[str, ...]] = (
        "recipes",
        "model",
        "dataset",
        "output_dir",
        "rungs",
        "keep",
        "seeds",
        "selection",
        "max_questions",
    )
    examples: ClassVar[tuple[str, ...]] = (
        "--model demo --dataset sample --recipes configs/recipes/quick.yaml --selection 2 --weakness 1"
        " --max-questions 90",
        "--model skt/A.X-4.0-Light --recipes configs/recipes/seed.yaml --minutes 600",
        "--recipes configs/recipes/seed.yaml --ray-address 10.0.0.1:6379",
    )

    @model_validator(mode="before")
    @classmethod
    def _choose_ray_by_its_address(cls, values: Any) -> Any:
        """A cluster's address alone says that Ray is meant."""
        if isinstance(values, dict) and values.get("ray_address") and "engine" not in values:
            return {**values, "engine": "ray"}
        return values

    @field_validator("model")
    @classmethod
    def _refuse_gguf_file(cls, value: str) -> str:
        if is_gguf_path(value):
            raise ValueError(GGUF_IS_SERVED_ONLY)
        return value

    @field_validator("engine")
    @classmethod
    def _refuse_engines_that_load_no_adapter(cls, value: str, info: ValidationInfo) -> str:
        """Not if the engine was chosen by a GGUF file, which is refused itself."""
        if "model" not in info.data or find_engine_kind(value).computes_here:
            return value
        able = ", ".join(name for name in ENGINES if find_engine_kind(name).computes_here)
        raise ValueError(f"improve trains adapters and loads them itself, which takes one of {able}")

    recipes: Path = Field(description="YAML file with recipes (a list), a grid, or both")
    output_dir: Path = Field(
        Path("out/improve"),
        description="directory of the search; the same command continues what is in it",
    )
    dataset: str = Field(
        DEFAULT_DATASET,
        description="KMMLU's rows: hub id, directory with the hub's layout, or 'sample' (packaged, CC0)",
    )
    dataset_revision: str | None = Field(None, description="revision of the dataset on the hub")
    selection: PositiveInt = Field(
        20,
        description=(
            "train questions per subject on which recipes are chosen; never trained on; default: 20, fewer if"
            " that is all there are"
        ),
    )
    weakness: PositiveInt = Field(
        10,
        description=(
            "train questions per subject that show where the base is weak; never trained on; default: 10,"
            " fewer if that is all there are"
        ),
    )
    rungs: int = Field(
        2, ge=1, le=6, description="times that recipes are scored while they train; the worse ones stop there"
    )
    keep: float = Field(
        0.5,
        gt=0,
        le=1,
        description=(
            "largest share of the recipes that goes on after a rung; 1 drops only what is shown to be worse"
        ),
    )
    seeds: int = Field(2, ge=1, le=10, description="trainings of each recipe in the last rung")
    minutes: float | None = Field(
        None,
        gt=0,
        description=(
            "time for all of it: recipes that would exceed it are not trained, and as many test questions are"
            " asked as fit"
        ),
    )
    max_questions: PositiveInt | None = Field(
        None, description="maximum number of test questions of the confirmation; default: until it is decided"
    )
    margin: float = Field(
        1.0, ge=0, description="confirmation: difference in pp within which the winner counts as equal"
    )
    fewshot_rival: int = Field(
        5,
        ge=0,
        le=5,
        description=(
            "also compare with the base given this many examples; 0: do not; default: 5, or as many as every"
            " subject has"
        ),
    )

    def identity(self) -> dict[str, Any]:
        """The settings that a continued search must share."""
        return compared_settings(self.model_dump(mode="json"))


def compared_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a search's settings that decide its answers and choices; also of one that was stored."""
    compared = {name: value for name, value in values.items() if name not in _FREE}
    if compared.get("engine") in _SAME_ANSWERS:
        compared["engine"] = _SAME_ANSWERS[compared["engine"]]
    return compared
