"""A card that is not there: stub driver libraries (``nvml.c``, ``cuda.c``) that answer what they are told.

``build`` makes NVML alone, for what only lists cards; ``build_all`` the CUDA driver too, so that torch's and
vLLM's CUDA builds run up to the first kernel. ``CARDS`` and ``CASES`` are what is tried on them. By hand,
with the CUDA set (``requirements/gpu.txt``) in an environment of its own:

    python tests/fake_card/resolve.py            # every card and case, as a table
    python tests/fake_card/resolve.py --json     # the same as JSON lines
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Compute capability, GiB of memory, name as the driver gives it.
CARDS: tuple[tuple[tuple[int, int], int, str], ...] = (
    ((7, 5), 8, "NVIDIA GeForce RTX 2070"),
    ((7, 5), 16, "Tesla T4"),
    ((8, 0), 40, "NVIDIA A100-SXM4-40GB"),
    ((8, 0), 80, "NVIDIA A100-SXM4-80GB"),
    ((8, 6), 12, "NVIDIA GeForce RTX 3060"),
    ((8, 6), 24, "NVIDIA GeForce RTX 3090"),
    ((8, 9), 12, "NVIDIA GeForce RTX 4070"),
    ((8, 9), 16, "NVIDIA GeForce RTX 4080"),
    ((8, 9), 24, "NVIDIA GeForce RTX 4090"),
    ((8, 9), 48, "NVIDIA L40S"),
    ((9, 0), 80, "NVIDIA H100 80GB HBM3"),
    ((9, 0), 141, "NVIDIA H200"),
    ((10, 0), 180, "NVIDIA B200"),
    ((12, 0), 16, "NVIDIA GeForce RTX 5080"),
    ((12, 0), 32, "NVIDIA GeForce RTX 5090"),
)
# Fields of EngineSettings.
CASES: dict[str, dict[str, Any]] = {
    "letters": {"generates": False},
    "fp8_per_channel": {"generates": False, "quantization": "fp8_per_channel"},
    "fp8_per_tensor": {"generates": False, "quantization": "fp8_per_tensor"},
    "LoRA": {"generates": False, "max_lora_rank": 16, "num_adapters": 100},
    "float32 letters": {"generates": False, "letter_precision": "float32"},
    "chain of thought": {"generates": True, "max_model_len": 2048},
    "chain of thought, LoRA": {
        "generates": True,
        "max_model_len": 2048,
        "max_lora_rank": 16,
        "num_adapters": 2,
    },
    "five-shot": {"generates": False, "max_model_len": 4096},
}
SHAPE = {  # 3 B parameters: its 16-bit weights go onto all of these cards
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 2048,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "intermediate_size": 11008,
    "vocab_size": 102400,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
    "eos_token_id": 1,
}


def find_compiler() -> str | None:
    """The C compiler, or None."""
    return shutil.which("gcc") or shutil.which("cc")


def build(folder: Path) -> Path:
    """NVML's file in ``folder``, for LD_LIBRARY_PATH; skips without a C compiler."""
    compiler = find_compiler()
    if compiler is None:
        import pytest  # not in the environment that resolves by hand

        pytest.skip("no C compiler to make a fake card with")
    return compile_stub(compiler, "nvml.c", folder / "libnvidia-ml.so.1")


def build_all(folder: Path) -> Path:
    """``folder`` with NVML and the CUDA driver, for LD_LIBRARY_PATH; skips without a C compiler."""
    build(folder)
    compile_stub(str(find_compiler()), "cuda.c", folder / "libcuda.so.1")
    return folder


def compile_stub(compiler: str, source: str, library: Path) -> Path:
    """The library compiled from one of the sources beside this file.

    Without a soname: a test that loads it by its path must not leave it in the driver's place for the others.
    """
    command = [compiler, "-shared", "-fPIC", "-w", "-o", str(library)]
    subprocess.run([*command, str(HERE / source)], check=True)
    return library


def card_environment(capability: tuple[int, int], gib: int, name: str) -> dict[str, str]:
    """The variables that make the stubs show this card."""
    return {"FAKE_CC": f"{capability[0]}{capability[1]}", "FAKE_GIB": str(gib), "FAKE_NAME": name}
