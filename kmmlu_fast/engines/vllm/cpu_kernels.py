"""vLLM on a CPU: layer norms in three passes over memory instead of eight, bit for bit the same.

In: nothing. Out: vLLM engine arguments that choose the kernels; {} without a C++ compiler. On a CPU vLLM runs
norms eagerly, with a pass over float32 copies per step: half of a small model's time. Here torch.compile
fuses the elementwise steps before and after the mean; the mean stays torch's, whose order of additions
decides the last bit. The kernels are registered through vLLM's extension point (``vllm.ir``). Compiling takes
seconds, even if torch has the result in its disk cache, so it starts only when the eager norms have cost
about as much: short runs do without. Knows nothing of KMMLU.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

_PROVIDER = "joined_cpu"


class _FusedNorms:
    """The compiled kernels, once they are worth it; until then, or if they fail, vLLM's own norms run."""

    def __init__(self) -> None:
        self.kernels: tuple[Callable[..., Any], ...] | None = None
        self.failed = False
        self.requested = False  # by an engine on a CPU
        self.left = 0  # values that may still go through vLLM's norms before the kernels are compiled

    def can_run(self, x: Any) -> bool:
        """Whether the kernels take ``x``; if not, counts its values. Called at every norm: must be fast."""
        if self.kernels is not None:
            return True
        self.left -= x.numel()
        return self.left < 0 and self.compile()

    def compile(self) -> bool:
        """Compile and check the kernels now, unless that failed before; whether they are usable."""
        if self.kernels is None and not self.failed:
            try:
                kernels = build_fused_norms()
                _compile_and_check(*kernels)
                self.kernels = kernels
            # Such as a compiler without Python's headers: torch raises many types, and a slower norm is not
            # an error.
            except Exception:
                self.failed = True
        return self.kernels is not None


_joined = _FusedNorms()

# Which arguments the kernels take; vLLM requires its own parameter names and defaults here.
_TAKES: dict[str, Callable[..., bool]] = {
    "rms_norm": lambda x, weight, epsilon, variance_size=None: variance_size is None and _joined.can_run(x),
    "fused_add_rms_norm": lambda x, x_residual, weight, epsilon, variance_size=None: (
        variance_size is None and _joined.can_run(x)
    ),
}
# Compiling took 3.1 s with a warm torch cache, Inductor's import and its look at the CPU included, and an
# eager norm takes 3 ns per value more than a fused one: about 15,000 tokens of a model with 18 layers, width
# 640 and norms of queries and keys.
WORTH_COMPILING = 1_000_000_000


def compile_fused_norms() -> None:
    """Compile the kernels now if an engine of this process uses them, as a benchmark of long passes needs."""
    if _joined.requested:
        _joined.compile()


def register_fused_norms(after: int = 0) -> dict[str, Any]:
    """Register the kernels (once per process) and return the arguments that prefer them to vLLM's own.

    ``after``: values that go through vLLM's norms before the kernels are compiled (``WORTH_COMPILING``); 0 =
    now, and {} if that fails.
    """
    global _joined
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        return {}
    if _joined.kernels is None:
        _joined = _FusedNorms()
        _joined.left, _joined.requested = after, True
    if not after and not _joined.compile():
        return {}
    try:
        from vllm import ir

        for index, (name, takes) in enumerate(_TAKES.items()):
            op = getattr(ir.ops, name)
            if _PROVIDER not in op.impls:
                # vLLM reads the signatures of both
                kernel = functools.wraps(op.impls["native"].impl_fn)(_make_dispatcher(index))
                op.register_impl(_PROVIDER, supports_args=takes)(kernel)
    except (ImportError, AttributeError, KeyError, ValueError):  # another version of vLLM: use its kernels
        return {}
    return {"kernel_config": {"ir_op_priority": {name: [_PROVIDER] for name in _TAKES}}}


def _make_dispatcher(index: int) -> Callable[..., Any]:
    def kernel(*tensors: Any, **named: Any) -> Any:
        assert _joined.kernels is not None  # _TAKES checked
        return _joined.kernels[index](*tensors, **named)

    return kernel


def _compile_and_check(rms_norm: Callable[..., Any], fused_add_rms_norm: Callable[..., Any]) -> None:
    """Compile on a few numbers before the engine uses the kernels, so that no fault appears in a batch.

    RuntimeError if their results differ from torch's, such as a kernel from a cache that another CPU filled.
    """
    import torch

    with torch.inference_mode():  # as in vLLM: otherwise each would be compiled again there
        _check_norms(rms_norm, fused_add_rms_norm)


def _check_norms(rms_norm: Callable[..., Any], fused_add_rms_norm: Callable[..., Any]) -> None:
    import torch

    x, weight = (torch.linspace(-3, 3, 3 * 80).reshape(3, 80) * n for n in (1.0, 0.5))
    x, weight = x.bfloat16(), weight[0].bfloat16()
    wide = x.to(torch.float32)
    factor = torch.rsqrt((wide * wide).mean(dim=-1, keepdim=True) + 1e-6)
    expected = ((wide * factor).bfloat16() * weight).bfloat16()
    normed, summed = fused_add_rms_norm(x, torch.zeros_like(x), weight, 1e-6)
    pairs = ((rms_norm(x, weight, 1e-6), expected), (normed, expected), (summed, x))
    if not all(torch.equal(result, wanted) for result, wanted in pairs):
        raise RuntimeError("the compiled norms differ from torch's")


def build_fused_norms() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """rms_norm and fused_add_rms_norm with the signatures and results of ``vllm.ir.ops``."""
    import torch

    # dynamic: one compilation for every number of tokens. emulate_precision_casts: round to 16 bits and back
    # like the eager code. simdlen puts the vectors' width into the key of torch's disk cache: without it,
    # code generated for AVX-512 was reused under AVX2 (another machine with the same cache, or
    # ATEN_CPU_CAPABILITY) and computed NaN.
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    options = {"emulate_precision_casts": True, "cpp.simdlen": pick_vec_isa().bit_width() or None}
    fused = functools.partial(torch.compile, dynamic=True, options=options)

    @fused
    def squares(x: Any) -> Any:
        wide = x.to(torch.float32)
        return wide * wide

    @fused
    def scale(x: Any, factor: Any, weight: Any) -> Any:
        return ((x.to(torch.float32) * factor).to(weight.dtype) * weight).to(x.dtype)

    @fused
    def add_squares(x: Any, residual: Any) -> Any:
        wide = x.to(torch.float32) + residual.to(torch.float32)
        return wide.to(x.dtype), wide * wide

    @fused
    def add_scale(x: Any, residual: Any, factor: Any, weight: Any) -> Any:
        wide = x.to(torch.float32) + residual.to(torch.float32)
        return ((wide * factor).to(weight.dtype) * weight).to(x.dtype)

    def rms_norm(x: Any, weight: Any, epsilon: float, variance_size: int | None = None) -> Any:
        if x.ndim == 3 and x.shape[1] == 1:  # keys of a single head need no compilation of their own
            return rms_norm(x[:, 0], weight, epsilon)[:, None]
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
