"""The flags of ``python -m kmmlu_fast.sample``.

In: values from YAML and the command line. Out: a frozen config. Knows nothing of what the settings do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, create_model, model_validator

from kmmlu_fast.data.default_exam import DEFAULT_DATASET, DEFAULT_EXAM
from kmmlu_fast.engines.config import EngineConfig
from kmmlu_fast.sampling import draw as sampling


class SampleFlags(EngineConfig):
    """python -m kmmlu_fast.sample: draw fine-tuning questions from weak subjects, never test questions."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "what to draw": (
            "from",
            "size",
            "out",
            "overwrite",
            "strategy",
            "subjects",
            "permute_options",
            "seed",
        ),
        "weak subjects": ("weak_share", "weak_fraction", "weak_subjects", "errors_order", "max_repeats"),
        "data": ("exam", "dataset", "dataset_revision"),
        "reasoning": (
            "rationale",
            "rationale_samples",
            "rationale_tokens",
            "temperature",
            "rationale_missing",
        ),
    }
    first: ClassVar[tuple[str, ...]] = (
        "from",
        "size",
        "out",
        "dataset",
        "strategy",
        "weak_subjects",
        "rationale",
    )
    examples: ClassVar[tuple[str, ...]] = (
        "--from runs/weakness/* --size 500 --out data/sft.jsonl",
        "--from scores.csv --dataset sample --size 20 --out data/few.jsonl",
        "--from runs/weakness/* --strategy errors --size 300",
    )

    size: PositiveInt = Field(500, description="exact number of training rows to write")
    out: Path = Field(
        Path("data/sft.jsonl"),
        description="JSONL file to write; plan, dropped rows and data card are written next to it",
    )
    overwrite: bool = Field(False, description="replace --out if it exists")
    exam: str = Field(
        DEFAULT_EXAM,
        description=(
            "exam to draw from (name or declaration); it must allow training and have a train split"
        ),
    )
    dataset: str = Field(
        DEFAULT_DATASET,
        description=(
            "hub id, directory with the hub's layout, or 'sample' (packaged, CC0); for another exam: location"
            " of its files"
        ),
    )
    dataset_revision: str | None = Field(None, description="revision of the dataset on the hub")
    subjects: list[str] = Field(
        [], description="draw only from these subjects or supercategories; default: all 45"
    )
    strategy: Literal["strategic", "uniform", "proportional", "errors"] = Field(
        "strategic",
        description=(
            "strategic: by subjects' expected errors, part evenly; uniform: evenly; proportional: by pool"
            " size; errors: only questions the run got wrong"
        ),
    )
    weak_share: float = Field(
        0.7,
        gt=0,
        le=1,
        description="strategic: share drawn by expected errors; the rest is drawn evenly from all subjects",
    )
    weak_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="only this fraction of the subjects, the weakest; default: all, by expected errors",
    )
    weak_subjects: list[str] = Field([], description="only these subjects, by name or supercategory")
    weak_prior: str = Field(
        "public",
        description=(
            "prior of the subject accuracies: public (25 other models on test, shipped), none, or a YAML file"
        ),
    )
    errors_order: Literal["hardest", "random"] = Field(
        "hardest", description="errors: largest margin for a wrong letter first, or random"
    )
    permute_options: bool = Field(True, description="reorder options so that the answer letters are balanced")
    max_repeats: int = Field(
        1,
        ge=1,
        le=sampling.MAX_REPEATS,
        description="maximum uses of a question in small subjects, each in another option order",
    )
    rationale: Literal["none", "self"] = Field(
        "none", description="train on the letter alone, or on the model's own reasoning that reached it"
    )
    rationale_samples: PositiveInt = Field(4, description="rationale self: attempts per question")
    rationale_tokens: PositiveInt = Field(
        512, description="rationale self: maximum number of tokens per attempt"
    )
    temperature: float = Field(0.7, gt=0, description="rationale self: sampling temperature")
    rationale_missing: Literal["answer", "drop"] = Field(
        "answer", description="rationale self: rows without a rationale keep the letter alone, or are dropped"
    )

    @model_validator(mode="after")
    def _check_flags(self) -> SampleFlags:
        if self.weak_fraction is not None and self.weak_subjects:
            raise ValueError("--weak-fraction and --weak-subjects both choose the weak subjects: give one")
        if self.max_repeats > 1 and not self.permute_options:
            raise ValueError(
                "--max-repeats above 1 needs --permute-options: repeats of a question differ in option order"
            )
        if self.max_repeats > 1 and self.strategy == "errors":
            raise ValueError("--max-repeats goes with the strategies that draw by subject, not with errors")
        return self


# The flag --from is a Python keyword and cannot be an attribute; ``source_arguments`` reads it.
_FROM: Any = Field(
    [],
    description=(
        "run directories, score files or lm-eval results that show where the model is weak; a question in"
        " several counts once, by its mean"
    ),
)
SampleConfig = create_model(
    "SampleConfig", __base__=SampleFlags, __doc__=SampleFlags.__doc__, **{"from": (list[str], _FROM)}
)  # type: ignore[call-overload]


def source_arguments(config: SampleFlags) -> list[str]:
    """The values of --from."""
    arguments: list[str] = getattr(config, "from")
    return arguments
