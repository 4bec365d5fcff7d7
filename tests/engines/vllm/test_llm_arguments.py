"""The arguments of vLLM's LLM: how much host memory adapters may take, and which ranks go."""

from __future__ import annotations

import pytest

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.engines.vllm import llm_arguments as module
from kmmlu_fast.engines.vllm.device_arguments import EngineSettings
from kmmlu_fast.engines.vllm.llm_arguments import llm_arguments


@pytest.fixture(autouse=True)
def _no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "can_defer_tokenizer", lambda *_: True)


@pytest.mark.parametrize(("adapters", "kept"), [(1, 1), (2, 2), (3, 3), (4, 3), (100, 3)])
def test_at_most_two_adapters_more_than_are_in_a_batch_are_kept_in_host_memory(
    adapters: int, kept: int
) -> None:
    """A hundred of rank 64 on a 7B would take 32 GB."""
    settings = EngineSettings(model="m", max_lora_rank=64, num_adapters=adapters)
    found = llm_arguments(settings, {}, on_gpu=True)
    assert (found["max_loras"], found["max_cpu_loras"]) == (1, kept)


def test_ranks_are_rounded_up_to_vllms_and_no_adapter_asks_for_none() -> None:
    assert llm_arguments(EngineSettings(model="m", max_lora_rank=20), {}, on_gpu=True)["max_lora_rank"] == 32
    assert "enable_lora" not in llm_arguments(EngineSettings(model="m"), {}, on_gpu=True)
    with pytest.raises(EngineError, match="rank 513 is above vLLM's maximum of 512"):
        llm_arguments(EngineSettings(model="m", max_lora_rank=513), {}, on_gpu=True)


def test_what_was_chosen_for_the_device_is_passed_on_and_the_users_own_wins() -> None:
    settings = EngineSettings(model="m", extra=(("enforce_eager", True),))
    found = llm_arguments(settings, {"enforce_eager": False, "attention_backend": "FLASH_ATTN"}, on_gpu=True)
    assert found["enforce_eager"] is True and found["attention_backend"] == "FLASH_ATTN"


def test_on_a_cpu_the_model_is_compiled_only_if_the_settings_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "register_fused_norms", lambda after: {"kernel_config": after})
    eager = llm_arguments(EngineSettings(model="m", dtype="float32"), {}, on_gpu=False)
    assert eager["enforce_eager"] is True and "compilation_config" not in eager and "kernel_config" in eager
    compiled = llm_arguments(EngineSettings(model="m", dtype="float32", compiled=True), {}, on_gpu=False)
    assert compiled["enforce_eager"] is False and compiled["compilation_config"] == {"mode": 3}
    assert "kernel_config" not in compiled  # the compiler joins the norms itself
    assert compiled["block_size"] == eager["block_size"]
