"""cpu_kernels: the joined norms give the very bits of vLLM's eager ones (compiles for some seconds)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.engine,
    pytest.mark.alone,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
]


@pytest.fixture(autouse=True)
def _of_this_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are compiled once a process: those of other tests are put aside."""
    from kmmlu_fast.engines.vllm import cpu_kernels

    monkeypatch.setattr(cpu_kernels, "_joined", cpu_kernels._FusedNorms())


def test_joined_norms_are_bit_for_bit_the_eager_ones():
    torch = pytest.importorskip("torch")
    from kmmlu_fast.engines.vllm.cpu_kernels import build_fused_norms

    def eager(x, weight, epsilon, residual=None):  # vllm/ir/ops/layernorm.py
        wide = x.to(torch.float32) if residual is None else x.to(torch.float32) + residual.to(torch.float32)
        factor = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + epsilon)
        return ((wide * factor).to(weight.dtype) * weight).to(x.dtype), wide.to(x.dtype)

    rms_norm, fused_add_rms_norm = build_fused_norms()
    draw = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(37, 640, generator=draw).bfloat16() * 3 for _ in range(2))
    heads = (
        torch.randn(37, 1536, generator=draw).bfloat16()[:, :1024].unflatten(-1, (4, 256))
    )  # as q is cut out of qkv
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.randn(640, generator=draw).to(dtype)
        assert torch.equal(rms_norm(x, weight, 1e-6), eager(x, weight, 1e-6)[0])
        assert torch.equal(rms_norm(heads, weight[:256], 1e-6), eager(heads, weight[:256], 1e-6)[0])
        for fused, wanted in zip(
            fused_add_rms_norm(x, residual, weight, 1e-6), eager(x, weight, 1e-6, residual), strict=True
        ):
            assert torch.equal(fused, wanted)


@pytest.mark.engine
def test_a_compiler_that_fails_leaves_vllms_own_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    from kmmlu_fast.engines.vllm import cpu_kernels as kernels

    def broken(*norms: object) -> None:
        raise RuntimeError("Python.h: No such file or directory")

    monkeypatch.setattr(kernels, "_compile_and_check", broken)
    assert kernels.register_fused_norms() == {}


COMPUTED = """
import torch
from kmmlu_fast.engines.vllm.cpu_kernels import _compile_and_check, build_fused_norms
rms_norm, fused = build_fused_norms()
_compile_and_check(rms_norm, fused)
x = torch.linspace(-3, 3, 37 * 640).reshape(37, 640)
normed = rms_norm(x, torch.ones(640), 1e-6)
expected = x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6)
print(torch.backends.cpu.get_cpu_capability(), torch.equal(normed, expected))
"""


def test_a_cache_that_another_cpu_filled_is_not_taken(tmp_path: Path) -> None:
    """AVX-512 first, then AVX2, with one cache on disk: torch's key does not hold the width of
    the vectors by itself.
    """
    outputs = []
    for capability in ({}, {"ATEN_CPU_CAPABILITY": "avx2"}):
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), **capability}
        done = subprocess.run(
            [sys.executable, "-c", COMPUTED], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        outputs.append(done.stdout.split())
    assert [words[1] for words in outputs] == ["True", "True"] and outputs[1][0] == "AVX2"


def test_norms_that_compute_something_else_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from kmmlu_fast.engines.vllm import cpu_kernels as kernels

    rms_norm, fused = kernels.build_fused_norms()
    monkeypatch.setattr(kernels, "build_fused_norms", lambda: (lambda *a: rms_norm(*a) * 2, fused))
    assert kernels.register_fused_norms() == {}


def test_the_kernels_are_compiled_when_the_eager_norms_have_cost_as_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip("torch")
    from kmmlu_fast.engines.vllm import cpu_kernels as kernels

    made = []

    def stand_ins():
        made.append(1)
        return (lambda *tensors, **_: "joined"), (lambda *tensors, **_: "summed")

    monkeypatch.setattr(kernels, "build_fused_norms", stand_ins)
    monkeypatch.setattr(kernels, "_compile_and_check", lambda *_: None)
    assert set(kernels.register_fused_norms(after=150)["kernel_config"]["ir_op_priority"]) == set(
        kernels._TAKES
    )
    x, takes = torch.zeros(10, 10), kernels._TAKES["rms_norm"]
    assert not takes(x, None, 1e-6) and not made  # 100 values
    assert takes(x, None, 1e-6) and made == [1]  # 200: now they are worth it
    assert takes(x, None, 1e-6) and made == [1]
    assert not takes(x, None, 1e-6, 5)
    assert kernels._make_dispatcher(0)(x, None, 1e-6) == "joined"
    assert kernels._make_dispatcher(1)(x, x, None, 1e-6) == "summed"


def test_a_compiler_that_fails_in_the_middle_leaves_vllms_own_norms_and_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = pytest.importorskip("torch")
    from kmmlu_fast.engines.vllm import cpu_kernels as kernels

    asked = []

    def broken():
        asked.append(1)
        raise RuntimeError("Python.h: No such file or directory")

    monkeypatch.setattr(kernels, "build_fused_norms", broken)
    kernels.register_fused_norms(after=1)
    x, takes = torch.zeros(10, 10), kernels._TAKES["fused_add_rms_norm"]
    assert not takes(x, x, None, 1e-6) and not takes(x, x, None, 1e-6) and asked == [1]
    kernels.compile_fused_norms()
    assert asked == [1]


def test_keys_of_one_head_are_normed_like_a_matrix() -> None:
    torch = pytest.importorskip("torch")
    from kmmlu_fast.engines.vllm.cpu_kernels import build_fused_norms

    rms_norm, _ = build_fused_norms()
    cut = torch.randn(9, 1536, generator=torch.Generator().manual_seed(1)).bfloat16()[:, 1024:1280]
    weight = torch.linspace(0.5, 1.5, 256).bfloat16()
    normed = rms_norm(cut.unflatten(-1, (1, 256)), weight, 1e-6)
    assert normed.shape == (9, 1, 256) and torch.equal(normed[:, 0], rms_norm(cut, weight, 1e-6))
