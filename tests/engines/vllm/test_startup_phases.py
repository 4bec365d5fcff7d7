"""vLLM's log says what a starting engine does; in this process or another one, it reaches whoever waits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kmmlu_fast.engines.vllm import startup_phases

CHILD = """
import json, logging, logging.config, os
logging.config.dictConfig(json.load(open(os.environ["VLLM_LOGGING_CONFIG_PATH"])))
log = logging.getLogger("vllm.v1.worker")
log.info("Loading weights took %.2f seconds", 3.0)
log.info("nothing that is told")
log.warning("nor this")
log.error("no room: %d", 7)
"""


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in startup_phases.LOGGING_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_phases_of_an_engine_in_a_process_of_its_own_arrive_here() -> None:
    with startup_phases.record_startup_phases() as log:
        assert startup_phases.current_phase(log) == startup_phases.LOADING
        done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
        assert startup_phases.current_phase(log) == "placing weights"
    assert done.stderr == "vLLM: no room: 7\n" and done.stdout == ""
    assert "KMMLU_FAST_PHASES" not in os.environ and "VLLM_LOGGING_CONFIG_PATH" not in os.environ


def test_seconds_by_hand(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [
        "100.0 loading vLLM",
        "106.0 reading weights",
        "118.0 measuring memory",
        "118.2 reading weights",
        "119.2 compiling",
    ]
    log.write_text("\n".join(lines) + "\n")
    assert (
        startup_phases.describe_phase_times(log, until=150.0)
        == "loading vLLM 6, reading weights 13, compiling 31"
    )
    assert (
        startup_phases.current_phase(log) == "compiling"
        and startup_phases.current_phase(tmp_path / "none") == ""
    )


def test_who_sets_vllms_logging_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    with startup_phases.record_startup_phases():
        assert "VLLM_LOGGING_CONFIG_PATH" not in os.environ
    monkeypatch.setenv("VLLM_LOGGING_CONFIG_PATH", "/mine")
    with startup_phases.record_startup_phases():
        assert os.environ["VLLM_LOGGING_CONFIG_PATH"] == "/mine"
    assert os.environ["VLLM_LOGGING_CONFIG_PATH"] == "/mine"


def test_the_marks_are_in_the_installed_vllms_source() -> None:
    """Another vLLM may word its log otherwise: then phases would be missing in silence."""
    import importlib.util

    spec = importlib.util.find_spec("vllm")
    assert spec and spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])
    places = [
        "v1/engine/core.py",
        "v1/worker/gpu/model_runner.py",
        "v1/worker/gpu_worker.py",
        "compilation/backends.py",
    ]
    places += [
        "compilation/monitor.py",
        "v1/core/kv_cache_utils.py",
        "model_executor/model_loader/base_loader.py",
    ]
    places += ["model_executor/model_loader/default_loader.py", "v1/worker/gpu_model_runner.py"]
    source = "".join((root / place).read_text(encoding="utf-8") for place in places)
    missing = [
        mark
        for mark, _ in startup_phases.PHASES
        if mark.replace("GPU KV", "KV").replace("CPU KV", "KV") not in source
    ]
    assert missing == []
