"""Drawing beside the report's other work, in a process of its own: vl-convert holds Python's lock while it
draws, so a thread alone would not help.

In: tasks that draw. Out: their results as futures. With a single core, or if no process can be started, they
draw in this process, as does the rest if the process ends early. Knows nothing of charts.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from kmmlu_fast.machine.host import usable_cores
from kmmlu_fast.reporting.charts.drawing import convert_spec, spec_to_svg

_WORKER = Path(__file__).parent / "svg_worker.py"
Result = TypeVar("Result")
Draw = Callable[[dict[str, Any]], str]


class SvgQueue:
    """Tasks that draw, done one after the other while the caller goes on."""

    def __init__(self, process: subprocess.Popen[str] | None) -> None:
        self._process = process
        self._works, self._closed = process is not None, False
        self._pool = ThreadPoolExecutor(1, "svg")

    def submit(self, task: Callable[[Draw], Result]) -> Future[Result]:
        """``task`` takes a function from specification to SVG."""
        return self._pool.submit(task, self._draw)

    def close(self) -> None:
        """End the process; what was not drawn yet is not."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._process is None:
            self._pool.shutdown()
            return
        self._process.kill()  # it holds nothing that could be lost
        self._pool.shutdown()
        with contextlib.suppress(OSError), self._process:  # closes the pipes and waits
            pass

    def _draw(self, document: dict[str, Any]) -> str:
        return spec_to_svg(document, self._convert)

    def _convert(self, document: dict[str, Any]) -> str:
        svg = self._ask_process(document) if self._works else None
        if svg is None and self._closed:
            raise CancelledError
        self._works = svg is not None
        return convert_spec(document) if svg is None else svg

    def _ask_process(self, document: dict[str, Any]) -> str | None:
        """The process's answer; None if it has ended."""
        assert self._process is not None and self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(document) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            return None
        return str(json.loads(answer)) if answer.endswith("\n") else None


@contextlib.contextmanager
def open_svg_queue() -> Iterator[SvgQueue]:
    """A queue for the block."""
    queue = SvgQueue(_start_worker() if usable_cores() > 1 else None)
    try:
        yield queue
    finally:
        queue.close()


def _start_worker() -> subprocess.Popen[str] | None:
    """The process; None if there is no Python to start."""
    try:
        return subprocess.Popen(
            [sys.executable or "python3", "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
    except OSError:
        return None
