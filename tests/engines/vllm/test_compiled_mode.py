"""When vLLM compiles the model on a CPU: only where that is known to pay, or if it is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.engines.config import EngineConfig
from kmmlu_fast.engines.vllm import kind as vllm_kind
from kmmlu_fast.engines.vllm.compiled_mode import GAINS, CompiledGain, choose_compiled_mode
from kmmlu_fast.machine.host import Cpu

AMX, AVX512 = ("avx512f", "avx512_bf16", "amx_bf16"), ("avx512f", "avx512_bf16")
KMMLU = 35_030


def chosen(setting: str = "auto", flags: tuple[str, ...] = AMX, **changed: Any) -> tuple[bool, str]:
    case = {"dtype": "auto", "questions": KMMLU, "letters": True, "adapters": False, **changed}
    return choose_compiled_mode(setting, flags, **case)


@pytest.mark.parametrize("flags", [AMX, AVX512])
def test_it_is_chosen_for_a_long_pass_of_letters_and_says_so(flags: tuple[str, ...]) -> None:
    compiled, why = chosen(flags=flags)
    assert compiled and "35,030 questions" in why and "adapters later needs --compile off" in why
    assert chosen(dtype="bfloat16", flags=flags)[0]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"flags": ("avx512f",)}, "AVX512_BF16"),
        ({"flags": ()}, "AMX"),
        ({"dtype": "float32"}, "float32"),
        ({"dtype": "float16"}, "float16"),
        ({"letters": False}, "one token"),
        ({"adapters": True}, "adapter"),
        ({"questions": 5_344}, "5,345 questions"),
        ({"questions": 3_960, "flags": AVX512}, "3,961 questions"),
        ({"questions": 0}, "questions"),
    ],
)
def test_it_is_not_chosen_where_nothing_is_known_to_be_gained(case: dict[str, Any], reason: str) -> None:
    compiled, why = chosen(**case)
    assert not compiled and reason in why
    assert chosen("on", **case) == (True, "")
    assert chosen("off", **case) == (False, "")


@pytest.mark.parametrize("gain", GAINS.values())
def test_what_is_saved_at_the_threshold_is_what_the_start_costs(gain: CompiledGain) -> None:
    count = gain.worth_questions
    assert count / gain.eager_rate == pytest.approx(gain.start_sec + count / gain.compiled_rate, rel=1e-3)


@pytest.fixture
def on_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_kind, "detect_cpu", lambda: Cpu("Xeon", frozenset(AMX)))
    monkeypatch.setattr("kmmlu_fast.machine.device.has_gpu", lambda: False)


def decided(setting: str, questions: int = KMMLU, **more: Any) -> dict[str, Any]:
    options = EngineConfig.model_validate({"model": "demo", "compile": setting, **more})
    return vllm_kind.KIND.choose_for_questions(options, questions, letters=True, adapters=False)[0]


@pytest.mark.usefixtures("on_amx")
def test_only_a_compiled_run_says_so_in_its_fingerprint() -> None:
    parts = vllm_kind.KIND.fingerprint_parts
    assert decided("off") == {} and decided("auto", 10) == {"compile": "off"}
    assert decided("auto") == decided("on") == {"compile": "on"}
    for setting, expected in (("off", {}), ("on", {"compiled": True})):
        assert parts(EngineConfig.model_validate({"model": "demo", "compile": setting})) == expected


@pytest.mark.usefixtures("on_amx")
def test_a_compiled_engine_takes_no_other_weights() -> None:
    problem = vllm_kind.KIND.swap_problem
    assert not problem(EngineConfig.model_validate({"model": "demo"}))
    assert "keeps the weights" in problem(EngineConfig.model_validate({"model": "demo", "compile": "on"}))


def test_on_a_gpu_it_is_refused_and_auto_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmmlu_fast.machine.device.has_gpu", lambda: True)
    assert decided("auto") == {"compile": "off"}
    with pytest.raises(ConfigError, match="--compile on is for CPUs"):
        decided("on")


def test_other_engines_refuse_it() -> None:
    with pytest.raises(ValueError, match="--compile goes with --engine vllm"):
        EngineConfig.model_validate({"model": "demo", "engine": "transformers", "compile": "on"})
