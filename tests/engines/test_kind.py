"""Every engine says what it is in its own folder, and nothing outside ``engines`` compares names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from kmmlu_fast.engines.config import EngineConfig
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.engines.names import ENGINES
from kmmlu_fast.engines.options import EngineOptions

PACKAGE = Path(__file__).resolve().parents[2] / "kmmlu_fast"


@pytest.mark.parametrize("name", ENGINES)
def test_kinds_are_complete(name: str) -> None:
    kind = find_engine_kind(name)
    options = EngineOptions(engine=name)
    assert kind.libraries(options) and all(isinstance(module, str) for module in kind.requires(options))
    assert set(kind.own_flags) <= set(EngineOptions.model_fields)
    assert set(kind.refused_adapter_modes) <= {"serve", "swap", "merge"}


def test_asking_about_engines_imports_none() -> None:
    code = (
        "import sys\n"
        "from kmmlu_fast.engines.config import EngineConfig\n"
        "EngineConfig(engine='server', base_url='http://localhost:1/v1')\n"
        "EngineConfig(engine='transformers')\n"
        "print([m for m in ('torch', 'vllm', 'ray', 'transformers', 'httpx') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    assert done.stdout.strip() in ("[]", "['httpx']")  # httpx checks addresses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_replicas": 2}, "--num-replicas goes with --engine ray"),
        ({"ray_address": "h:1"}, "--ray-address goes with --engine ray"),
        ({"base_url": "http://h/v1"}, "--base-url goes with --engine server"),
        (
            {"engine": "ray", "data_parallel_size": 2},
            "--data-parallel-size goes with --engine vllm; with",
        ),
        ({"engine": "server"}, "--engine server needs --base-url"),
        ({"engine": "transformers", "quantization": "fp8"}, "takes nf4"),
        ({"engine": "transformers", "tensor_parallel_size": 2}, "on one device"),
        ({"engine": "transformers", "load_format": "dummy"}, "--load-format goes with vLLM"),
    ],
)
def test_options_of_another_engine_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EngineConfig(**options)  # type: ignore[arg-type]


def test_what_an_engine_adds_to_the_fingerprint() -> None:
    """Runs of vLLM keep the fingerprint they had before there were other engines."""
    assert find_engine_kind("vllm").fingerprint_parts(EngineOptions()) == {}
    nf4 = EngineOptions(engine="transformers", quantization="bitsandbytes")
    parts = find_engine_kind("transformers").fingerprint_parts(nf4)
    assert parts == {"engine": "transformers", "quantization": "nf4"}
    assert find_engine_kind("transformers").libraries(nf4) == ["transformers", "bitsandbytes"]
