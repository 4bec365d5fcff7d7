"""Progress of long work and of waits: a status line on a terminal, a bar in a notebook, a line every ten
seconds elsewhere.

In: a total, and how much is done. Out: only what is shown. Knows nothing of what is counted.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from kmmlu_fast.core.console import (
    are_notes_shown,
    clear_status_line,
    log_note,
    seconds_since_output,
    show_status_line,
)

LINE_SEC = 10.0  # interval between lines if stderr is not a terminal
WAIT_SEC = 8.0  # the longest silence during a wait
_MOVING_SEC = 0.5
_ENOUGH = 20  # units after the first answer from which a rate is meant; fewer if there are few in all


class Meter:
    """Shows the rate and time left for ``total`` units, followed by ``more`` (such as an accuracy so far)."""

    def __init__(self, total: int, label: str, unit: str = "questions") -> None:
        self._total, self._label, self._unit = total, label, unit
        self._start = self._shown = time.monotonic()
        self._moving = are_notes_shown() and sys.stderr.isatty()
        self._bar = _notebook_bar(total, label, unit) if in_notebook() and not are_notes_shown() else None
        self._first: tuple[float, int] | None = None  # when the first units were done, and how many

    def update(self, done: int, more: str = "") -> None:
        """Show progress, if the last update is long enough ago."""
        if self._first is None and done:
            self._first = (time.monotonic(), done)
        if self._bar is not None:
            self._bar.set_postfix_str(more, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._shown > (_MOVING_SEC if self._moving else LINE_SEC):
            self._show_line(done, more, last=False)

    def close(self, done: int, more: str = "") -> None:
        """Show the final count."""
        if self._bar is not None:
            self.update(done, more)
            self._bar.close()
        elif done:
            self._show_line(done, more, last=True)

    def _show_line(self, done: int, more: str, last: bool) -> None:
        self._shown = time.monotonic()
        line = f"{self._label}: {done}/{self._total} {self._unit}"
        rate = done / max(self._shown - self._start, 1e-9) if last else self._steady_rate(done)
        if rate:
            left = "" if last else f", {(self._total - done) / rate:.0f} s left"
            line += f", {rate:.1f}/s{left}"
        if more:
            line += f", {more}"
        if self._moving and not last:
            show_status_line(line)
        else:
            log_note(line)

    def _steady_rate(self, done: int) -> float | None:
        """Units per second since the first answer, which came after the engine warmed up; None if too few
        came since to say.
        """
        if self._first is None:
            return None
        since, count = self._shown - self._first[0], done - self._first[1]
        enough = min(_ENOUGH, max(1, self._total // 50))
        return count / since if count >= enough and since > 0 else None


@contextlib.contextmanager
def report_wait(
    what: str, phase: Callable[[], str] | None = None, closing: Callable[[], str] | None = None
) -> Iterator[None]:
    """Show what a command waits for and for how long, after WAIT_SEC without output; on a terminal, as a
    status line every second.

    Shorter waits, and waits in a library, are not shown. ``phase``: the current step, in a word or two;
    ``closing``: text added to the last line. Of nested waits, only the innermost is shown.
    """
    if not are_notes_shown():
        yield
        return
    began, over = time.monotonic(), threading.Event()
    on_terminal, shown = sys.stderr.isatty(), False
    every_sec = 1.0 if on_terminal else WAIT_SEC
    show = show_status_line if on_terminal else log_note

    def tick() -> None:
        nonlocal shown
        while not over.wait(every_sec / 8):
            elapsed_sec = time.monotonic() - began
            if _WAITS[-1] is not over or min(elapsed_sec, seconds_since_output()) < every_sec:
                continue
            shown = True
            step = phase() if phase else ""
            show(f"{what}: {step}, {elapsed_sec:.0f} s" if step else f"{what}: {elapsed_sec:.0f} s")

    _WAITS.append(over)
    thread = threading.Thread(target=tick, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _WAITS.remove(over)
        clear_status_line()
    if shown:
        more = closing() if closing else ""
        log_note(f"{what}: done in {time.monotonic() - began:.0f} s" + (f" ({more})" if more else ""))


_WAITS: list[threading.Event] = []  # the running waits, innermost last


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel (IPython's ZMQ shell), which can show a bar."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ in ("ZMQInteractiveShell", "Shell")  # Jupyter, Colab


def _notebook_bar(total: int, label: str, unit: str) -> Any:
    with warnings.catch_warnings(action="ignore"):  # without ipywidgets tqdm warns and draws the bar as text
        from tqdm.auto import tqdm
    return tqdm(total=total, desc=label, unit=f" {unit}", mininterval=_MOVING_SEC)
