"""Two commands share an engine only if everything that decides an answer is the same."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.warm import identity as identities
from kmmlu_fast.engines.warm.config import WarmEngineConfig
from kmmlu_fast.engines.warm.identity import describe_identity_differences, identify_engine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.machine import device, variables
from kmmlu_fast.machine.variables import record_library_variables
from kmmlu_fast.models.model import Model

MODEL = Model("m", "/models/m", None, "0123")
ADAPTER = Adapter(name="a", path=Path("/a"), adapter_id=1, rank=8, digest="d")


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("OMP_", "VLLM_", "CUDA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(device, "has_gpu", lambda: False)
    monkeypatch.setattr(identities, "code_digest", lambda: "code")


def key_of(config: Any = None, model: Model = MODEL, adapters: tuple[Adapter, ...] = (), **more: Any) -> str:
    config = config or EvalConfig(model="m", **more)
    found = identify_engine(config, model, list(adapters), more.get("max_model_len") or 256)
    assert found is not None
    return found.key


def test_serve_engine_and_eval_mean_the_same_engine() -> None:
    assert key_of(WarmEngineConfig(model="m", max_model_len=4096)) == key_of()
    sampled = WarmEngineConfig(model="m", samples=True, texts=True)
    assert key_of(sampled) == key_of(output_type="cot", temperature=0.6) != key_of()


@pytest.mark.parametrize(
    "more",
    [
        {"num_fewshot": 5},
        {"prompt_style": "qa"},
        {"output_type": "cot"},
        {"seed": 7},
        {"max_model_len": 2048},
        {"rotations": 4},
        {"limit": 3},
    ],
)
def test_how_is_asked_does_not_change_the_engine(more: dict[str, Any]) -> None:
    assert key_of(**more) == key_of()


@pytest.mark.parametrize(
    "more",
    [
        {"dtype": "float32"},
        {"quantization": "fp8_per_channel"},
        {"letter_precision": "float32"},
        {"gpu_memory_utilization": 0.5},
        {"tensor_parallel_size": 2},
        {"max_num_seqs": 8},
        {"max_num_batched_tokens": 1024},
        {"output_type": "cot", "temperature": 0.6},
        {"revision": "abc"},
    ],
)
def test_what_the_engine_is_built_from_does(more: dict[str, Any]) -> None:
    if "quantization" in more:
        config = EvalConfig(model="m").model_copy(update=more)
        assert key_of(config) != key_of()
    elif "revision" in more:
        assert key_of(model=replace(MODEL, revision="abc")) != key_of()
    else:
        assert key_of(**more) != key_of()


def test_model_files_adapters_versions_code_and_environment_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of()
    keys = [before, key_of(model=replace(MODEL, digest="4567")), key_of(model=replace(MODEL, path="/other"))]
    keys.append(key_of(adapters=(ADAPTER,)))
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE", "ATEN_CPU_CAPABILITY"):
        monkeypatch.setenv(name, "1")
        keys.append(key_of())
        monkeypatch.delenv(name)
    monkeypatch.setattr(identities, "package_version", lambda name: "0.0")
    keys.append(key_of())
    monkeypatch.setattr(identities, "code_digest", lambda: "edited")
    keys.append(key_of())
    monkeypatch.setattr(identities, "_usable_processors", lambda: [0])
    keys.append(key_of())
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "name",
    [
        "HOME",
        "VLLM_LOGGING_LEVEL",
        "VLLM_ENGINE_READY_TIMEOUT_S",
        "TORCHINDUCTOR_CACHE_DIR",
        "KMP_INIT_AT_FORK",
        "TORCH_CPP_LOG_LEVEL",
        "COLUMNS",
    ],
)
def test_other_variables_do_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = key_of()
    monkeypatch.setenv(name, "other")
    assert key_of() == before


def test_what_an_engine_of_this_process_set_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM 0.32 does when it starts on a CPU; a command after it finds the warm engine still."""
    monkeypatch.setattr(variables, "_set_by_libraries", {})
    names = ("LD_PRELOAD", "TORCHINDUCTOR_CPP_DYNAMIC_THREADS", "VLLM_SSM_CONV_STATE_LAYOUT")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    before = key_of()
    with record_library_variables():
        for name in names:
            monkeypatch.setenv(name, "set by vLLM")
    assert key_of() == before
    monkeypatch.setenv("VLLM_SSM_CONV_STATE_LAYOUT", "DS")
    assert key_of() != before


def test_an_interpreter_is_its_environment_by_whatever_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = key_of()
    monkeypatch.setattr(sys, "executable", f"{sys.prefix}/bin/python3.99")
    assert key_of() == before
    (tmp_path / "link").symlink_to(sys.prefix)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "link"))
    assert key_of() == before
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert key_of() != before


def test_on_a_gpu_texts_and_letters_are_two_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_gpu", lambda: True)
    texts = WarmEngineConfig(model="m", texts=True)
    assert key_of(texts) == key_of(output_type="generate_until") != key_of()


def test_sampled_prompts_are_prefilled_whole_so_their_context_counts() -> None:
    more: dict[str, Any] = {"output_type": "cot", "temperature": 0.6}
    assert key_of(**more, max_model_len=2048) == key_of(**more, max_model_len=1024)
    assert key_of(**more, max_model_len=4096) != key_of(**more, max_model_len=1024)


@pytest.mark.parametrize(
    "config",
    [
        EvalConfig(model="m", data_parallel_size=2),
        EvalConfig(model="m", load_format="dummy"),
        EvalConfig(model="m", compile="on"),
        EvalConfig(model="m", engine="transformers"),
        EvalConfig(model="m", engine="server", base_url="http://localhost:1/v1"),
    ],
)
def test_other_engines_are_not_kept_warm(config: EvalConfig) -> None:
    assert identify_engine(config, MODEL, [], 256) is None


def test_differences_are_told_by_name() -> None:
    warm = {"dtype": "auto", "versions": {"vllm": "1"}, "environment": {"OMP_NUM_THREADS": "2"}}
    wanted = {"dtype": "auto", "versions": {"vllm": "2"}, "environment": {}}
    assert describe_identity_differences(warm, wanted) == [
        "OMP_NUM_THREADS ('2' there, None here)",
        "vllm ('1' there, '2' here)",
    ]
