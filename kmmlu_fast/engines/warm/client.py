"""Finds the warm engine that a command may ask, and waits for its turn.

In: the identity of the engine that is needed, and a function that starts one here. Out: a ``WarmEngine``, or
None if no engine is kept warm that would give the same answers. Imports neither torch nor vLLM. Knows nothing
of questions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.engines.warm.address import (
    can_check_peers,
    check_socket_folder,
    socket_folder,
    socket_path,
    sweep_dead_socket,
)
from kmmlu_fast.engines.warm.identity import EngineIdentity, describe_identity_differences
from kmmlu_fast.engines.warm.messages import (
    BadMessageError,
    Link,
    LinkLostError,
)
from kmmlu_fast.engines.warm.remote_engine import ALIVE_SEC, WarmEngine, await_message
from kmmlu_fast.engines.warm.running import age_text, connect_to_worker, list_warm_engines


def find_warm_engine(
    identity: EngineIdentity, folder: Path, start_here: Callable[[], Engine]
) -> WarmEngine | None:
    """The warm engine of this identity, once it is this command's turn; else None, and a line if there is a
    reason to tell. ``start_here`` starts the same engine in this process, should the other one end.
    """
    began = time.monotonic()
    path = socket_path(folder, identity.key)
    link = connect_to_worker(path)
    if link is None:
        if path.exists():
            sweep_dead_socket(path)
        _explain_others(folder, identity)
        return None
    try:
        link.send({"do": "ask", "key": identity.key}, ALIVE_SEC)
        facts = _wait_for_turn(link, path)
        have, need = facts["max_model_len"], identity.max_model_len
        if need > have:
            log_note(
                f"engine: the warm engine (pid {facts['pid']}) takes {have} tokens, and this needs {need}:"
                f" give serve-engine --max-model-len {need} or more"
            )
            link.close()
            return None
    except (LinkLostError, BadMessageError, KeyError, TypeError):
        link.close()
        log_note("engine: the warm engine ended before it was this command's turn")
        return None
    log_note(
        f"engine: asks the engine that serve-engine keeps warm (pid {facts['pid']}, started"
        f" {age_text(facts['started'])} ago)"
    )
    return WarmEngine(link, path, facts, start_here, time.monotonic() - began)


def find_socket_folder() -> Path | None:
    """The directory of the user's sockets; None if there is none, or if others may have put something there,
    which is told.
    """
    if not can_check_peers():
        return None
    folder = socket_folder()
    try:
        check_socket_folder(folder)
    except FileNotFoundError:
        return None
    except (ConfigError, OSError) as error:
        log_note(f"engine: warm engines are not looked for: {error}")
        return None
    return folder


def _wait_for_turn(link: Link, path: Path) -> dict[str, Any]:
    place: dict[str, Any] = {}

    def phase() -> str:
        if place.get("phase") == "starting":
            return "it starts"
        behind = f"it answers process {place.get('client')}" if place.get("client") else ""
        ahead = int(place.get("place") or 1) - 1
        return ", ".join(filter(None, [behind, f"{ahead} more before this one" if ahead else ""]))

    is_told = False
    with report_wait("engine: waiting for the warm engine", phase):
        while True:
            message = await_message(link, path)  # it may first read all of the model's files again
            if isinstance(message.get("ready"), dict):
                facts: dict[str, Any] = message["ready"]
                return facts
            place = message
            if not is_told and (why := phase()):
                log_note(f"engine: waiting for the warm engine: {why} (--no-warm-engine starts another)")
                is_told = True


def _explain_others(folder: Path, identity: EngineIdentity) -> None:
    """Say why a warm engine of the same model is not asked."""
    for facts in list_warm_engines(folder):
        parts = facts["parts"]
        if parts.get("model") != identity.parts["model"]:
            continue
        reasons = describe_identity_differences(parts, identity.parts)
        hint = ""
        if identity.parts.get("num_adapters"):
            hint = "; with --adapter-mode swap adapters are written into it"
        elif identity.parts.get("gpus"):
            hint = "; kmmlu-fast serve-engine --stop frees its memory"
        log_note(
            f"engine: the warm engine (pid {facts['pid']}) is another one: {', '.join(reasons[:3])}{hint}"
        )
        return
