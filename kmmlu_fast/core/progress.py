"""How far a long piece of work is: one moving line on a terminal, a bar in a notebook, a line every ten seconds elsewhere.

In: a total, and how much is done now. Out: nothing but what is shown. Knows nothing of what is counted.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

from kmmlu_fast.core.console import note, speaks

LINE_SEC = 10.0  # a new line this often where stderr is no terminal
_MOVING_SEC = 0.5


class Meter:
    """Rate and time left of ``total`` units; ``more`` is shown behind them (running accuracy, say)."""

    def __init__(self, total: int, label: str, unit: str = "questions") -> None:
        self._total, self._label, self._unit = total, label, unit
        self._start = self._shown = time.monotonic()
        self._moving = speaks() and sys.stderr.isatty()
        self._bar = _notebook_bar(total, label, unit) if in_notebook() and not speaks() else None

    def update(self, done: int, more: str = "") -> None:
        """Show, if the last time is long enough ago."""
        if self._bar is not None:
            self._bar.set_postfix_str(more, refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._shown > (_MOVING_SEC if self._moving else LINE_SEC):
            self._show(done, more, last=False)

    def close(self, done: int, more: str = "") -> None:
        """Show how it ended."""
        if self._bar is not None:
            self.update(done, more)
            self._bar.close()
        elif done:
            self._show(done, more, last=True)

    def _show(self, done: int, more: str, last: bool) -> None:
        self._shown = time.monotonic()
        rate = done / max(self._shown - self._start, 1e-9)
        left = (self._total - done) / rate if rate else 0.0
        line = f"{self._label}: {done}/{self._total} {self._unit}, {rate:.1f}/s, {left:.0f} s left{', ' if more else ''}{more}"
        if self._moving:
            print(line, end="\n" if last else "\r", file=sys.stderr, flush=True)
        else:
            note(line)


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel (IPython's ZMQ shell), so that a bar can be shown."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ in ("ZMQInteractiveShell", "Shell")  # Jupyter, Colab


def _notebook_bar(total: int, label: str, unit: str) -> Any:
    with warnings.catch_warnings(action="ignore"):  # without ipywidgets tqdm warns and draws the bar as text
        from tqdm.auto import tqdm
    return tqdm(total=total, desc=label, unit=f" {unit}", mininterval=_MOVING_SEC)
