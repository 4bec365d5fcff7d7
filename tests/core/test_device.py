"""The question for a GPU leaves CUDA alone, and the type that ``auto`` stands for is the device's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kmmlu_fast.core import device

ZEN_3 = "fpu sse2 avx avx2 fma"
ZEN_4 = "fpu sse2 avx avx2 fma avx512f avx512_vnni avx512_bf16"
SAPPHIRE_RAPIDS = "fpu avx2 avx512f amx_bf16 amx_tile amx_int8"
SKYLAKE_SERVER = "fpu avx2 avx512f avx512dq"


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [(ZEN_3, "float32"), (SKYLAKE_SERVER, "float32"), (ZEN_4, "auto"), (SAPPHIRE_RAPIDS, "auto")],
)
def test_auto_on_a_cpu_is_what_its_instructions_compute(flags: str, dtype: str) -> None:
    found, why = device.auto_dtype(None, flags.split())
    assert found == dtype
    assert (why is not None) == (dtype == "float32")
    assert why is None or ("float32" in why and "\n" not in why)


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), "float16"), ((8, 0), "auto"), ((8, 9), "auto"), ((12, 0), "auto")]
)
def test_auto_on_a_card_is_the_models_own_type_from_ampere_on(
    capability: tuple[int, int], dtype: str
) -> None:
    found, why = device.auto_dtype(capability, ZEN_3.split())
    assert found == dtype
    assert (why is not None) == (dtype == "float16")


ASKS = """
import os, sys
os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None); os.environ.pop("VLLM_WORKER_MULTIPROC_METHOD", None)
import torch
seen = []
def is_available():
    seen.append((os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK"), os.environ.get("VLLM_WORKER_MULTIPROC_METHOD")))
    return False
torch.cuda.is_available = is_available
from kmmlu_fast.core.device import has_gpu
has_gpu()
print(*seen[0])
"""


def test_the_environment_is_safe_before_torch_is_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKS], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.split() == ["1", "spawn"]
