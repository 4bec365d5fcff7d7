"""The flags of ``python -m kmmlu_fast.leakage``.

In: values from YAML and the command line. Out: a frozen ``LeakageConfig``. Knows nothing of how overlap is
found.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from kmmlu_fast.command.flags import Config
from kmmlu_fast.data.default_exam import DEFAULT_DATASET


class LeakageConfig(Config):
    """python -m kmmlu_fast.leakage: find rows of a training file (default: the train split) that overlap a
    split."""

    positional: ClassVar[str | None] = "train_file"
    examples: ClassVar[tuple[str, ...]] = (
        "data/sft.jsonl",
        "anybody.json --dataset sample",
        "--output overlap.json",
    )

    train_file: list[Path] = Field(
        [],
        description=("rows of any layout: files, folders, patterns or hub ids; default: the train split"),
    )
    exam: list[str] = Field(
        [],
        description=(
            "exams to check besides the dataset: names, declarations (FILE.yaml), or cached (those in the"
            " hub's cache)"
        ),
    )
    dataset: str = Field(DEFAULT_DATASET, description="hub id, directory in the hub's layout, or 'sample'")
    dataset_revision: str | None = Field(None, description="revision of the dataset on the hub")
    split: Literal["test", "dev"] = Field("test", description="split that must not be trained on")
    output: Path | None = Field(
        None, description="write the split's overlapping question ids here (JSON), for compare --overlap"
    )
    overwrite: bool = Field(False, description="replace --output if it exists")
    show: int = Field(10, ge=0, description="pairs to list per kind")
