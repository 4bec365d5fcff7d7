"""What a starting vLLM engine is doing just now: reading weights, compiling, key-value cache.

In: vLLM's own log records, in this process or in the engine's. Out: the phase in words, and at the end the
seconds of each. A record that marks a phase is written as a line to one file, whoever the process is; errors
go to stderr as before, the rest of vLLM's log nowhere. Whoever sets vLLM's logging by its own variables has
that instead, and sees no phases. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_FILE = "KMMLU_FAST_PHASES"  # environment: where the lines go; spawned engine processes inherit it
_CONFIG = "VLLM_LOGGING_CONFIG_PATH"  # vLLM's own: a file that describes its logging
LOGGING_VARIABLES = ("VLLM_LOGGING_CONFIG_PATH", "VLLM_LOGGING_LEVEL", "VLLM_CONFIGURE_LOGGING")
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
    """Writes the phases that records open to the file, and errors to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            print(f"vLLM: {text}", file=sys.stderr, flush=True)
        found = next((phase for start, phase in PHASES if text.startswith(start)), None)
        path = os.environ.get(_FILE)
        if found and path:
            with contextlib.suppress(OSError), Path(path).open("a", encoding="utf-8") as file:
                file.write(f"{time.time():.3f} {found}\n")


@contextlib.contextmanager
def record_startup_phases() -> Iterator[Path]:
    """A block in which vLLM engines that start write their phases to the file that is yielded."""
    folder = _temporary_folder()
    path = Path(tempfile.mkstemp(prefix="phases-", dir=folder)[1])
    chosen = {name: os.environ[name] for name in LOGGING_VARIABLES if name in os.environ}
    if chosen in ({}, {"VLLM_LOGGING_LEVEL": "ERROR"}):  # that level is the engine's own default here
        handler = {"class": f"{__name__}.{PhaseHandler.__name__}", "level": "INFO"}
        logger = {"handlers": ["phases"], "level": "INFO", "propagate": False}
        config = folder / "logging.json"
        content = {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"phases": handler},
            "loggers": {"vllm": logger},
        }
        config.write_text(json.dumps(content), encoding="utf-8")
        os.environ[_CONFIG] = str(config)
    os.environ[_FILE] = str(path)
    path.write_text(f"{time.time():.3f} {LOADING}\n", encoding="utf-8")
    try:
        yield path
    finally:
        del os.environ[_FILE]
        if _CONFIG not in chosen:
            os.environ.pop(_CONFIG, None)


def current_phase(path: Path) -> str:
    """The phase that was opened last."""
    phases = _read_phases(path)
    return phases[-1][1] if phases else ""


def describe_phase_times(path: Path, until: float | None = None) -> str:
    """Every phase with its seconds, such as "loading vLLM 6, reading weights 12"; those under a second are
    left out.

    ``until``: the end of the last one (``time.time()``); None = now.
    """
    phases = _read_phases(path)
    ends = [*(begun for begun, _ in phases[1:]), time.time() if until is None else until]
    spent: dict[str, float] = {}
    for (begun, name), end in zip(phases, ends, strict=True):
        spent[name] = spent.get(name, 0.0) + end - begun
    return ", ".join(f"{name} {sec:.0f}" for name, sec in spent.items() if sec >= 0.5)


def _read_phases(path: Path) -> list[tuple[float, str]]:
    with contextlib.suppress(OSError):
        lines = (line.partition(" ") for line in path.read_text(encoding="utf-8").splitlines())
        return [(float(begun), name) for begun, found, name in lines if found and name]
    return []


@functools.cache
def _temporary_folder() -> Path:
    """A folder of this process, gone when it ends."""
    made = tempfile.TemporaryDirectory(prefix="kmmlu-fast-")
    _KEPT.append(made)
    return Path(made.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
