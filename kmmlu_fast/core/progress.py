"""How far a long piece of work is, and what is being waited for: one moving line on a terminal, a bar in a
notebook, a line every ten seconds elsewhere.

In: a total, and how much is done now. Out: nothing but what is shown. Knows nothing of what is counted.
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

LINE_SEC = 10.0  # a new line this often where stderr is no terminal
WAIT_SEC = 8.0  # the longest silence of a wait
_MOVING_SEC = 0.5


class Meter:
    """Rate and time left of ``total`` units; ``more`` is shown behind them (running accuracy, say)."""

    def __init__(self, total: int, label: str, unit: str = "questions") -> None:
        self._total, self._label, self._unit = total, label, unit
        self._start = self._shown = time.monotonic()
        self._moving = are_notes_shown() and sys.stderr.isatty()
        self._bar = _notebook_bar(total, label, unit) if in_notebook() and not are_notes_shown() else None

    def update(self, done: int, more: str = "") -> None:
        """Show, if the last time is long enough ago."""
        if self._bar is not None:
            self._bar.set_postfix_str(more, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._shown > (_MOVING_SEC if self._moving else LINE_SEC):
            self._show_line(done, more, last=False)

    def close(self, done: int, more: str = "") -> None:
        """Show how it ended."""
        if self._bar is not None:
            self.update(done, more)
            self._bar.close()
        elif done:
            self._show_line(done, more, last=True)

    def _show_line(self, done: int, more: str, last: bool) -> None:
        self._shown = time.monotonic()
        rate = done / max(self._shown - self._start, 1e-9)
        left = (self._total - done) / rate if rate else 0.0
        line = (
            f"{self._label}: {done}/{self._total} {self._unit}, {rate:.1f}/s, {left:.0f} s"
            f" left{', ' if more else ''}{more}"
        )
        if self._moving and not last:
            show_status_line(line)
        else:
            log_note(line)


@contextlib.contextmanager
def report_wait(
    what: str, phase: Callable[[], str] | None = None, closing: Callable[[], str] | None = None
) -> Iterator[None]:
    """Say what is being waited for and for how long, wherever nothing else was said for WAIT_SEC; on a
    terminal, one line that moves.

    Nothing is said of what is over sooner, nor in a library. ``phase``: what is being done just now, in a
    word or two; ``closing``: what the last line adds. Waits may be nested: the innermost speaks.
    """
    if not are_notes_shown():
        yield
        return
    began, over = time.monotonic(), threading.Event()
    moving, said = sys.stderr.isatty(), False
    every_sec = 1.0 if moving else WAIT_SEC

    def tick() -> None:
        nonlocal said
        while not over.wait(every_sec / 8):
            if (
                _WAITS[-1] is over
                and time.monotonic() - began >= every_sec
                and seconds_since_output() >= every_sec
            ):
                said = True
                now = phase() if phase else ""
                line = f"{what}: {now + ', ' if now else ''}{time.monotonic() - began:.0f} s"
                (show_status_line if moving else log_note)(line)

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
    if said:
        more = closing() if closing else ""
        log_note(f"{what}: done in {time.monotonic() - began:.0f} s" + (f" ({more})" if more else ""))


_WAITS: list[threading.Event] = []  # running, the innermost last


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel (IPython's ZMQ shell), so that a bar can be shown."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ in ("ZMQInteractiveShell", "Shell")  # Jupyter, Colab


def _notebook_bar(total: int, label: str, unit: str) -> Any:
    with warnings.catch_warnings(action="ignore"):  # without ipywidgets tqdm warns and draws the bar as text
        from tqdm.auto import tqdm
    return tqdm(total=total, desc=label, unit=f" {unit}", mininterval=_MOVING_SEC)
