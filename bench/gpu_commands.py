"""Commands that a part of ``bench.gpu`` runs: processes of their own, or in place in a process that is warm.

In: the words after ``python -m``. Out: what the command printed, or its process. ``bench.gpu_warm`` sets
``run_in_place`` where imports cost more than what they are for. Knows nothing of parts.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kmmlu_fast.core.errors import EngineError

_ENTRIES = {
    "kmmlu_fast.doctor": "run_doctor_command",
    "kmmlu_fast.eval": "run_eval_command",
    "kmmlu_fast.train": "run_train_command",
}
_in_place = False


def run_in_place() -> None:
    """From now on, commands run in this process: their imports are done."""
    global _in_place
    _in_place = True


def is_in_place() -> bool:
    return _in_place


def run_command(words: Sequence[str], allowed: tuple[int, ...] = (0,)) -> str:
    """What ``python -m WORDS`` prints. EngineError if it ends with another exit code than is ``allowed``."""
    if _in_place:
        code, out = _call_in_place(words)
    else:
        command = [sys.executable, "-m", *words]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
        code, out = done.returncode, done.stdout
    if code not in allowed:
        raise EngineError(f"python -m {shlex.join(words)}: ended with exit code {code}; its message is above")
    return out


def run_for_json(words: Sequence[str]) -> dict[str, Any]:
    """The JSON line that a command prints last."""
    lines = run_command(words).strip().splitlines()
    if not lines:
        raise EngineError(f"python -m {shlex.join(words)}: printed nothing")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def start_command(words: Sequence[str]) -> int:
    """Start ``python -m WORDS`` as the leader of a process group; its id. It prints to stderr."""
    if not _in_place:
        command = [sys.executable, "-m", *words]
        return subprocess.Popen(
            command, stdout=sys.stderr, process_group=0, preexec_fn=partial(die_with_parent, os.getpid())
        ).pid
    parent, child = os.getpid(), os.fork()
    if child == 0:
        os.setpgid(0, 0)
        die_with_parent(parent)
        os.dup2(2, 1)
        leave(lambda: _entry(words[0])(list(words[1:])))
    return child


def has_ended(child: int) -> bool:
    """Whether a started command is over."""
    return os.waitpid(child, os.WNOHANG)[0] != 0


def die_with_parent(parent: int | None = None) -> None:
    """End with the process that started this one, also when that is killed; or was, where its id is given."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def exit_code_of(body: Callable[[], Any]) -> int:
    """What ``body`` ends with, whatever happens."""
    try:
        return int(body() or 0)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def leave(body: Callable[[], Any]) -> None:
    """Run a forked child's work and end the process with its exit code, whatever happens."""
    code = 1
    try:
        code = exit_code_of(body)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _call_in_place(words: Sequence[str]) -> tuple[int, str]:
    """Call a command's entry point; its standard output goes to a file, also from native libraries."""
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile("w+") as out, contextlib.redirect_stdout(out):
        os.dup2(out.fileno(), 1)
        try:
            code = int(_entry(words[0])(list(words[1:])) or 0)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            out.flush()
            os.dup2(kept, 1)
            os.close(kept)
        out.seek(0)
        return code, out.read()


def _entry(module: str) -> Any:
    return getattr(importlib.import_module(module), _ENTRIES.get(module, "main"))
