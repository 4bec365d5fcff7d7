"""What a CPU without AVX-512, or with AVX-512 alone, runs, on any x86: vLLM's own extension for it, torch and
oneDNN limited to it, float32 chosen by itself; and a training process that loads none of vLLM's extensions.

A child believes that its CPU has no more: what our code reads of /proc/cpuinfo, what vLLM asks torch, and
what torch and oneDNN read from the environment all say so. Instructions of AVX-512 would still run here; that
the extensions built with them are not even loaded is read from the process's own maps.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.machine import host

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX is of x86"),
]
ROOT = Path(__file__).resolve().parents[3]
CHILD = """
import importlib, json, sys
from dataclasses import replace
from kmmlu_fast.machine import host

if sys.argv[1] != "own":
    lost = {"avx2": ("avx512", "amx"), "avx512": ("avx512_bf16", "amx")}[sys.argv[1]]
    real = host.detect_cpu()
    kept = frozenset(word for word in real.flags if not word.startswith(lost))
    host.detect_cpu = lambda: replace(real, flags=kept)
    import torch
    for name in dir(torch.cpu):
        if name.startswith(tuple(f"_is_{word}" for word in lost)):
            setattr(torch.cpu, name, lambda: False)

command = importlib.import_module(f"kmmlu_fast.{sys.argv[2]}")
code = getattr(command, f"run_{sys.argv[2]}_command")(sys.argv[3:])
import torch
loaded = {line.split("/")[-1].strip() for line in open("/proc/self/maps") if "/vllm/_C" in line}
capability = torch.backends.cpu.get_cpu_capability()
print(json.dumps({"code": code, "capability": capability, "loaded": sorted(loaded)}))
"""
LIMITS = {
    "own": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
}
HAS_AVX512 = "avx512f" in host.detect_cpu().flags


def run(cpu: str, verb: str, *argv: object) -> dict[str, Any]:
    """What the child says of itself at its end."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, cpu, verb, *map(str, argv)],
        cwd=ROOT,
        env={**os.environ, **LIMITS[cpu], "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert result["code"] == 0, done.stderr[-3000:]
    return result


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without-avx512")
    made = make_tiny_model(folder / "model", chat=True)
    make_tiny_adapter(made, folder / "lora", scale=20.0)
    return made


@pytest.fixture(scope="module")
def own(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the base and the adapter in float32 by what this CPU has."""
    folder = tmp_path_factory.mktemp("own")
    run("own", "eval", *asked(model), "--dtype", "float32", "--output-dir", folder)
    return folder


def asked(model: Path) -> tuple[object, ...]:
    return ("--model", model, "--adapter", f"lora={model.parent / 'lora'}", "--dataset", "sample")


@pytest.mark.parametrize(
    ("cpu", "capability", "extension"),
    [
        ("avx2", "AVX2", "_C_AVX2.abi3.so"),
        pytest.param(
            *("avx512", "AVX512", "_C_AVX512.abi3.so"),
            marks=pytest.mark.skipif(not HAS_AVX512, reason="this CPU has no AVX-512"),
        ),
    ],
)
def test_vllm_s_extension_for_that_cpu_has_the_answers_of_this_one_s_own(
    model: Path, own: Path, tmp_path: Path, cpu: str, capability: str, extension: str
) -> None:
    result = run(cpu, "eval", *asked(model), "--output-dir", tmp_path)
    assert result == {"code": 0, "capability": capability, "loaded": [extension]}
    for state in ("base", "lora"):
        paths = [next(folder.glob(f"*-{state}-*/predictions.parquet")) for folder in (tmp_path, own)]
        config = json.loads((paths[0].parent / "config.json").read_text())
        assert config["fingerprint_parts"]["dtype"] == "float32"
        one, other = (pl.read_parquet(path).sort("question_id") for path in paths)
        assert len(one) == len(other) == 180
        for letter in "ABCD":
            apart = (one[f"logprob_{letter}"] - other[f"logprob_{letter}"]).abs()
            assert apart.null_count() == 0 and apart.max() < 1e-3


def test_texts_are_generated_by_it_too(model: Path, tmp_path: Path) -> None:
    words = ("--model", model, "--dataset", "sample", "--subjects", "Law,Math", "--output-dir", tmp_path)
    result = run("avx2", "eval", *words, "--output-type", "cot", "--max-tokens", 24)
    assert result["loaded"] == ["_C_AVX2.abi3.so"]
    (path,) = tmp_path.glob("*/predictions.parquet")
    assert pl.read_parquet(path)["output_tokens"].min() > 1


def test_training_loads_no_extension_of_vllm_and_trains_in_float32(model: Path, tmp_path: Path) -> None:
    rows = [
        {"instruction": f"{number} 더하기 {number}은?", "input": "", "output": str(2 * number)}
        for number in range(12)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    words = ("--model", model, "--data", data, "--dataset", "sample", "--output-dir", tmp_path / "lora")
    result = run("avx2", "train", *words, "--max-steps", 2, "--effective-batch", 4, "--micro-batch", 4)
    assert result["capability"] == "AVX2" and result["loaded"] == []
    assert "computed in float32" in (tmp_path / "lora" / "README.md").read_text(encoding="utf-8")
