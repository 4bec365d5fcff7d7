"""cpu_kernels: the joined norms give the very bits of vLLM's eager ones (compiles for some seconds)."""

import shutil

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
    heads = torch.randn(37, 1536, generator=draw).bfloat16()[:, :1024].unflatten(-1, (4, 256))  # as q is cut out of qkv
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.randn(640, generator=draw).to(dtype)
        assert torch.equal(rms_norm(x, weight, 1e-6), eager(x, weight, 1e-6)[0])
        assert torch.equal(rms_norm(heads, weight[:256], 1e-6), eager(heads, weight[:256], 1e-6)[0])
        for ours, theirs in zip(fused_add_rms_norm(x, residual, weight, 1e-6), eager(x, weight, 1e-6, residual), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.engine
def test_a_compiler_that_fails_leaves_vllms_own_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    import kmmlu_fast.cpu_kernels as kernels

    def broken(*norms: object) -> None:
        raise RuntimeError("Python.h: No such file or directory")

    monkeypatch.setattr(kernels, "_compile_once", broken)
    assert kernels.joined_norms() == {}
