"""The engine's arguments on NVIDIA cards that are not there: vLLM's own configuration accepts them, and they
mean what they should.

One child process in the CPU environment pretends the cards (``gpu_contract_child``); no kernel runs, no
weight is loaded. What a card really computes is ``bench.gpu``'s to find out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine

CARDS = {
    (7, 5): ("Tesla T4", 16),
    (8, 6): ("NVIDIA GeForce RTX 3090", 24),
    (8, 9): ("NVIDIA GeForce RTX 4090", 24),
    (9, 0): ("NVIDIA H100 80GB HBM3", 80),
    (12, 0): ("NVIDIA GeForce RTX 5090", 32),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "letters": {"generates": False},
    "fp8_per_channel": {"generates": False, "quantization": "fp8_per_channel"},
    "fp8_per_tensor": {"generates": False, "quantization": "fp8_per_tensor"},
    "LoRA": {"generates": False, "max_lora_rank": 16, "num_adapters": 2},
    "chain of thought": {"generates": True},
    "float32 letters": {"generates": False, "letter_precision": "float32"},
    "a name of another vLLM": {"generates": False, "quantization": "no_such_method"},
}
SHAPE = {  # 3 B parameters: its 16-bit weights go onto all of these cards
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 2048,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "intermediate_size": 11008,
    "vocab_size": 102400,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
    "eos_token_id": 1,
}
Found = dict[tuple[tuple[int, int], str], dict[str, Any]]


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = tmp_path_factory.mktemp("contract") / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(SHAPE))
    cases = [
        {"capability": capability, "name": name, "gib": gib, "settings": settings}
        for capability, (name, gib) in CARDS.items()
        for settings in SETTINGS.values()
    ]
    child = Path(__file__).with_name("gpu_contract_child.py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]),
    }
    for name in ("PYTORCH_NVML_BASED_CUDA_CHECK", "VLLM_WORKER_MULTIPROC_METHOD", "CUDA_VISIBLE_DEVICES"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, str(child), str(model), json.dumps(cases)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def resolved(answered: dict[str, Any]) -> Found:
    keys = [(capability, name) for capability in CARDS for name in SETTINGS]
    return dict(zip(keys, answered["cases"], strict=True))


def test_everything_resolves_that_the_card_can_compute(resolved: Found) -> None:
    refused = {key for key, outcome in resolved.items() if "error" in outcome}
    unknown = {(capability, "a name of another vLLM") for capability in CARDS}
    assert refused == {((7, 5), "fp8_per_channel"), ((8, 6), "fp8_per_channel")} | unknown, resolved


def test_what_cannot_be_computed_is_said_in_a_line_before_anything_is_loaded(resolved: Found) -> None:
    for capability in ((7, 5), (8, 6)):
        outcome = resolved[capability, "fp8_per_channel"]
        assert (
            outcome["error"].startswith("EngineError: ")
            and "fp8_per_tensor" in outcome["error"]
            and outcome["cause"] == "None"
        )
    line = resolved[(9, 0), "a name of another vLLM"]["error"]
    assert (
        line.startswith("EngineError: the engine did not start")
        and "no_such_method" in line
        and "\n" not in line
    )


@pytest.mark.parametrize("capability", list(CARDS))
def test_types(resolved: Found, capability: tuple[int, int]) -> None:
    half = "float16" if capability == (7, 5) else "bfloat16"
    letters, precise = resolved[capability, "letters"], resolved[capability, "float32 letters"]
    assert (letters["dtype"], letters["head_dtype"], letters["quantization"]) == (half, half, None)
    assert (precise["dtype"], precise["head_dtype"]) == (half, "float32")
    assert resolved[capability, "fp8_per_tensor"]["quantization"] == "fp8_per_tensor"
    assert resolved[capability, "LoRA"]["lora_rank"] == 16


@pytest.mark.parametrize("capability", list(CARDS))
def test_letters_are_eager_text_has_graphs_and_the_batch_is_the_cards(
    resolved: Found, capability: tuple[int, int]
) -> None:
    letters, text = resolved[capability, "letters"], resolved[capability, "chain of thought"]
    assert letters["eager"] and letters["graphs"] == 0
    assert not text["eager"] and text["graphs"] > 10
    batch = {16: (4096, 256), 24: (8192, 512), 32: (8192, 512), 80: (16384, 1024)}[CARDS[capability][1]]
    assert {(outcome["tokens"], outcome["seqs"]) for outcome in (letters, text)} == {batch}
    assert letters["prefix_caching"] and text["prefix_caching"]


def test_the_environment_is_safe_at_every_question_for_a_gpu(answered: dict[str, Any]) -> None:
    assert answered["asked"] and {tuple(pair) for pair in answered["asked"]} == {("1", "spawn")}
