"""Which engines this user keeps warm, and how to stop them.

In: the directory of the sockets. Out: what each process says of itself; the sockets of killed ones are swept.
Knows nothing of requests.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.engines.warm.address import (
    SUFFIX,
    can_check_peers,
    check_socket_folder,
    peer_of,
    socket_folder,
    sweep_dead_socket,
)
from kmmlu_fast.engines.warm.messages import Link

_ANSWER_SEC = 5.0


def connect_to_worker(path: Path) -> Link | None:
    """A connection to the process behind a socket; None if there is none, or it is another user's."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_ANSWER_SEC)
        connection.connect(str(path))
        if peer_of(connection).uid == os.geteuid():
            return Link(connection)
    except OSError:
        pass
    connection.close()
    return None


def list_warm_engines(folder: Path | None = None) -> list[dict[str, Any]]:
    """What every process says that keeps an engine warm, oldest first. ConfigError if the directory is not
    the user's alone.
    """
    return [facts for path in _socket_paths(folder) if (facts := _ask_worker(path, "status"))]


def stop_warm_engines() -> list[int]:
    """Tell every process to end; their numbers. Each ends as soon as the engine's current step is done."""
    answers = [_ask_worker(path, "stop") for path in _socket_paths(None)]
    return [int(answer["stopping"]) for answer in answers if answer]


def _socket_paths(folder: Path | None) -> list[Path]:
    if not can_check_peers():
        return []
    if folder is None:
        folder = socket_folder()
        if not folder.exists():
            return []
        check_socket_folder(folder)
    return sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.lstat().st_mtime)


def _ask_worker(path: Path, wish: str) -> dict[str, Any] | None:
    link = connect_to_worker(path)
    if link is None:
        sweep_dead_socket(path)
        return None
    with contextlib.closing(link), contextlib.suppress(KmmluError, TimeoutError):
        link.send({"do": wish}, _ANSWER_SEC)
        return link.receive(_ANSWER_SEC)
    return None


def age_text(since: float) -> str:
    """How long ago it was, such as "40 s" or "3 min"."""
    seconds = max(0.0, time.time() - since)
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def describe_warm_engine(facts: dict[str, Any]) -> str:
    """One line for a terminal."""
    parts = facts["parts"]
    compute_type = f" in {parts['dtype']}" if parts.get("dtype", "auto") != "auto" else ""
    doing = str(facts["phase"])
    if facts.get("client"):
        doing = f"answering process {facts['client']}"
    since = age_text(facts["since"])
    return one_line(
        f"process {facts['pid']}: {parts['engine']} for {Path(str(parts['model'])).name}{compute_type}, up to"
        f" {facts['max_model_len']} tokens; started {age_text(facts['started'])} ago,"
        f" {facts['served']} commands, {doing} for {since};"
        f" ends after {facts['idle_sec'] / 60:g} idle minutes",
        400,
    )
