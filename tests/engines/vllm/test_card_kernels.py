"""Which kernels are asked for on a card: nothing that FlashInfer would compile, and time for large models."""

from __future__ import annotations

from typing import Any

import pytest

from kmmlu_fast.engines.vllm import card_kernels
from kmmlu_fast.engines.vllm.card_kernels import gpu_environment, kernel_arguments, ready_timeout_sec
from kmmlu_fast.machine import model_size, packages
from kmmlu_fast.machine.gpus import Gpu
from kmmlu_fast.machine.model_size import ModelFacts


def card(capability: tuple[int, int]) -> Gpu:
    return Gpu(name="A card", capability=capability, total_bytes=1 << 36, free_bytes=1 << 36, driver="580")


def facts(head_dim: int = 128, parameters: int = 7_000_000_000, stored_bytes: int = 0) -> ModelFacts:
    return ModelFacts(
        name="m", source="test", parameters=parameters, stored_bytes=stored_bytes, head_dim=head_dim
    )


@pytest.mark.parametrize("state", ["compiled", ""])
@pytest.mark.parametrize("capability", [(7, 5), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_flashinfer_is_not_asked_to_compile(
    monkeypatch: pytest.MonkeyPatch, state: str, capability: tuple[int, int]
) -> None:
    monkeypatch.setattr(packages, "flashinfer_state", lambda: state)
    variables = gpu_environment()
    assert variables["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert variables["VLLM_DISABLED_KERNELS"] == "FlashInferFP8ScaledMMLinearKernel"
    expected: dict[str, Any] = {"enable_flashinfer_autotune": False}
    if capability == (10, 0):
        expected["attention_backend"] = "FLASH_ATTN"
    assert kernel_arguments(card(capability), facts()) == expected


@pytest.mark.parametrize("head_dim", [0, 100, 512])
def test_attention_is_vllms_choice_for_heads_that_flash_attention_may_not_take(
    monkeypatch: pytest.MonkeyPatch, head_dim: int
) -> None:
    monkeypatch.setattr(packages, "flashinfer_state", lambda: "compiled")
    assert "attention_backend" not in kernel_arguments(card((10, 0)), facts(head_dim))
    assert "attention_backend" not in kernel_arguments(card((10, 0)), None)


def test_precompiled_kernels_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "flashinfer_state", lambda: "precompiled")
    assert kernel_arguments(card((10, 0)), facts()) == {}
    assert not {"VLLM_USE_FLASHINFER_SAMPLER", "VLLM_DISABLED_KERNELS"} & gpu_environment().keys()


def test_the_timeout_is_long_enough_to_read_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"7b": facts(stored_bytes=14_500_000_000), "70b": facts(parameters=70_000_000_000)}
    monkeypatch.setattr(model_size, "find_model_facts", lambda name, **_: known.get(name))
    assert ready_timeout_sec("") == ready_timeout_sec("unknown") == 600
    assert ready_timeout_sec("7b") == 600 + 145
    assert ready_timeout_sec("70b") == 600 + 1400  # 140 GB at 100 MB/s
    assert gpu_environment("70b")["VLLM_ENGINE_READY_TIMEOUT_S"] == "2000"
    assert gpu_environment()["VLLM_WSL2_ENABLE_PIN_MEMORY"] == "1"


def test_the_names_are_the_installed_vllms() -> None:
    """Variables and arguments that vLLM does not know would be ignored in silence."""
    envs = pytest.importorskip("vllm.envs")
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.kernels import linear

    known = set(envs.environment_variables)
    assert set(gpu_environment()) <= known
    assert {"enable_flashinfer_autotune", "attention_backend"} <= set(EngineArgs.__dataclass_fields__)
    assert hasattr(linear, card_kernels._FLASHINFER_FP8)
