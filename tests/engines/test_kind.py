"""Every engine says what it is in its own folder, and nothing outside ``engines`` compares names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


def test_what_an_engine_adds_to_the_fingerprint() -> None:
    """Runs of vLLM keep the fingerprint they had before there were other engines."""
    assert find_engine_kind("vllm").fingerprint_parts(EngineOptions()) == {}
    nf4 = EngineOptions(engine="transformers", quantization="bitsandbytes")
    parts = find_engine_kind("transformers").fingerprint_parts(nf4)
    assert parts == {"engine": "transformers", "quantization": "nf4"}
    assert find_engine_kind("transformers").libraries(nf4) == ["transformers", "bitsandbytes"]
