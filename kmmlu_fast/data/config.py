"""The flags of ``python -m kmmlu_fast.leakage``.

In: values from YAML and the command line. Out: a frozen ``LeakageConfig``. Knows nothing of how overlap is found.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from kmmlu_fast.core.flags import Config
from kmmlu_fast.data.dataset import DEFAULT_DATASET


class LeakageConfig(Config):
    """python -m kmmlu_fast.leakage: find rows of a training file (default: the train split) that overlap a split."""

    positional: ClassVar[str | None] = "train_file"

    examples: ClassVar[tuple[str, ...]] = (
        "data/sft.jsonl",
        "anybody.json --dataset sample",
        "--output overlap.json",
    )

    train_file: list[Path] = Field([], description="JSONL or JSON training file of any layout; default: the dataset's train split")
    dataset: str = Field(DEFAULT_DATASET, description="hub id, directory of the hub's layout, or 'sample'")
    dataset_revision: str | None = Field(None, description="revision of the dataset on the hub")
    split: str = Field("test", description="split that must not be trained on: test or dev")
    output: Path | None = Field(None, description="write the split's overlapping question ids here (JSON), for compare --overlap")
    show: int = Field(10, ge=0, description="pairs to list a kind")
