"""The flags of ``kmmlu-fast serve-engine``: which engine is kept warm, and for how long.

In: values from YAML and the command line. Out: a frozen ``WarmEngineConfig``. Knows nothing of sockets.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from kmmlu_fast.engines.config import EngineConfig
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.models.default_model import DEFAULT_MODEL

DEFAULT_CONTEXT_TOKENS = 4096  # five long exemplars, or a chain of thought


class WarmEngineConfig(EngineConfig):
    """python -m kmmlu_fast.serve_engine: keep an engine warm: the next eval answers within seconds."""

    groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "warm engine": ("idle_minutes", "status", "stop"),
        "model": ("model", "revision", "dtype", "quantization", "letter_precision"),
        "engine": (
            "engine",
            "max_model_len",
            "texts",
            "samples",
            "gpu_memory_utilization",
            "tensor_parallel_size",
            "max_num_seqs",
            "max_num_batched_tokens",
        ),
    }
    first: ClassVar[tuple[str, ...]] = ("model", "idle_minutes", "status", "stop", "max_model_len")
    examples: ClassVar[tuple[str, ...]] = ("--model demo", "--status", "--stop")

    model: str = Field(
        DEFAULT_MODEL,
        description="hub id, local directory, or 'demo' (Gemma 3 270M from PyPI, no hub needed)",
    )
    idle_minutes: float = Field(
        10.0, gt=0, le=24 * 60, description="end after so many minutes without a command, and free the memory"
    )
    status: bool = Field(False, description="show the engines that you keep warm, and end")
    stop: bool = Field(False, description="end the engines that you keep warm")
    texts: bool = Field(
        False,
        description="on a GPU: for generated texts (--output-type generate_until, cot), with CUDA graphs",
    )
    samples: bool = Field(False, description="for commands that sample (--temperature above 0)")

    @property
    def output_type(self) -> str:
        """As eval's, of which an engine needs to know whether it is of letters only."""
        return "generate_until" if self.texts else "multiple_choice"

    @property
    def temperature(self) -> float:
        return 1.0 if self.samples else 0.0

    @model_validator(mode="after")
    def _check_warm_flags(self) -> WarmEngineConfig:
        if self.status and self.stop:
            raise ValueError("--status and --stop are two commands: give one of them")
        if not find_engine_kind(self.engine).can_be_warm:
            raise ValueError(f"only --engine vllm is kept warm, and this is {self.engine}")
        if self.compile != "off":
            raise ValueError(f"--compile {self.compile}: a compiled engine is not kept warm; omit it")
        return self
