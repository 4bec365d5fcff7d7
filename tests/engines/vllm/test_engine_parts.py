"""What the vLLM engine does around vLLM, without starting it: advice in its errors, how far
ahead it takes texts, shared parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import Candidates, Generation, Request, Want
from kmmlu_fast.engines.vllm import engine as engine_vllm
from kmmlu_fast.engines.vllm.device_arguments import EngineSettings, describe_known_memory
from kmmlu_fast.engines.vllm.engine import VllmEngine
from kmmlu_fast.engines.vllm.errors import NOT_STARTED, STOPPED, as_engine_error
from kmmlu_fast.engines.vllm.llm_arguments import lora_arguments
from kmmlu_fast.engines.vllm.request_mapping import sampling_params
from kmmlu_fast.machine.gpus import Gpu

SHAPE = {
    "hidden_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "intermediate_size": 4096,
    "vocab_size": 32000,
}


class EngineDeadError(Exception):
    """By the name that vLLM's has."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "Engine core initialization failed. See root cause above. Failed core proc(s):"
            " {'EngineCore_DP0': 1}"
        ),
        EngineDeadError("EngineCore encountered an issue. See stack trace (above) for the root cause."),
        EngineDeadError(),
    ],
)
def test_an_engine_process_that_died_gets_the_memory_advice_with_what_was_known_before(
    error: Exception,
) -> None:
    memory = "A card has 7.5 of 8.0 GiB free; weights take 13.5 GiB in bfloat16"
    line = str(as_engine_error(error, NOT_STARTED, memory))
    assert "\n" not in line and memory in line
    for flag in (
        "--quantization fp8_per_channel",
        "--max-num-batched-tokens",
        "--gpu-memory-utilization",
        "gcc",
    ):
        assert flag in line


def test_out_of_memory_in_this_process_gets_it_too_and_other_errors_do_not() -> None:
    stopped = str(as_engine_error(RuntimeError("CUDA out of memory. Tried"), STOPPED, "x"))
    assert "fp8_per_channel" in stopped and stopped.endswith("; finished answers are kept")
    plain = str(as_engine_error(ValueError("no such architecture"), NOT_STARTED, "x"))
    assert plain == "the engine did not start: ValueError: no such architecture"


def test_what_is_known_of_memory_before_the_engine_starts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    line = describe_known_memory(
        EngineSettings(model=str(tmp_path)),
        Gpu(name="A card", capability=(8, 9), total_bytes=8 << 30, free_bytes=7 << 30, driver="580"),
    )
    assert line.startswith("A card has 7.0 of 8.0 GiB free; weights take ") and "in fp8_per_channel" in line
    assert describe_known_memory(EngineSettings(model=str(tmp_path)), None) == ""


class Recorder:
    """An LLMEngine that finishes its oldest request at every step, and keeps how many were in it."""

    def __init__(self) -> None:
        self.vllm_config: Any = None
        self.waiting: list[str] = []
        self.largest = 0

    def add_request(self, request_id: str, prompt: Any, params: Any, lora_request: Any = None) -> None:
        self.waiting.append(request_id)
        self.largest = max(self.largest, len(self.waiting))

    def step(self) -> list[Any]:
        done = self.waiting.pop(0)
        entry = {token: SimpleNamespace(logprob=-1.0) for token in (1, 2, 3, 4)}
        output = SimpleNamespace(text="", token_ids=[1], finish_reason="stop", logprobs=[entry])
        return [SimpleNamespace(finished=True, request_id=done, num_cached_tokens=0, outputs=[output])]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> VllmEngine:
    """An engine made as ever, whose ``LLM`` is a recorder with a cache of 1,000 tokens."""
    import vllm

    cache = SimpleNamespace(kv_cache_size_tokens=1000)
    recorder = Recorder()
    recorder.vllm_config = SimpleNamespace(cache_config=cache)
    monkeypatch.setattr(engine_vllm, "prepare_environment", lambda gpu, model: None)  # environment variables
    monkeypatch.setattr(vllm, "LLM", lambda **arguments: SimpleNamespace(llm_engine=recorder))
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    made = VllmEngine(EngineSettings(model=str(tmp_path), max_num_seqs=32))
    monkeypatch.setattr(engine_vllm, "attach_tokenizer", lambda engine: None)
    return made


def asked(count: int, want: Want) -> Iterator[Request]:
    return (
        Request(question_id=str(i), stage="stage", token_ids=tuple(range(100)), want=want)
        for i in range(count)
    )


def test_texts_are_taken_as_far_as_the_cache_holds_them_at_full_length(engine: VllmEngine) -> None:
    assert len(list(engine.generate(asked(40, Generation(max_tokens=150))))) == 40
    assert engine._engine.largest == 4  # 250 tokens each


def test_letters_are_taken_as_far_as_the_batch_goes(engine: VllmEngine) -> None:
    assert len(list(engine.generate(asked(100, Candidates((1, 2, 3, 4)))))) == 100
    assert engine._engine.largest == 64


def test_a_text_larger_than_the_cache_still_goes_alone(engine: VllmEngine) -> None:
    assert len(list(engine.generate(asked(3, Generation(max_tokens=5000))))) == 3
    assert engine._engine.largest == 1


def test_requests_that_are_sampled_alike_share_their_parameters() -> None:
    one, two = (sampling_params(Candidates((5, 6, 7, 8))) for _ in range(2))
    other = sampling_params(Candidates((5, 6, 7, 9)))
    assert one is two and one is not other
    assert (
        one.skip_clone and one.logprob_token_ids == [5, 6, 7, 8] and other.logprob_token_ids == [5, 6, 7, 9]
    )
    text = sampling_params(Generation(max_tokens=9, temperature=0.5, seed=7, stop=("\n",)))
    assert (text.max_tokens, text.temperature, text.seed, text.stop) == (9, 0.5, 7, ["\n"])


def test_a_cpu_serves_no_adapters_of_a_mixture_of_experts(tmp_path: Path) -> None:
    experts = {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2}
    for name, more in (("dense", {}), ("moe", {**experts, "moe_intermediate_size": 64})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({**SHAPE, **more}))
    dense, moe = (
        EngineSettings(model=str(tmp_path / name), max_lora_rank=8, num_adapters=1)
        for name in ("dense", "moe")
    )
    assert lora_arguments(dense, on_gpu=False)["enable_lora"] is True
    assert lora_arguments(moe, on_gpu=True)["enable_lora"] is True
    with pytest.raises(EngineError, match=r"on a GPU only .*use --adapter-mode swap or merge"):
        lora_arguments(moe, on_gpu=False)
