"""What a search cannot do is refused with its flags, not after hours of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.improvement.config import ImproveConfig


def refusal(**settings: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        build_config(ImproveConfig, **{"recipes": Path("some.yaml"), **settings})
    return str(raised.value)


def test_a_gguf_file_is_refused_for_what_it_is_and_its_engine_is_not_blamed() -> None:
    said = refusal(model="some.GGUF")
    assert "model 'some.GGUF': a GGUF file is only asked, by llama.cpp" in said
    assert "improve trains" not in said


@pytest.mark.parametrize("engine", ["server", "llama-cpp"])
def test_engines_that_load_no_adapter_are_refused(engine: str) -> None:
    said = refusal(model="demo", engine=engine, base_url="http://localhost:8000/v1")
    assert f"engine '{engine}': improve trains adapters and loads them itself" in said
    assert said.endswith("which takes one of vllm, ray, transformers")


@pytest.mark.parametrize("engine", ["vllm", "ray", "transformers"])
def test_engines_that_load_adapters_are_taken(engine: str) -> None:
    assert build_config(ImproveConfig, recipes=Path("some.yaml"), engine=engine).engine == engine


def test_every_fault_is_named_at_once() -> None:
    said = refusal(model="some.gguf", keep=2.0, rungs=9)
    assert all(word in said for word in ("GGUF", "keep", "rungs"))
