"""cpu_kernels: the joined norms give the very bits of vLLM's eager ones (compiles for some seconds)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")]


def test_joined_norms_are_bit_for_bit_the_eager_ones():
    torch = pytest.importorskip("torch")
    from kmmlu_fast.engines.cpu_kernels import norms

    def eager(x, weight, epsilon, residual=None):  # vllm/ir/ops/layernorm.py
        wide = x.to(torch.float32) if residual is None else x.to(torch.float32) + residual.to(torch.float32)
        factor = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + epsilon)
        return ((wide * factor).to(weight.dtype) * weight).to(x.dtype), wide.to(x.dtype)

    rms_norm, fused_add_rms_norm = norms()
    draw = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(37, 640, generator=draw).bfloat16() * 3 for _ in range(2))
    heads = (
        torch.randn(37, 1536, generator=draw).bfloat16()[:, :1024].unflatten(-1, (4, 256))
    )  # as q is cut out of qkv
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.randn(640, generator=draw).to(dtype)
        assert torch.equal(rms_norm(x, weight, 1e-6), eager(x, weight, 1e-6)[0])
        assert torch.equal(rms_norm(heads, weight[:256], 1e-6), eager(heads, weight[:256], 1e-6)[0])
        for ours, theirs in zip(
            fused_add_rms_norm(x, residual, weight, 1e-6), eager(x, weight, 1e-6, residual), strict=True
        ):
            assert torch.equal(ours, theirs)


@pytest.mark.engine
def test_a_compiler_that_fails_leaves_vllms_own_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    from kmmlu_fast.engines import cpu_kernels as kernels

    def broken(*norms: object) -> None:
        raise RuntimeError("Python.h: No such file or directory")

    monkeypatch.setattr(kernels, "_compile_once", broken)
    assert kernels.joined_norms() == {}


COMPUTED = """
import torch
from kmmlu_fast.engines.cpu_kernels import _compile_once, norms
rms_norm, fused = norms()
_compile_once(rms_norm, fused)
x = torch.linspace(-3, 3, 37 * 640).reshape(37, 640)
found = rms_norm(x, torch.ones(640), 1e-6)
expected = x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + 1e-6)
print(torch.backends.cpu.get_cpu_capability(), torch.equal(found, expected))
"""


def test_a_cache_that_another_cpu_filled_is_not_taken(tmp_path: Path) -> None:
    """AVX-512 first, then AVX2, with one cache on disk: torch's key does not hold the width of
    the vectors by itself.
    """
    said = []
    for capability in ({}, {"ATEN_CPU_CAPABILITY": "avx2"}):
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), **capability}
        done = subprocess.run(
            [sys.executable, "-c", COMPUTED], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(done.stdout.split())
    assert [words[1] for words in said] == ["True", "True"] and said[1][0] == "AVX2"


def test_norms_that_compute_something_else_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from kmmlu_fast.engines import cpu_kernels as kernels

    rms_norm, fused = kernels.norms()
    monkeypatch.setattr(kernels, "norms", lambda: (lambda *a: rms_norm(*a) * 2, fused))
    assert kernels.joined_norms() == {}
