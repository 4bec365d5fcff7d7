"""The flags of ``python -m kmmlu_fast.eval``: questions, prompts, engine and output.

In: values from YAML and the command line. Out: a frozen ``EvalConfig``. Knows nothing of what the settings
do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator

from kmmlu_fast.data.default_exam import DEFAULT_DATASET, DEFAULT_EXAM
from kmmlu_fast.engines.config import EngineConfig
from kmmlu_fast.engines.options import NF4_NAMES
from kmmlu_fast.machine.trackers import check_result_tracker_names
from kmmlu_fast.prompting.prompt_styles import PromptStyleName
from kmmlu_fast.prompting.template_options import kwargs_as_texts, template_kwargs_faults


def _parse_digits(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


def _parse_tokens(value: Any) -> Any:
    """1k is 1,024 tokens."""
    text = str(value).strip().lower()
    return 1024 * int(text[:-1]) if text.endswith("k") and text[:-1].isdigit() else value


class EvalConfig(EngineConfig):
    """python -m kmmlu_fast.eval: evaluate a base model and its LoRA adapters on KMMLU or other exams."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "model": (
            "model",
            "revision",
            "adapter",
            "no_base",
            "adapter_mode",
            "dtype",
            "quantization",
            "letter_precision",
            "compile",
        ),
        "data": ("exam", "dataset", "dataset_revision", "split", "subjects", "limit", "limit_mode"),
        "prompt and answers": (
            "protocol",
            "protocols",
            "num_fewshot",
            "prompt_style",
            "output_type",
            "letter_form",
            "rotations",
            "thinking",
            "reasoning_parser",
            "chat_template",
            "chat_template_kwargs",
            "max_tokens",
            "num_samples",
            "vote_stopping",
            "thinking_budgets",
            "temperature",
            "top_p",
            "top_k",
            "cot_below",
            "seed",
        ),
        "output": ("output_dir", "overwrite", "lang", "report_to"),
        "engine": (
            "engine",
            "gpu_memory_utilization",
            "max_model_len",
            "tensor_parallel_size",
            "data_parallel_size",
            "max_num_seqs",
            "max_num_batched_tokens",
            "load_format",
            "num_replicas",
            "ray_address",
            "base_url",
            "concurrency",
            "warm_engine",
        ),
        "plan": ("plan", "gpu_memory"),
    }
    first: ClassVar[tuple[str, ...]] = (
        "model",
        "adapter",
        "dataset",
        "split",
        "subjects",
        "limit",
        "num_fewshot",
        "output_type",
        "quantization",
        "output_dir",
        "plan",
    )
    examples: ClassVar[tuple[str, ...]] = (
        "--model demo --dataset sample",
        "--model skt/A.X-4.0-Light --adapter out/lora",
        "--subjects STEM,Law,한국사 --limit 100 --num-fewshot 5",
    )

    adapter: list[str] = Field(
        [],
        description=(
            "LoRA adapter, [NAME=]PATH or [NAME=]ORG/NAME[@REVISION] on the hub; may be given several times."
            " Without --model its own base is evaluated"
        ),
    )
    no_base: bool = Field(False, description="evaluate only the adapters")
    adapter_mode: Literal["auto", "serve", "swap", "merge"] = Field(
        "auto",
        description=(
            "serve: vLLM applies the LoRA; swap: its weights are written into the base's engine; merge: PEFT"
            " merges it into a cached copy, which is compared with the unmerged model; auto: serve on GPU,"
            " swap on CPU (merge if it is not a plain LoRA)"
        ),
    )
    exam: list[str] = Field(
        [DEFAULT_EXAM],
        description=(
            "a shipped exam (python -m kmmlu_fast.exams lists them), a declaration (FILE.yaml) or your own"
            " table; may be given several times"
        ),
    )
    dataset: str = Field(
        DEFAULT_DATASET,
        description=(
            "location of the exam's rows: hub id, directory, file, or 'sample' (packaged, CC0); NAME=PATH,..."
            " for several exams"
        ),
    )
    dataset_revision: str | None = Field(None, description="revision of the dataset on the hub")
    split: Literal["train", "dev", "test"] = Field("test", description="split to evaluate")
    subjects: list[str] = Field(
        [], description="subject names or supercategories, comma-separated; default: all 45"
    )
    limit: PositiveInt | None = Field(None, description="maximum number of questions per subject")
    limit_mode: Literal["random", "first"] = Field(
        "random", description="how --limit chooses questions; random is seeded and reproducible"
    )
    questions: PositiveInt | None = Field(
        None,
        description="ask the first N questions of the seeded random order, proportional to subject sizes",
    )
    until_decided: bool = Field(
        False,
        description=(
            "stop as soon as each adapter is shown to be better than, worse than or equal to the base; the"
            " same command without this flag continues"
        ),
    )
    margin: float = Field(
        1.0,
        ge=0,
        description="until-decided: difference in pp within which two states count as equal; 0 = never",
    )
    population: Literal["like", "these"] = Field(
        "like",
        description=(
            "until-decided: decide about questions like these, or about exactly these questions, which needs"
            " fewer of them"
        ),
    )
    until_precise: float | None = Field(
        None, gt=0, description="stop when the accuracy's interval is within plus or minus this many pp"
    )
    max_questions: PositiveInt | None = Field(
        None, description="until-decided, until-precise: maximum number of questions per model state"
    )
    order: Literal["auto", "adaptive", "uniform"] = Field(
        "auto",
        description=(
            "until-decided: adaptive finishes the base, then asks adapters first where an answer is likely to"
            " change, which takes about a third fewer questions; uniform: all alike; auto: adaptive if the"
            " base is finished and the exam has 2,000 questions or more"
        ),
    )
    until_best: bool = Field(
        False,
        description=(
            "with several adapters: stop as soon as one is shown to be the best, or within --margin of it; an"
            " adapter that is shown to be worse than another is asked no further"
        ),
    )
    protocol: str | None = Field(
        None,
        description=(
            "a published way of asking: bare-letter, hret, kmmlu-cot-hard, kmmlu-direct, kmmlu-paper,"
            " lm-eval, simple-evals, or a declaration (FILE.yaml); fixes wording, exemplars, output, sampling"
            " and answer rule"
        ),
    )
    protocols: list[str] = Field(
        [],
        description="ask under each of these protocols in one engine, and show why the numbers differ",
    )
    num_fewshot: int = Field(0, ge=0, le=5, description="number of exemplars from dev, in file order")
    prompt_style: PromptStyleName | None = Field(
        None,
        description=(
            "prompt wording; default: the one the adapter's card names, else lm-eval (cot: chat if the model"
            " has a chat template, else qa)"
        ),
    )
    output_type: Literal["multiple_choice", "generate_until", "cot"] = Field(
        "multiple_choice",
        description="log-likelihoods of the letters, a generated letter (kmmlu_direct), or chain of thought",
    )
    letter_form: Literal["lm-eval", "bare", "either"] | None = Field(
        None,
        description=(
            "written form of the letters that is scored: ' A' as in lm-eval, 'A', or either (their sum);"
            " both are read and reported; default: the prompt style's (chat: bare, else lm-eval)"
        ),
    )
    max_tokens: PositiveInt | None = Field(
        None, description="maximum number of generated tokens; default: 16 for generate_until, 512 for cot"
    )
    num_samples: PositiveInt = Field(
        1, description="cot: samples per question; the majority wins (self-consistency)"
    )
    vote_stopping: Literal["none", "exact", "likely"] = Field(
        "none",
        description=(
            "cot, several samples: draw no more once the rest cannot change a question's majority (exact:"
            " the same votes for fewer tokens), or would with less than 5 % probability (likely: fewer still)"
        ),
    )
    thinking_budgets: list[Annotated[int, BeforeValidator(_parse_tokens)]] = Field(
        [],
        description=(
            "cot: also answer from the same texts cut after so many tokens, such as 256,512,1k: accuracy"
            " against thinking budget from one run"
        ),
    )
    temperature: float = Field(
        0.0,
        ge=0,
        description=(
            "sampling temperature; 0 = greedy. Default for cot, if the model thinks first or several samples"
            " vote: the model's own, from its generation_config.json, with its top-p and top-k"
        ),
    )
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus sampling")
    top_k: int = Field(0, ge=0, description="cot: sample from this many tokens; 0 = all")
    cot_below: float | None = Field(
        None, gt=0, description="cot: reason only if the margin of the direct answer is below this (nats)"
    )
    rotations: Annotated[Literal[1, 2, 4, "all"], BeforeValidator(_parse_digits)] = Field(
        1,
        description=(
            "average the scores over this many cyclic option orders, which removes letter bias; all: one per"
            " option"
        ),
    )
    chat_template: str | None = Field(
        None,
        description=(
            "chat: use this Jinja file, or plain, chatml or one of the tokenizer's own names, instead of the"
            " model's template"
        ),
    )
    chat_template_kwargs: Annotated[list[str], BeforeValidator(kwargs_as_texts)] = Field(
        [], description="chat: variables of the template: NAME=VALUE,... such as thinking=false"
    )
    thinking: bool = Field(False, description="chat: enable thinking if the template has it")
    reasoning_parser: str | None = Field(
        None,
        description=(
            "cot, chat: how the model marks its thoughts, by vLLM's name, such as qwen3 or openai_gptoss;"
            " default: told from the chat template"
        ),
    )
    output_dir: Path = Field(Path("runs"), description="root of the run directories")
    overwrite: bool = Field(False, description="replace an existing run directory")
    lang: Literal["en", "ko"] = Field("en", description="language of the terminal table")
    report_to: Annotated[list[str], AfterValidator(check_result_tracker_names)] = Field(
        [],
        description=(
            "trackers that get the results: tensorboard, trackio, wandb, mlflow, or all that are installed;"
            " default: none"
        ),
    )
    warm_engine: bool = Field(
        True,
        description="ask the engine that serve-engine keeps warm, if it is the one that would be started",
    )
    plan: bool = Field(
        False, description="print what would be asked, what it needs and how long it would take, and stop"
    )
    gpu_memory: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="with --plan: a GPU with this many GiB, which need not be in this machine",
    )

    @property
    def may_stop(self) -> bool:
        """Whether questions are asked in the random order, and possibly not all of them."""
        return self.until_decided or self.until_precise is not None or self.questions is not None

    @model_validator(mode="before")
    @classmethod
    def _apply_protocol(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("protocol"):
            from kmmlu_fast.prompting.protocols import apply_protocol

            return apply_protocol(values)
        return values

    def by_protocol(self) -> list[EvalConfig]:
        """One config per protocol of ``protocols``; this one if there are none."""
        given = {name: getattr(self, name) for name in self.model_fields_set if name != "protocols"}
        if not self.protocols:
            return [self]
        return [EvalConfig.model_validate({**given, "protocol": name}) for name in self.protocols]

    @model_validator(mode="after")
    def _check_method_flags(self) -> EvalConfig:  # noqa: C901 - one line per combination that is refused
        faults = []
        early_stopping = self.until_decided or self.until_precise is not None
        if self.output_type != "cot" and self.num_samples > 1:
            faults.append("--num-samples goes with --output-type cot")
        faults += self._chain_faults()
        if self.output_type != "cot" and self.cot_below is not None:
            faults.append("--cot-below goes with --output-type cot")
        faults += template_kwargs_faults(self.chat_template_kwargs)
        if self.thinking and self.output_type != "cot":
            faults.append("--thinking goes with --output-type cot: letters are read without a thought")
        if self.reasoning_parser is not None:
            if self.output_type != "cot":
                faults.append("--reasoning-parser goes with --output-type cot")
            from kmmlu_fast.prompting.reasoning_parsers import parser_faults

            faults += parser_faults(self.reasoning_parser)
        if self.prompt_style not in (None, "chat"):
            faults += [
                f"--{name} goes with --prompt-style chat, not {self.prompt_style}"
                for name, used in (
                    ("chat-template", self.chat_template is not None),
                    ("chat-template-kwargs", bool(self.chat_template_kwargs)),
                    ("reasoning-parser", self.reasoning_parser is not None),
                )
                if used
            ]
        if self.gpu_memory and not self.plan:
            faults.append("--gpu-memory needs --plan; vLLM's share is --gpu-memory-utilization")
        if self.protocols and self.protocol:
            faults.append("--protocol and --protocols: give one of them")
        if len(set(self.protocols)) < len(self.protocols):
            faults.append("--protocols names one twice")
        if self.protocols and self.may_stop:
            faults.append("--protocols asks all questions: leave out what stops early")
        if self.rotations != 1 and self.output_type != "multiple_choice":
            faults.append("--rotations goes with --output-type multiple_choice")
        if self.letter_form is not None and self.output_type != "multiple_choice":
            faults.append("--letter-form goes with --output-type multiple_choice")
        if self.no_base and not self.adapter:
            faults.append("--no-base leaves nothing to evaluate without --adapter")
        if self.adapter_mode == "merge" and self.quantization in NF4_NAMES:
            faults.append(
                "--adapter-mode merge does not go with a 4-bit base, whose weights it would round: omit it,"
                " or use serve"
            )
        if self.until_decided and (self.no_base or not self.adapter):
            faults.append(
                "--until-decided compares adapters with the base: give --adapter, and omit --no-base"
            )
        if self.until_best and (not self.until_decided or len(self.adapter) < 2):
            faults.append("--until-best goes with --until-decided and two adapters or more")
        if self.order != "auto" and not self.until_decided:
            faults.append("--order goes with --until-decided")
        if self.until_decided and self.until_precise is not None:
            faults.append("--until-decided and --until-precise are two ways to stop: give one of them")
        if self.questions is not None and early_stopping:
            faults.append(
                "--questions is a fixed number: with --until-decided or --until-precise give --max-questions"
            )
        if self.max_questions is not None and not early_stopping:
            faults.append(
                "--max-questions goes with --until-decided or --until-precise; a fixed number is --questions"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _chain_faults(self) -> list[str]:
        """Faults of the flags about samples and budgets of chain of thought."""
        faults = []
        for name, used in (
            ("vote-stopping", self.vote_stopping != "none"),
            ("thinking-budgets", bool(self.thinking_budgets)),
            ("top-k", self.top_k > 0),
        ):
            if used and self.output_type != "cot":
                faults.append(f"--{name} goes with --output-type cot")
        if self.vote_stopping != "none" and self.num_samples < 3:
            faults.append(
                "--vote-stopping needs --num-samples of 3 or more: with fewer nothing can be left out"
            )
        if self.thinking_budgets:
            from kmmlu_fast.prompting.cot import DEFAULT_MAX_TOKENS

            most = self.max_tokens or DEFAULT_MAX_TOKENS
            outside = [budget for budget in self.thinking_budgets if not 0 <= budget < most]
            if outside:
                faults.append(
                    f"--thinking-budgets {outside[0]}: texts are cut below {most}, the curve's last point;"
                    " give more --max-tokens, or leave it out"
                )
        if len(set(self.thinking_budgets)) < len(self.thinking_budgets):
            faults.append("--thinking-budgets names one twice")
        if self.num_samples > 1 and self.temperature == 0 and "temperature" in self.model_fields_set:
            faults.append(
                "--num-samples above 1 needs --temperature above 0 (such as 0.7): greedy samples are equal"
            )
        return faults
