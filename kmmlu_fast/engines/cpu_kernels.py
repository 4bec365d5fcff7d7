"""vLLM on a CPU: layer norms in three passes over memory instead of eight, bit for bit the same.

In: nothing. Out: vLLM engine arguments that choose the kernels; {} where there is no C++ compiler. vLLM runs a norm eagerly on CPU, each
step a pass over float32 copies: half of a small model's time. Here torch.compile joins the elementwise steps before and after the mean;
the mean itself stays torch's, whose order of additions decides the last bit. Registered through vLLM's own extension point
(``vllm.ir``), compiled at the first batch (seconds; torch caches the result on disk). Knows nothing of KMMLU.
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
    except Exception:  # a compiler without Python's headers, say: torch raises many kinds, and a slower norm is no fault of a user
        return {}
    try:
        from vllm import ir

        for name, kernel in zip(_TAKES, kernels, strict=True):
            op = getattr(ir.ops, name)
            if _PROVIDER not in op.impls:
                plain = functools.wraps(op.impls["native"].impl_fn)(kernel)  # vLLM reads the signature
                op.register_impl(_PROVIDER, supports_args=_TAKES[name])(plain)
    except (ImportError, AttributeError, KeyError, ValueError):  # another version of vLLM: its own kernels then
        return {}
    return {"kernel_config": {"ir_op_priority": {name: [_PROVIDER] for name in _TAKES}}}


def _compile_once(rms_norm: Callable[..., Any], fused_add_rms_norm: Callable[..., Any]) -> None:
    """Compile before the engine is told of the kernels, on a few numbers: what fails here must not fail in the first batch."""
    import torch

    x, weight = torch.ones(3, 8, dtype=torch.bfloat16), torch.ones(8, dtype=torch.bfloat16)
    rms_norm(x, weight, 1e-6)
    fused_add_rms_norm(x, x, weight, 1e-6)


def norms() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """rms_norm and fused_add_rms_norm with the signatures and results of ``vllm.ir.ops``."""
    import torch

    # dynamic: one compilation for every number of tokens. Casts are kept where the eager code rounds to 16 bits and back.
    joined = functools.partial(torch.compile, dynamic=True, options={"emulate_precision_casts": True})

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
        return (((x.to(torch.float32) + residual.to(torch.float32)) * factor).to(weight.dtype) * weight).to(x.dtype)

    def rms_norm(x: Any, weight: Any, epsilon: float, variance_size: int | None = None) -> Any:
        factor = torch.rsqrt(squares(x).mean(dim=-1, keepdim=True) + epsilon)
        return (x.to(torch.float32) * factor).to(x.dtype) if weight is None else scale(x, factor, weight)

    def fused_add_rms_norm(x: Any, x_residual: Any, weight: Any, epsilon: float, variance_size: int | None = None) -> Any:
        summed, squared = add_squares(x, x_residual)
        factor = torch.rsqrt(squared.mean(dim=-1, keepdim=True) + epsilon)
        if weight is None:
            return ((x.to(torch.float32) + x_residual.to(torch.float32)) * factor).to(x.dtype), summed
        return add_scale(x, x_residual, factor, weight), summed

    return rms_norm, fused_add_rms_norm
