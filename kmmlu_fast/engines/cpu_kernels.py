"""vLLM on a CPU: layer norms in three passes over memory instead of eight, bit for bit the same.

In: nothing. Out: vLLM engine arguments that choose the kernels; {} where there is no C++ compiler. vLLM runs
a norm eagerly on CPU, each step a pass over float32 copies: half of a small model's time. Here torch.compile
joins the elementwise steps before and after the mean; the mean itself stays torch's, whose order of additions
decides the last bit. Registered through vLLM's own extension point (``vllm.ir``), compiled at the first batch
(seconds; torch caches the result on disk). Knows nothing of KMMLU.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

_PROVIDER = "joined_cpu"
# Which arguments the kernels take; vLLM wants its own parameter names and defaults here.
_TAKES: dict[str, Callable[..., bool]] = {
    "rms_norm": lambda x, weight, epsilon, variance_size=None: variance_size is None,
    "fused_add_rms_norm": lambda x, x_residual, weight, epsilon, variance_size=None: variance_size is None,
}


def joined_norms() -> dict[str, Any]:
    """Register the kernels (once a process) and return the arguments that prefer them to vLLM's own."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return {}
    kernels = norms()
    try:
        _compile_once(*kernels)
    # a compiler without Python's headers, say: torch raises many kinds, and a slower norm is no fault of a
    # user
    except Exception:
        return {}
    try:
        from vllm import ir

        for name, kernel in zip(_TAKES, kernels, strict=True):
            op = getattr(ir.ops, name)
            if _PROVIDER not in op.impls:
                plain = functools.wraps(op.impls["native"].impl_fn)(kernel)  # vLLM reads the signature
                op.register_impl(_PROVIDER, supports_args=_TAKES[name])(plain)
    except (
        ImportError,
        AttributeError,
        KeyError,
        ValueError,
    ):  # another version of vLLM: its own kernels then
        return {}
    return {"kernel_config": {"ir_op_priority": {name: [_PROVIDER] for name in _TAKES}}}


def _compile_once(rms_norm: Callable[..., Any], fused_add_rms_norm: Callable[..., Any]) -> None:
    """Compile before the engine is told of the kernels, on a few numbers: what fails here must not fail in
    the first batch.

    RuntimeError where they do not compute what torch computes: a kernel from a cache that another CPU filled,
    say.
    """
    import torch

    x, weight = (torch.linspace(-3, 3, 3 * 80).reshape(3, 80) * n for n in (1.0, 0.5))
    x, weight = x.bfloat16(), weight[0].bfloat16()
    wide = x.to(torch.float32)
    factor = torch.rsqrt((wide * wide).mean(dim=-1, keepdim=True) + 1e-6)
    expected = ((wide * factor).bfloat16() * weight).bfloat16()
    joined, summed = fused_add_rms_norm(x, torch.zeros_like(x), weight, 1e-6)
    if not (
        torch.equal(rms_norm(x, weight, 1e-6), expected)
        and torch.equal(joined, expected)
        and torch.equal(summed, x)
    ):
        raise RuntimeError("the compiled norms compute something else")


def norms() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """rms_norm and fused_add_rms_norm with the signatures and results of ``vllm.ir.ops``."""
    import torch

    # dynamic: one compilation for every number of tokens. Casts are kept where the eager code rounds to 16
    # bits and back.
    # The vectors' width is named, so that it is in the key of torch's cache on disk: without it, code
    # generated for AVX-512 was
    # found again under AVX2 (another machine with the same cache, or ATEN_CPU_CAPABILITY) and computed NaN.
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    options = {"emulate_precision_casts": True, "cpp.simdlen": pick_vec_isa().bit_width() or None}
    joined = functools.partial(torch.compile, dynamic=True, options=options)

    @joined
    def squares(x: Any) -> Any:
        wide = x.to(torch.float32)
        return wide * wide

    @joined
    def scale(x: Any, factor: Any, weight: Any) -> Any:
        return ((x.to(torch.float32) * factor).to(weight.dtype) * weight).to(x.dtype)

    @joined
    def add_squares(x: Any, residual: Any) -> Any:
        wide = x.to(torch.float32) + residual.to(torch.float32)
        return wide.to(x.dtype), wide * wide

    @joined
    def add_scale(x: Any, residual: Any, factor: Any, weight: Any) -> Any:
        return (((x.to(torch.float32) + residual.to(torch.float32)) * factor).to(weight.dtype) * weight).to(
            x.dtype
        )

    def rms_norm(x: Any, weight: Any, epsilon: float, variance_size: int | None = None) -> Any:
        factor = torch.rsqrt(squares(x).mean(dim=-1, keepdim=True) + epsilon)
        return (x.to(torch.float32) * factor).to(x.dtype) if weight is None else scale(x, factor, weight)

    def fused_add_rms_norm(
        x: Any, x_residual: Any, weight: Any, epsilon: float, variance_size: int | None = None
    ) -> Any:
        summed, squared = add_squares(x, x_residual)
        factor = torch.rsqrt(squared.mean(dim=-1, keepdim=True) + epsilon)
        if weight is None:
            return ((x.to(torch.float32) + x_residual.to(torch.float32)) * factor).to(x.dtype), summed
        return add_scale(x, x_residual, factor, weight), summed

    return rms_norm, fused_add_rms_norm
