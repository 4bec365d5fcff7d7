"""Runs a verb or module in a child process: its memory is freed at the end, what it patches stays with it.

In: a verb and its config. Out: nothing; what the verb writes is on disk. Its progress lines go to the logger
``kmmlu_fast``. Knows nothing of the verbs.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from kmmlu_fast.command.flags import Config
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import KmmluError

# Sent by people, schedulers and the kernel; the other signals are crashes, which the next attempt repeats.
_FROM_OUTSIDE = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM)


class ChildKilledError(Exception):
    """Why a child failed: a signal from outside ended it. It is the cause of ``run_module``'s error."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def find_kill_signal(error: BaseException) -> int:
    """The signal that ended the child whose error this is; 0 if it failed by itself."""
    return error.__cause__.number if isinstance(error.__cause__, ChildKilledError) else 0


def run_verb(verb: str, config: Config, failure: type[KmmluError]) -> None:
    """Run ``python -m kmmlu_fast.VERB`` with the settings that were given. ``failure`` with the child's last
    line if it fails; an interrupt ends the child as well.
    """
    explicit = config.model_dump(mode="json", include=config.model_fields_set)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"{verb}.yaml")
        file.write_text(yaml.safe_dump(explicit, allow_unicode=True), encoding="utf-8")
        run_module([f"kmmlu_fast.{verb}", "--config", str(file)], failure)


def run_module(arguments: list[str], failure: type[KmmluError]) -> None:
    """Run ``python -m`` with these arguments, as ``run_verb`` does. ``find_kill_signal`` of the error tells
    whether the child was ended from outside.
    """
    last = held = ""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    ) as child:
        assert child.stderr is not None
        try:
            for line in child.stderr:
                if held:
                    log_note(held)
                last, held = line.strip() or last, ""
                if line.startswith("error: "):  # if it is the last one, the caller tells it
                    held = line.rstrip()
                else:
                    log_note(line.rstrip())
        except BaseException:
            child.terminate()
            raise
    code = child.returncode
    if not code:
        return
    name = arguments[0].rpartition(".")[2]
    number = -code if code < 0 else code - 128  # the guard of a verb reports its fork's end as a shell does
    if number not in _FROM_OUTSIDE:
        raise failure(last.removeprefix("error: ") or f"{name} ended with exit code {code}")
    said = last.removeprefix("error: ") if last.startswith("error: ") else ""
    raise failure(said or f"{name} was ended by {signal.Signals(number).name}") from ChildKilledError(number)


def _end_with_parent() -> None:
    """In the child: ask Linux for SIGTERM when the parent ends, however it ends. Else a verb that was started
    by a killed process would go on, and hold its output directory.
    """
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
