"""The flags of export and check.

In: values from YAML and the command line. Out: a frozen config. Knows nothing of what they do.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from kmmlu_fast.command.flags import Config
from kmmlu_fast.prompting.prompt_styles import PromptStyleName
from kmmlu_fast.shipping.llama_tools import KINDS
from kmmlu_fast.shipping.published_texts import is_local_path


class ExportConfig(Config):
    """What to export, and as what."""

    positional: ClassVar[str | None] = "adapter"
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "model": ("model", "revision", "trust_remote_code"),
        "output": ("to", "quantize", "out", "name", "dtype"),
        "tools": ("converter",),
    }
    first: ClassVar[tuple[str, ...]] = ("to", "quantize", "out", "model")
    examples: ClassVar[tuple[str, ...]] = (
        "out/lora --to merged --out ship/merged",
        "out/lora --to gguf --quantize q8_0,q4_k_m --out ship/gguf",
        "out/lora --to gguf-lora --model skt/A.X-4.0-Light --out ship/adapter",
    )
    words: ClassVar[dict[str, tuple[str, ...]]] = {"quantize": KINDS}

    adapter: list[str] = Field([], description="directory of the LoRA adapter")
    to: Literal["merged", "gguf", "gguf-lora"] = Field(
        "merged",
        description=(
            "merged: a model directory in 16 bit; gguf: files for llama.cpp and Ollama; gguf-lora: the"
            " adapter"
            " alone, for llama.cpp's --lora"
        ),
    )
    quantize: list[str] = Field(
        [], description="with --to gguf: bf16, f16, f32, q8_0, q6_k, q5_k_m, q4_k_m, ...; default: bf16"
    )
    out: Path = Field(Path("ship"), description="directory to create; it must not exist")
    name: str | None = Field(None, description="name of the files; default: the adapter directory's")
    model: str | None = Field(
        None, description="16-bit base model; default: the one that the adapter was trained on"
    )
    revision: str | None = Field(None, description="revision of the base model on the hub")
    trust_remote_code: bool = Field(
        False, description="run Python code from the model repository with your permissions; read it first"
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto",
        description=(
            "type of the merged weights; auto: as the base is stored; float32 keeps changes that 16 bit"
            " rounds away"
        ),
    )
    converter: Path | None = Field(
        None, description="a llama.cpp checkout of your own, with its converter scripts and llama-quantize"
    )

    @model_validator(mode="after")
    def _check_flags(self) -> ExportConfig:
        faults = []
        if len(self.adapter) != 1:
            faults.append("export takes one adapter directory, such as out/lora")
        unknown = [kind for kind in self.quantize if kind not in KINDS]
        if unknown:
            faults.append(f"--quantize {', '.join(unknown)}: allowed are {', '.join(KINDS)}")
        if self.quantize and self.to != "gguf":
            faults.append("--quantize goes with --to gguf; vLLM quantises while loading: eval --quantization")
        if self.name is not None and ("/" in self.name or self.name.startswith(".") or not self.name.strip()):
            faults.append("--name is part of a file's name: letters, digits, '-', '_' and '.'")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def kinds(self) -> list[str]:
        """The GGUF files to write, each once."""
        return list(dict.fromkeys(self.quantize)) or ["bf16"]


class CheckConfig(Config):
    """The release gate: an adapter, what is shipped, and how much is asked."""

    positional: ClassVar[str | None] = "artefacts"
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "model": ("model", "revision", "trust_remote_code", "base_url", "trained_reference"),
        "questions": ("questions", "dataset", "prompt_style", "generations", "margin", "seed"),
        "output": ("json_file", "junit", "overwrite"),
    }
    first: ClassVar[tuple[str, ...]] = ("questions", "model", "json_file", "junit")
    examples: ClassVar[tuple[str, ...]] = (
        "out/lora ship/merged ship/gguf/lora-q4_k_m.gguf",
        "out/lora ship/merged --questions 400 --json-file check.json --junit check.xml",
        "out/lora MODEL-NAME --base-url http://localhost:8000/v1",
    )

    artefacts: list[str] = Field(
        [],
        description=(
            "the LoRA adapter, then what is shipped: model directories, GGUF files, or names of a server's"
            " models (--base-url)"
        ),
    )
    model: str | None = Field(
        None, description="16-bit base model; default: the one that the adapter was trained on"
    )
    revision: str | None = Field(None, description="revision of the base model on the hub")
    trust_remote_code: bool = Field(
        False, description="run Python code from the model repository with your permissions; read it first"
    )
    base_url: str | None = Field(
        None, description="address of an OpenAI-compatible server that offers an artefact"
    )
    trained_reference: bool = Field(
        False, description="also measure nf4 base + adapter, which is what QLoRA trained (slow on a CPU)"
    )
    questions: PositiveInt = Field(200, description="maximum number of questions to ask")
    dataset: str = Field("sample", description="KMMLU: 'sample' (packaged), directory or hub id")
    prompt_style: PromptStyleName | None = Field(
        None, description="prompt wording; default: the one the adapter was trained with, else lm-eval"
    )
    generations: int = Field(20, ge=0, description="texts to generate, which show stops and repeats")
    margin: float = Field(
        0.5, gt=0, description="difference of the right answer's share in pp that counts as equal"
    )
    seed: int = Field(42, ge=0, lt=2**32, description="seed of the choice of questions")
    json_file: Path | None = Field(None, description="write all measurements and sentences to this file")
    junit: Path | None = Field(None, description="write a JUnit XML file, a test case per artefact")
    overwrite: bool = Field(False, description="replace existing output files")

    @model_validator(mode="after")
    def _check_flags(self) -> CheckConfig:
        if len(self.artefacts) < 2:
            raise ValueError(
                "check takes the adapter and at least one artefact, such as: out/lora ship/merged"
            )
        return self


class PushConfig(Config):
    """What is published, where, and the runs that say how good it is."""

    positional: ClassVar[str | None] = "directory"
    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "content": ("run", "licence"),
        "hub": ("repo", "base", "private", "dry_run", "staging"),
    }
    first: ClassVar[tuple[str, ...]] = ("repo", "run", "dry_run")
    examples: ClassVar[tuple[str, ...]] = (
        "ship/merged --repo ORG/NAME --run runs/base-... --run runs/lora-... --dry-run",
        "ship/merged --repo ORG/NAME --run runs/base-... --run runs/lora-... --licence apache-2.0",
        "out/lora --repo ORG/NAME --private",
    )

    directory: list[str] = Field([], description="an export's or an adapter's directory")
    repo: str = Field("", description="repository on the hub, ORG/NAME")
    run: list[str] = Field(
        [], description="run directory whose numbers go into the card, the base's first; may be repeated"
    )
    licence: str | None = Field(
        None, description="licence in the card's metadata, such as gemma or apache-2.0"
    )
    base: str | None = Field(
        None,
        description=(
            "name of the adapter's base on the hub, ORG/NAME, which replaces the path of a local base in what"
            " is published"
        ),
    )
    private: bool = Field(False, description="create the repository as a private one")
    dry_run: bool = Field(False, description="write what would be pushed to --staging, and stop")
    staging: Path = Field(Path("ship/push"), description="with --dry-run: directory to create")

    @model_validator(mode="after")
    def _check_flags(self) -> PushConfig:
        faults = []
        if len(self.directory) != 1:
            faults.append("push takes one directory, such as ship/merged")
        if self.repo.count("/") != 1 or not all(part.strip() for part in self.repo.split("/")):
            faults.append(f"--repo {self.repo!r}: give ORG/NAME")
        if self.base is not None and is_local_path(self.base):
            faults.append(f"--base {self.base!r}: is a place on this machine; give its name on the hub")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class VerifyConfig(Config):
    """A published bundle, and the model that it is about."""

    positional: ClassVar[str | None] = "bundle"
    first: ClassVar[tuple[str, ...]] = ("model", "adapter", "sample")
    examples: ClassVar[tuple[str, ...]] = (
        "evaluation/lora",
        "evaluation/lora --model skt/A.X-4.0-Light --adapter out/lora",
        "evaluation/base --model skt/A.X-4.0-Light --sample 1000 --seed 7",
    )

    bundle: list[str] = Field([], description="directory of a bundle, as push publishes it")
    model: str | None = Field(
        None, description="the model, to re-score a sample; without it only the numbers"
    )
    adapter: str | None = Field(None, description="the adapter, for a bundle of an adapter")
    dataset: str | None = Field(None, description="location of the exam's rows; default: the exam's own")
    sample: PositiveInt = Field(400, description="questions to re-score")
    seed: int = Field(42, ge=0, lt=2**32, description="seed of the sample: choose your own")
    engine: Literal["vllm", "transformers", "llama-cpp"] | None = Field(
        None, description="engine to re-score with; default: vLLM, for a GGUF file llama.cpp"
    )

    @model_validator(mode="after")
    def _check_flags(self) -> VerifyConfig:
        if len(self.bundle) != 1:
            raise ValueError("verify takes one bundle, such as evaluation/lora")
        if self.adapter and not self.model:
            raise ValueError("--adapter goes with --model")
        return self
