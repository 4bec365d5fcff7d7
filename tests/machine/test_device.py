"""The question for a GPU leaves CUDA alone, and the type that ``auto`` stands for is the device's."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.machine import device, gpus, packages

ZEN_3 = "fpu sse2 avx avx2 fma"
ZEN_4 = "fpu sse2 avx avx2 fma avx512f avx512_vnni avx512_bf16"
SAPPHIRE_RAPIDS = "fpu avx2 avx512f amx_bf16 amx_tile amx_int8"
SKYLAKE_SERVER = "fpu avx2 avx512f avx512dq"


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [(ZEN_3, "float32"), (SKYLAKE_SERVER, "float32"), (ZEN_4, "auto"), (SAPPHIRE_RAPIDS, "auto")],
)
def test_auto_on_a_cpu_is_what_its_instructions_compute(flags: str, dtype: str) -> None:
    found, why = device.resolve_auto_dtype(None, cpu_flags=flags.split())
    assert found == dtype
    assert (why is not None) == (dtype == "float32")
    assert why is None or ("float32" in why and "\n" not in why)


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), "float16"), ((8, 0), "auto"), ((8, 9), "auto"), ((12, 0), "auto")]
)
def test_auto_on_a_card_is_the_models_own_type_from_ampere_on(
    capability: tuple[int, int], dtype: str
) -> None:
    found, why = device.resolve_auto_dtype(capability, cpu_flags=ZEN_3.split())
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
from kmmlu_fast.machine.device import has_gpu
has_gpu()
print(*seen[0])
"""  # noqa: E501


def test_the_environment_is_safe_before_torch_is_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASKS], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.split() == ["1", "spawn"]


CARD = gpus.Gpu(
    name="NVIDIA GeForce RTX 4090",
    capability=(8, 9),
    total_bytes=24 << 30,
    free_bytes=23 << 30,
    driver="580.95.05",
)


def test_a_card_that_torch_can_use_is_no_problem() -> None:
    assert device.torch_gpu_problem(CARD, "2.13.0+cu130", "13.0", sees=True) == ""


@pytest.mark.parametrize(
    ("card", "cuda", "sees", "says"),
    [
        (
            replace(CARD, driver="550.54.14"),
            "13.0",
            True,
            "driver 550.54.14 is older than CUDA 13 needs (580)",
        ),  # NVML still counts it
        (CARD, None, False, "built for the CPU"),
        (replace(CARD, name="Tesla V100", capability=(7, 0)), "13.0", True, "compute capability 7.0"),
        (CARD, "13.0", False, "sees no GPU"),
    ],
)
def test_a_card_that_torch_cannot_use_is_one_line(
    card: gpus.Gpu, cuda: str | None, sees: bool, says: str
) -> None:
    found = device.torch_gpu_problem(card, "2.13.0", cuda, sees)
    assert says in found and card.name in found and "\n" not in found


def test_a_card_in_sight_that_torch_cannot_use_stops_instead_of_the_cpu_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(gpus, "list_gpus", lambda: [replace(CARD, driver="550.54.14")])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(EngineError, match=r"older than CUDA 13.*CUDA_VISIBLE_DEVICES=-1"):
        device.has_gpu()
    monkeypatch.setattr(gpus, "list_gpus", lambda: [CARD])
    assert device.has_gpu() is True
    monkeypatch.setattr(gpus, "list_gpus", lambda: [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.has_gpu() is False


def test_a_model_that_overflows_in_float16_is_float32_on_such_a_card() -> None:
    assert device.resolve_auto_dtype((7, 5), "gemma3_text")[0] == "float32"
    assert device.resolve_auto_dtype(None, quantised=True, cpu_flags=ZEN_3.split()) == ("auto", None)


def test_a_card_without_a_compiler_is_said_before_triton_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packages.Toolchain("/usr/bin/gcc", "/usr/bin/g++", "/usr/include/python3.11/Python.h")
    monkeypatch.setattr(packages, "find_toolchain", lambda: whole)
    device.check_toolchain()
    monkeypatch.setattr(packages, "find_toolchain", lambda: replace(whole, python_header=""))
    with pytest.raises(EngineError, match=r"Python\.h"):
        device.check_toolchain()


def test_a_split_model_sees_the_least_of_its_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    large = replace(CARD, name="large", total_bytes=80 << 30, free_bytes=79 << 30, capability=(9, 0))
    small = replace(CARD, name="small", total_bytes=40 << 30, free_bytes=39 << 30, capability=(8, 0))
    busy = replace(large, free_bytes=3 << 30)
    monkeypatch.setattr(device, "has_gpu", lambda: True)
    monkeypatch.setattr(gpus, "list_gpus", lambda: [large, small, busy])
    assert device.weakest_gpu() == large
    two = device.weakest_gpu(2)
    assert two is not None and (two.name, two.total_bytes, two.free_bytes) == ("small", 40 << 30, 39 << 30)
    assert two.capability == (8, 0)
    three = device.weakest_gpu(3)
    assert three is not None and (three.total_bytes, three.free_bytes) == (40 << 30, 3 << 30)
    with pytest.raises(EngineError, match="--tensor-parallel-size 4: this process sees 3 GPUs"):
        device.weakest_gpu(4)
    monkeypatch.setattr(device, "has_gpu", lambda: False)
    assert device.weakest_gpu(2) is None


def test_a_build_for_the_cpu_needs_no_torch_to_say_so() -> None:
    code = (
        "import sys\n"
        "from kmmlu_fast.machine import gpus, packages\n"
        "packages.read_torch_build = lambda: packages.TorchBuild('2.13.0+cpu', computes_on_cpu=True)\n"
        "gpus.list_gpus = lambda: []\n"
        "from kmmlu_fast.machine.device import has_gpu\n"
        "print(has_gpu(), 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
