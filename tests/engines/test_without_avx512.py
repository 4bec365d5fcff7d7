"""What a CPU without AVX-512 runs, on any x86: vLLM's own AVX2 extension, torch and oneDNN held to AVX2,
float32 chosen by itself; and a training process into which none of vLLM's extensions is loaded.

A child believes that its CPU has neither AVX-512 nor AMX: what our code reads of /proc/cpuinfo, what vLLM
asks torch, and what torch and oneDNN read from the environment all say so. Instructions of AVX-512 would
still run here; that the extensions built with them are not even loaded is read from the process's own maps.
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

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX is of x86"),
]
ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import importlib, json, sys
from dataclasses import replace
from kmmlu_fast.core import machine

if sys.argv[1] == "avx2":
    real = machine.cpu()
    kept = frozenset(word for word in real.flags if not word.startswith(("avx512", "amx")))
    machine.cpu = lambda: replace(real, flags=kept)
    import torch
    for name in ("_is_avx512_supported", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        if hasattr(torch.cpu, name):
            setattr(torch.cpu, name, lambda: False)

code = importlib.import_module(f"kmmlu_fast.{sys.argv[2]}").main(sys.argv[3:])
import torch
loaded = {line.split("/")[-1].strip() for line in open("/proc/self/maps") if "/vllm/_C" in line}
capability = torch.backends.cpu.get_cpu_capability()
print(json.dumps({"code": code, "capability": capability, "loaded": sorted(loaded)}))
"""
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def run(cpu: str, verb: str, *argv: object) -> dict[str, Any]:
    """What the child says of itself at its end."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, cpu, verb, *map(str, argv)],
        cwd=ROOT,
        env={**os.environ, **(AVX2 if cpu == "avx2" else {}), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == 0, done.stderr[-3000:]
    return said


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("without-avx512")
    made = make_tiny_model(folder / "model", chat=True)
    make_tiny_adapter(made, folder / "lora", scale=20.0)
    return made


def test_an_evaluation_by_vllm_s_avx2_extension_has_the_answers_of_this_cpu_s_own(
    model: Path, tmp_path: Path
) -> None:
    asked = ("--model", model, "--adapter", f"lora={model.parent / 'lora'}", "--dataset", "sample")
    there = run("avx2", "eval", *asked, "--output-dir", tmp_path / "avx2")
    assert there == {"code": 0, "capability": "AVX2", "loaded": ["_C_AVX2.abi3.so"]}
    run("own", "eval", *asked, "--dtype", "float32", "--output-dir", tmp_path / "own")
    for state in ("base", "lora"):
        paths = [next((tmp_path / cpu).glob(f"*-{state}-*/predictions.parquet")) for cpu in ("avx2", "own")]
        config = json.loads((paths[0].parent / "config.json").read_text())
        assert config["fingerprint_parts"]["dtype"] == "float32"
        one, other = (pl.read_parquet(path).sort("question_id") for path in paths)
        assert len(one) == len(other) == 180
        for letter in "ABCD":
            apart = (one[f"logprob_{letter}"] - other[f"logprob_{letter}"]).abs()
            assert apart.null_count() == 0 and apart.max() < 1e-3  # type: ignore[operator]


def test_texts_are_generated_by_it_too(model: Path, tmp_path: Path) -> None:
    asked = ("--model", model, "--dataset", "sample", "--subjects", "Law,Math", "--output-dir", tmp_path)
    said = run("avx2", "eval", *asked, "--output-type", "cot", "--max-tokens", 24)
    assert said["loaded"] == ["_C_AVX2.abi3.so"]
    (path,) = tmp_path.glob("*/predictions.parquet")
    assert pl.read_parquet(path)["output_tokens"].min() > 1  # type: ignore[operator]


def test_training_loads_no_extension_of_vllm_and_trains_in_float32(model: Path, tmp_path: Path) -> None:
    rows = [
        {"instruction": f"{number} 더하기 {number}은?", "input": "", "output": str(2 * number)}
        for number in range(12)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    asked = ("--model", model, "--data", data, "--dataset", "sample", "--output-dir", tmp_path / "lora")
    said = run("avx2", "train", *asked, "--max-steps", 2, "--effective-batch", 4, "--micro-batch", 4)
    assert said["capability"] == "AVX2" and said["loaded"] == []
    assert "computed in float32" in (tmp_path / "lora" / "README.md").read_text(encoding="utf-8")
