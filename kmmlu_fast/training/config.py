"""Training settings, their defaults, and which of them decide the result.

In: flags and YAML (``command.flags``). Out: a frozen ``TrainConfig``. Knows nothing of Unsloth or files.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from kmmlu_fast.command.flags import Config
from kmmlu_fast.data.default_exam import DEFAULT_DATASET
from kmmlu_fast.machine.trackers import check_tracker_names
from kmmlu_fast.models.default_model import DEFAULT_MODEL
from kmmlu_fast.models.gguf import GGUF_IS_SERVED_ONLY, is_gguf_path
from kmmlu_fast.prompting.prompt_styles import PromptStyleName
from kmmlu_fast.prompting.template_options import kwargs_as_texts, template_kwargs_faults
from kmmlu_fast.training.library_names import check_optimiser_name, check_scheduler_name

PLANNED_DATA = "data/sft.jsonl"
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# Settings that may differ between a run and its --resume: they do not change what is computed. (Data files
# are compared by digest.)
_FREE = frozenset(
    {
        "data",
        "held_out_data",
        "init_adapter",  # compared by digest
        "output_dir",
        "resume",
        "report_to",
        "max_memory_gib",
        "gradient_checkpointing",
        "keep_checkpoints",
        "stop_after",
        "plan",
        "gpu_memory",
        "allow_leakage",
        "dataset",
        "dataset_revision",
        "show_rows",
        "guard",
    }
)
# Settings that change nothing that is computed but the rounding of a sum: --resume may give others.
FREE_ON_RESUME = frozenset({"micro_batch", "measure_every", "save_every", "early_stopping", "stop_when"})
# Settings added later: omitted at their default, so that an older training can still be resumed.
_LATER = frozenset(
    {
        "columns",
        "rationale",
        "init_lora_weights",
        "modules_to_save",
        "forgetting",
        "chat_template",
        "chat_template_kwargs",
        "answer_coding",
        "bad_rows",
        "turns",
        "stop_when",
    }
)


def _as_string_list(value: Any) -> Any:
    if isinstance(value, (str, Path)):
        return [str(value)]
    return [str(part) for part in value] if isinstance(value, (list, tuple)) else value


def _as_words(value: Any) -> Any:
    return value.strip().lower().replace("-", " ").replace("_", " ") if isinstance(value, str) else value


class TrainConfig(Config):
    """python -m kmmlu_fast.train: train a 4-bit QLoRA adapter with Unsloth, on a GPU or (slowly) on a CPU."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "data": (
            "data",
            "columns",
            "answer_coding",
            "bad_rows",
            "turns",
            "rationale",
            "show_rows",
            "prompt_style",
            "chat_template",
            "chat_template_kwargs",
            "max_seq_length",
            "too_long",
            "rotate_options",
            "dataset",
            "dataset_revision",
            "allow_leakage",
        ),
        "model and adapter": (
            "model",
            "revision",
            "init_adapter",
            "load_in_4bit",
            "r",
            "lora_alpha",
            "lora_dropout",
            "target_modules",
            "use_rslora",
            "use_dora",
            "neftune_noise_alpha",
        ),
        "optimisation": (
            "num_train_epochs",
            "max_steps",
            "learning_rate",
            "lr_scheduler_type",
            "warmup_ratio",
            "weight_decay",
            "max_grad_norm",
            "optim",
            "effective_batch",
            "seed",
        ),
        "memory": ("micro_batch", "gradient_checkpointing", "max_memory_gib", "plan", "gpu_memory"),
        "measuring and saving": (
            "held_out",
            "held_out_data",
            "measure_every",
            "keep",
            "early_stopping",
            "stop_when",
            "save_every",
            "stop_after",
            "keep_checkpoints",
            "report_to",
        ),
        "output": ("output_dir", "resume"),
    }
    first: ClassVar[tuple[str, ...]] = (
        "data",
        "output_dir",
        "model",
        "num_train_epochs",
        "learning_rate",
        "r",
        "rotate_options",
        "plan",
        "gpu_memory",
        "resume",
    )
    examples: ClassVar[tuple[str, ...]] = (
        "--config configs/train.yaml --data data/sft.jsonl --output-dir out/lora",
        "--plan --gpu-memory 24 --model skt/A.X-4.0-Light",
        "--data data/sft.jsonl --output-dir out/lora --resume",
    )

    data: Annotated[list[str], BeforeValidator(_as_string_list)] = Field(
        min_length=1,
        description=(
            "training rows in any form: files, folders, patterns, or owner/name[:config[:split]][@revision]"
            " on the hub; FILE:0.3 takes 30 %; may be repeated"
        ),
    )
    columns: list[str] = Field(
        [], description="column names in the data: instruction=질문,output=답,system=지시"
    )
    answer_coding: Annotated[
        Literal["auto", "from 0", "from 1", "letter", "text"], BeforeValidator(_as_words)
    ] = Field(
        "auto",
        description=(
            "how questions write their answers: from 0 or from 1 (the first option's number), letter, or"
            " text; auto: as the whole file tells"
        ),
    )
    bad_rows: Literal["refuse", "drop"] = Field(
        "refuse", description="rows that cannot be read: name them and stop, or leave them out (counted)"
    )
    turns: Literal["all", "last"] = Field(
        "all", description="conversations: train every turn of the assistant's, or the last one alone"
    )
    rationale: Literal["none", "given"] = Field(
        "none", description="questions: train on the letter, or on the explanation column"
    )
    show_rows: NonNegativeInt = Field(
        0, description="print this many rows with the trained tokens marked, and stop (also with --plan)"
    )
    output_dir: Path = Field(Path("out/lora"), description="adapter directory; must be new, or --resume")
    model: str = Field(
        DEFAULT_MODEL,
        description="hub id, local directory, or 'demo' (Gemma 3 270M from PyPI, no hub needed)",
    )
    revision: str | None = Field(None, description="revision of the model on the hub")
    trust_remote_code: bool = Field(
        False, description="run Python code from the model; read it first: it runs with your permissions"
    )
    prompt_style: PromptStyleName = Field(
        "lm-eval", description="prompt wording; evaluation reads it from the adapter"
    )
    chat_template: str | None = Field(
        None,
        description=(
            "for chats: use this Jinja file, or plain, chatml or one of the tokenizer's own names, instead of"
            " the model's template; saved with the adapter"
        ),
    )
    chat_template_kwargs: Annotated[list[str], BeforeValidator(kwargs_as_texts)] = Field(
        [], description="for chats: variables of the template: NAME=VALUE,... such as enable_thinking=true"
    )
    max_seq_length: PositiveInt = Field(1024, description="longest prompt + response, tokens")
    too_long: Literal["truncate", "drop", "refuse", "cut"] = Field(
        "truncate",
        description=(
            "rows over --max-seq-length: truncate takes whole exchanges from a conversation's front and"
            " leaves out what still does not fit; drop leaves out; refuse stops; cut takes tokens from a"
            " question's front or a conversation's end; always counted"
        ),
    )
    rotate_options: bool = Field(
        False,
        description=(
            "questions: show the options in another order every epoch, answer letters balanced; other rows"
            " stay as they are"
        ),
    )

    init_adapter: str | None = Field(
        None,
        description=(
            "continue from this adapter (directory or hub id) in place of a new one; rank, alpha and modules"
            " are its own, and without --model its base"
        ),
    )
    load_in_4bit: bool = Field(True, description="QLoRA: nf4 weights with double quantisation")
    r: PositiveInt = Field(16, description="LoRA rank")
    lora_alpha: PositiveInt = Field(16, description="LoRA alpha")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="LoRA dropout; 0 keeps Unsloth's fused kernels")
    target_modules: list[str] = Field(PROJECTIONS, description="projections that get an adapter")
    use_rslora: bool = Field(False, description="rank-stabilised LoRA (PEFT)")
    use_dora: bool = Field(False, description="DoRA (PEFT)")
    init_lora_weights: Literal["default", "gaussian", "loftq"] = Field(
        "default", description="as PEFT names it"
    )
    modules_to_save: list[str] = Field(
        [], description="refused: such adapters contain whole modules, which vLLM does not serve"
    )
    neftune_noise_alpha: float | None = Field(None, gt=0, description="NEFTune noise (TRL)")

    num_train_epochs: PositiveInt = Field(3, description="passes over the data")
    max_steps: PositiveInt | None = Field(None, description="stop after this many optimiser steps")
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate")
    lr_scheduler_type: Annotated[str, AfterValidator(check_scheduler_name)] = Field(
        "linear", description="as transformers names it: linear, cosine, constant_with_warmup, ..."
    )
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="share of the steps over which the learning rate rises"
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm is clipped to this")
    optim: Annotated[str, AfterValidator(check_optimiser_name)] = Field(
        "adamw_8bit", description="as transformers names it; on a CPU Unsloth uses 32-bit AdamW"
    )
    effective_batch: PositiveInt = Field(
        16, description="rows per optimiser step: micro-batch x accumulation"
    )
    micro_batch: PositiveInt | None = Field(
        None, description="rows at once; default: the most that the memory plan allows"
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compute activations twice instead of keeping them; auto: off if the memory plan allows",
    )
    max_memory_gib: float | None = Field(None, gt=0, description="plan with at most this much device memory")
    plan: bool = Field(
        False, description="print what would fit and stop: takes a second, needs neither torch nor rows"
    )
    gpu_memory: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="with --plan: a GPU with this many GiB, which need not be in this machine",
    )
    seed: int = Field(
        42, ge=0, lt=2**32, description="seed of the data order, held-out slice, rotations and LoRA weights"
    )

    held_out: NonNegativeInt = Field(
        48, description="rows kept out of training, to measure on (at most a fifth of the data)"
    )
    forgetting: PositiveInt = Field(
        45,
        description=(
            "if the rows are not questions: also measure the letters on this many of the dataset's train"
            " questions"
        ),
    )
    held_out_data: Path | None = Field(
        None, description="measure on these rows instead, and train on all of --data"
    )
    measure_every: PositiveInt | None = Field(
        None, description="optimiser steps between measurements; default: a tenth of all"
    )
    keep: Literal["best-loss", "best-accuracy", "last"] = Field(
        "best-loss", description="which adapter to keep, by the held-out rows"
    )
    early_stopping: PositiveInt | None = Field(
        None, description="stop after this many measurements without an improvement"
    )
    stop_when: Literal["worse", "collapsed"] | None = Field(
        None,
        description=(
            "stop when held-out accuracy is shown to be worse than the base's (the band over all measurements"
            " is below zero), or predictions collapse onto one letter; collapsed: for the latter alone"
        ),
    )
    save_every: PositiveInt | None = Field(
        None, description="optimiser steps between checkpoints; default: a tenth of all"
    )
    stop_after: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=(
            "pause after this share of the optimiser steps, with a checkpoint; the same command with --resume"
            " and a larger share, or without it, continues as if there had been no pause"
        ),
    )
    keep_checkpoints: bool = Field(
        False, description="keep the checkpoints in OUTPUT_DIR/checkpoints when done"
    )
    resume: bool = Field(False, description="continue after the last complete checkpoint in --output-dir")
    report_to: Annotated[list[str], AfterValidator(check_tracker_names)] = Field(
        [],
        description=(
            "trackers, as transformers names them: tensorboard, wandb, trackio, mlflow, ...; they get the"
            " held-out rows too; default: none"
        ),
    )

    dataset: str = Field(
        DEFAULT_DATASET, description="dataset whose test split is used for the leakage check"
    )
    dataset_revision: str | None = Field(None, description="revision of the dataset on the hub")
    guard: list[str] = Field(
        ["cached"],
        description=(
            "other exams that rows must not contain: names, declarations, or cached (all in the hub's cache)"
        ),
    )
    allow_leakage: bool = Field(
        False, description="train even on rows that the leakage guard flags (recorded in the card)"
    )

    @model_validator(mode="before")
    @classmethod
    def _plan_without_rows(cls, values: Any) -> Any:
        """A plan needs no rows; the commands it shows name the file that ``sample`` writes in the docs."""
        if isinstance(values, dict) and values.get("plan") and not values.get("show_rows"):
            return {"data": [PLANNED_DATA], **values}
        return values

    @model_validator(mode="after")
    def _check_combinations(self) -> TrainConfig:
        faults = template_kwargs_faults(self.chat_template_kwargs)
        if is_gguf_path(self.model):
            faults.append(f"--model {self.model}: {GGUF_IS_SERVED_ONLY}")
        if self.gpu_memory and not self.plan:
            faults.append("--gpu-memory needs --plan; to train within less memory, give --max-memory-gib")
        if self.micro_batch and self.effective_batch % self.micro_batch:
            faults.append(
                f"--micro-batch {self.micro_batch} must divide --effective-batch {self.effective_batch}"
            )
        if self.held_out == 0 and self.held_out_data is None:
            faults += self._unmeasured_faults()
        if self.init_lora_weights == "loftq":
            faults.append(
                "--init-lora-weights loftq changes the base's weights, so the adapter would not fit the base"
                " that evaluation loads; leave it out"
            )
        tables = sorted({"lm_head", "embed_tokens", "embed_in", "embed_out", "wte"} & {*self.target_modules})
        if tables:
            faults.append(
                f"--target-modules {','.join(tables)}: Unsloth saves such modules whole, and vLLM serves LoRA"
                " matrices only; leave them out"
            )
            faults += [
                f"--target-modules {name}: did you mean {near[0]}?"
                for name in self.target_modules
                if name not in PROJECTIONS and (near := difflib.get_close_matches(name, PROJECTIONS, n=1))
            ]
        if self.modules_to_save:
            faults.append(
                "--modules-to-save: vLLM serves LoRA matrices only, not whole modules; give --target-modules"
                " instead"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _unmeasured_faults(self) -> list[str]:
        """What needs held-out rows, where there are none."""
        faults = []
        if self.keep != "last":
            faults.append(f"--keep {self.keep} needs held-out rows: give --held-out N, or --keep last")
        if self.early_stopping:
            faults.append("--early-stopping needs held-out rows: give --held-out N")
        if self.stop_when:
            faults.append(f"--stop-when {self.stop_when} needs held-out rows: give --held-out N")
        return faults

    def result_settings(self) -> dict[str, Any]:
        """The settings that decide the result: a resumed run must have the same."""
        free = _FREE if self.trust_remote_code else _FREE | {"trust_remote_code"}
        settings = {name: value for name, value in self.model_dump(mode="json").items() if name not in free}
        for name in _LATER:
            default = type(self).model_fields[name].get_default(call_default_factory=True)
            if settings[name] == default:
                del settings[name]
        return settings
