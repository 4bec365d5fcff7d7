"""The settings that choose a model, an engine and a device; shared by every command that generates.

In: values from YAML and the command line. Out: a frozen ``EngineConfig``. Knows nothing of questions.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from kmmlu_fast.command.flags import Config
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.engines.vllm.device_arguments import quantization_problem
from kmmlu_fast.models.gguf import is_gguf_path
from kmmlu_fast.models.model import DEFAULT_MODEL

NF4_NAMES = ("nf4", "bitsandbytes")  # synonyms, with --engine transformers


def _check_base_url(base_url: str) -> None:
    """Refuse a password before anything is written: the address is saved with the run."""
    from kmmlu_fast.engines.server.client import check_base_url

    try:
        check_base_url(base_url)
    except KmmluError as error:
        raise ValueError(str(error)) from error


class EngineConfig(Config):
    """The model, the engine and the device."""

    model: str = Field(
        DEFAULT_MODEL,
        description=("hub id, local directory, GGUF file, or 'demo' (Gemma 3 270M from PyPI, no hub needed)"),
    )
    revision: str | None = Field(None, description="revision of the model on the hub")
    trust_remote_code: bool = Field(
        False, description="run Python code from the model repository with your permissions; read it first"
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="compute type")
    letter_precision: Literal["auto", "float32"] = Field(
        "auto",
        description=(
            "float32: compute the letters' logits in float32 (bfloat16 has steps of 0.125, and an exact tie"
            " goes to A)"
        ),
    )
    quantization: str | None = Field(
        None,
        description=(
            "quantise the weights while loading: with vLLM fp8_per_channel, ... ('fp8' is the old name of"
            " fp8_per_tensor), with --engine transformers nf4 (as in QLoRA)"
        ),
    )
    max_model_len: PositiveInt | None = Field(
        None, description="longest prompt + output in tokens; default: what the prompts need"
    )
    gpu_memory_utilization: float = Field(
        0.90, gt=0, le=1, description="share of the GPU's memory vLLM may take"
    )
    tensor_parallel_size: PositiveInt = Field(1, description="GPUs that one model is split over")
    data_parallel_size: PositiveInt = Field(
        1, description="copies of the model on this machine's GPUs, as Ray replicas"
    )
    max_num_seqs: PositiveInt | None = Field(
        None, description="maximum requests per batch; default chosen for throughput"
    )
    max_num_batched_tokens: PositiveInt | None = Field(
        None, description="maximum tokens per engine step; default chosen for throughput"
    )
    load_format: str = Field("auto", description="vLLM load format; 'dummy' = random weights, for benchmarks")
    engine: Literal["vllm", "ray", "server", "transformers", "llama-cpp"] = Field(
        "vllm",
        description=(
            "vLLM in this process or on Ray actors, an OpenAI-compatible server, plain transformers (for nf4"
            " models; slower), or llama.cpp (for GGUF files, whose default it is)"
        ),
    )
    num_replicas: PositiveInt = Field(
        1, description="with --engine ray: number of actors, one vLLM engine each"
    )
    ray_address: str | None = Field(
        None, description="with --engine ray: cluster address; default: this machine"
    )
    base_url: str | None = Field(
        None, description="with --engine server: address, such as http://host:8000/v1 (key: OPENAI_API_KEY)"
    )
    concurrency: PositiveInt = Field(64, description="with --engine server: requests in flight")
    seed: int = Field(42, ge=0, lt=2**32, description="seed for sampling and for --limit-mode random")

    @model_validator(mode="before")
    @classmethod
    def _choose_engine_for_gguf(cls, values: Any) -> Any:
        """A GGUF file is served by llama.cpp if no engine is named."""
        if isinstance(values, dict) and "engine" not in values and is_gguf_path(str(values.get("model", ""))):
            return {**values, "engine": "llama-cpp"}
        return values

    @model_validator(mode="after")
    def _check_engine_options(self) -> EngineConfig:
        if self.engine == "server" and not self.base_url:
            raise ValueError("--engine server needs --base-url, such as http://localhost:8000/v1")
        if self.base_url:
            _check_base_url(self.base_url)
        if self.base_url and self.engine != "server":
            raise ValueError("--base-url goes with --engine server")
        if self.letter_precision != "auto" and self.engine == "server":
            raise ValueError("--letter-precision does not go with --engine server: the server sets its own")
        if self.engine in ("vllm", "ray") and not self.ray_address:
            problem = quantization_problem(self.quantization)
            if problem:
                raise ValueError(problem)
        if self.num_replicas > 1 and self.engine != "ray":
            raise ValueError("--num-replicas goes with --engine ray")
        if self.data_parallel_size > 1 and self.engine != "vllm":
            raise ValueError(
                "--data-parallel-size goes with --engine vllm; with ray give --num-replicas; a server sets"
                " its own"
            )
        if self.engine == "transformers":
            self._check_transformers_options()
        self._check_llama_cpp_options()
        return self

    def _check_llama_cpp_options(self) -> None:
        if is_gguf_path(self.model) and self.engine not in ("llama-cpp", "server"):
            raise ValueError(
                f"--model {self.model} is a GGUF file, which --engine llama-cpp serves, not {self.engine}:"
                " leave"
                " --engine out"
            )
        if self.engine != "llama-cpp":
            return
        if not is_gguf_path(self.model):
            raise ValueError(
                f"--engine llama-cpp serves a GGUF file, which --model {self.model} is not; make one with"
                " kmmlu-fast export --to gguf"
            )
        decided_by_file: dict[str, Any] = {"dtype": "auto", "quantization": None, "letter_precision": "auto"}
        decided_by_file |= {"tensor_parallel_size": 1, "load_format": "auto", "revision": None}
        for name, default in decided_by_file.items():
            if getattr(self, name) != default:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} does not go with --engine llama-cpp: the GGUF file decides it")

    def _check_transformers_options(self) -> None:
        if self.quantization not in (None, *NF4_NAMES):
            raise ValueError(
                f"--quantization {self.quantization} goes with vLLM; --engine transformers takes nf4 (or its"
                " synonym bitsandbytes)"
            )
        if self.tensor_parallel_size > 1:
            raise ValueError(
                "--tensor-parallel-size goes with vLLM; --engine transformers computes on one device"
            )
        if self.load_format != "auto":
            raise ValueError(
                "--load-format goes with vLLM; --engine transformers loads the repository's safetensors"
            )
