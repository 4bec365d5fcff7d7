"""The current phase of a starting vLLM engine: reading weights, compiling, key-value cache.

In: vLLM's log records, from this process or the engine's. Out: the phase in words, and at the end the seconds
per phase. Each process appends the records that mark a phase to one file; errors still go to stderr, and
other records are dropped. If the user sets vLLM's logging variables, they apply, and there are no phases.
Knows nothing of models.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_FILE = "KMMLU_FAST_PHASES"  # environment variable with the file's path; spawned processes inherit it
_CONFIG = "VLLM_LOGGING_CONFIG_PATH"  # vLLM's variable: the path of a logging configuration
LOGGING_VARIABLES = (_CONFIG, "VLLM_LOGGING_LEVEL", "VLLM_CONFIGURE_LOGGING")
LOADING = "loading vLLM"
# The beginning of a record of vLLM 0.32, and the phase that it opens.
PHASES = (
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Initializing model took", "reading weights"),
    ("Starting to load model", "reading weights"),
    ("Loading weights took", "placing weights"),
    ("Model loading took", "measuring memory"),
    ("Dynamo bytecode transform time", "compiling"),
    ("Initial profiling/warmup run took", "key-value cache"),
    ("Available KV cache memory", "key-value cache"),
    ("GPU KV cache size", "warming up"),
    ("CPU KV cache size", "warming up"),
    ("Graph capturing finished", "warming up"),
    ("init engine (profile", "loading the tokenizer"),
)


class PhaseHandler(logging.Handler):
    """Appends the phase that a record opens to the file, and prints errors to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            print(f"vLLM: {text}", file=sys.stderr, flush=True)
        phase = next((phase for start, phase in PHASES if text.startswith(start)), None)
        path = os.environ.get(_FILE)
        if phase and path:
            with contextlib.suppress(OSError), Path(path).open("a", encoding="utf-8") as file:
                file.write(f"{time.time():.3f} {phase}\n")


@contextlib.contextmanager
def record_startup_phases() -> Iterator[Path]:
    """Yield a file to which vLLM engines that start in this block write their phases."""
    folder = _temporary_folder()
    path = Path(tempfile.mkstemp(prefix="phases-", dir=folder)[1])
    variables = {name: os.environ[name] for name in LOGGING_VARIABLES if name in os.environ}
    if variables in ({}, {"VLLM_LOGGING_LEVEL": "ERROR"}):  # prepare_environment sets that level
        config = {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"phases": {"class": f"{__name__}.{PhaseHandler.__name__}", "level": "INFO"}},
            "loggers": {"vllm": {"handlers": ["phases"], "level": "INFO", "propagate": False}},
        }
        config_path = folder / "logging.json"
        config_path.write_text(json.dumps(config), encoding="utf-8")
        os.environ[_CONFIG] = str(config_path)
    os.environ[_FILE] = str(path)
    path.write_text(f"{time.time():.3f} {LOADING}\n", encoding="utf-8")
    try:
        yield path
    finally:
        del os.environ[_FILE]
        if _CONFIG not in variables:
            os.environ.pop(_CONFIG, None)


def current_phase(path: Path) -> str:
    """The last phase opened, or ""."""
    phases = _read_phases(path)
    return phases[-1][1] if phases else ""


def describe_phase_times(path: Path, until: float | None = None) -> str:
    """The phases with their seconds, such as "loading vLLM 6, reading weights 12", from 0.5 s on.

    ``until``: the end of the last phase (``time.time()``); None = now.
    """
    phases = _read_phases(path)
    ends = [*(begun for begun, _ in phases[1:]), time.time() if until is None else until]
    spent: dict[str, float] = {}
    for (begun, name), end in zip(phases, ends, strict=True):
        spent[name] = spent.get(name, 0.0) + end - begun
    return ", ".join(f"{name} {sec:.0f}" for name, sec in spent.items() if sec >= 0.5)


def _read_phases(path: Path) -> list[tuple[float, str]]:
    """(start, phase) of every whole line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    parts = (line.partition(" ") for line in lines)
    return [(float(begun), name) for begun, _, name in parts if name]


@functools.cache
def _temporary_folder() -> Path:
    """A folder of this process, deleted when it ends."""
    folder = tempfile.mkdtemp(prefix="kmmlu-fast-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
