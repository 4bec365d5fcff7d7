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

import fake_card
import pytest

from kmmlu_fast.machine import packages

pytestmark = pytest.mark.engine

CARDS = fake_card.CARDS
SETTINGS: dict[str, dict[str, Any]] = {
    **fake_card.CASES,
    "a name of another vLLM": {"generates": False, "quantization": "no_such_method"},
}
Card = tuple[tuple[int, int], int, str]
Found = dict[tuple[str, str], dict[str, Any]]  # by the card's name and the case


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = tmp_path_factory.mktemp("contract") / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(fake_card.SHAPE))
    cases = [
        {"capability": capability, "name": name, "gib": gib, "settings": settings}
        for capability, gib, name in CARDS
        for settings in SETTINGS.values()
    ]
    child = Path(__file__).with_name("gpu_contract_child.py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(Path.cwd()), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        ),
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
    keys = [(name, case) for _, _, name in CARDS for case in SETTINGS]
    return dict(zip(keys, answered["cases"], strict=True))


def before_ada() -> list[str]:
    return [name for capability, _, name in CARDS if capability < (8, 9)]


def test_everything_resolves_that_the_card_can_compute(resolved: Found) -> None:
    refused = {key for key, outcome in resolved.items() if "error" in outcome}
    unknown = {(name, "a name of another vLLM") for _, _, name in CARDS}
    assert refused == {(name, "fp8_per_channel") for name in before_ada()} | unknown, resolved
    assert len(CARDS) == 15 and len(fake_card.CASES) == 8


def test_what_cannot_be_computed_is_said_in_a_line_before_anything_is_loaded(resolved: Found) -> None:
    for name in before_ada():
        outcome = resolved[name, "fp8_per_channel"]
        assert outcome["error"].startswith("EngineError: ") and "fp8_per_tensor" in outcome["error"]
        assert outcome["cause"] == "None"
    line = resolved["NVIDIA H200", "a name of another vLLM"]["error"]
    assert line.startswith("EngineError: the engine did not start")
    assert "no_such_method" in line and "\n" not in line


def test_fp8_is_marlins_before_ada_and_cutlass_from_there_and_never_compiled_at_the_start(
    resolved: Found,
) -> None:
    for capability, _, name in CARDS:
        for case in ("fp8_per_tensor", "fp8_per_channel"):
            if "error" not in (outcome := resolved[name, case]):
                expected = "CutlassFP8" if capability >= (8, 9) else "MarlinFP8"
                assert outcome["kernel"] == expected, (name, case)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card[2])
def test_no_flashinfer_where_it_would_compile(resolved: Found, card: Card) -> None:
    for case in fake_card.CASES:
        if "error" in (outcome := resolved[card[2], case]):
            continue
        assert (outcome["autotune"], outcome["sampler"]) == (False, "0")
        assert outcome["attention_asked"] == ("FLASH_ATTN" if card[0] == (10, 0) else None)
        assert int(outcome["ready_timeout"]) > 600


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card[2])
def test_types(resolved: Found, card: Card) -> None:
    half, name = ("float16" if card[0] == (7, 5) else "bfloat16"), card[2]
    letters, precise = resolved[name, "letters"], resolved[name, "float32 letters"]
    assert (letters["dtype"], letters["head_dtype"], letters["quantization"]) == (half, half, None)
    assert (precise["dtype"], precise["head_dtype"]) == (half, "float32")
    assert resolved[name, "fp8_per_tensor"]["quantization"] == "fp8_per_tensor"
    adapters = resolved[name, "LoRA"]
    assert (adapters["lora_rank"], adapters["adapters_kept"]) == (16, 3)  # of a hundred
    assert resolved[name, "chain of thought, LoRA"]["adapters_kept"] == 2


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card[2])
def test_letters_are_eager_text_has_graphs_and_the_batch_is_the_cards(resolved: Found, card: Card) -> None:
    letters, text = resolved[card[2], "letters"], resolved[card[2], "chain of thought"]
    assert letters["eager"] and letters["graphs"] == 0
    assert not text["eager"] and text["graphs"] > 10
    largest = (16384, 1024) if card[1] >= 40 else (8192, 512) if card[1] >= 24 else (4096, 256)
    assert letters["tokens"] == text["tokens"] <= largest[0]
    assert letters["seqs"] <= largest[1] and text["seqs"] == min(letters["seqs"], 512)
    if card[1] > 8:  # 6 GB of weights leave room for the largest step
        assert (letters["tokens"], letters["seqs"]) == largest
    assert letters["prefix_caching"] and text["prefix_caching"]


def test_the_environment_is_safe_at_every_question_for_a_gpu(answered: dict[str, Any]) -> None:
    assert answered["asked"] and {tuple(pair) for pair in answered["asked"]} == {("1", "spawn")}


@pytest.mark.skipif(packages.installed_kind() != "gpu", reason="needs the CUDA set: requirements/gpu.txt")
def test_the_real_cuda_build_resolves_the_same() -> None:
    """Stub driver libraries in C instead of a pretended platform; needs no card."""
    from fake_card.resolve import resolve_cards

    rows = {(row["card"], row.get("case")): row for row in resolve_cards()}
    for capability, _, name in CARDS:
        assert rows[name, "fork"]["bad_fork"] is False
        for case in fake_card.CASES:
            row = rows[name, case]
            if case == "fp8_per_channel" and capability < (8, 9):
                assert "fp8_per_tensor" in row["error"]
                continue
            assert "error" not in row, row
            assert row["v2"] and row["async"] and row["prefix"] and not row["autotune"]
            assert row["sampler"] == "0" and "FlashInfer" not in row["attention"]
            assert row["attention"] == ("TritonAttention" if capability < (8, 0) else "FlashAttention")
            if row["kernel"]:
                assert row["kernel"] == ("CutlassFP8" if capability >= (8, 9) else "MarlinFP8")
