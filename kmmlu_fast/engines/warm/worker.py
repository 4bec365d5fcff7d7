"""The process that keeps one engine warm: listens, lets one command after another ask, ends when idle.

In: an engine's identity, a function that opens it, a directory for the socket. Out: nothing until it ends:
idle for too long, told to stop, by a signal, or because the engine is not what it was. The main thread runs
the engine; another one greets whoever connects, so commands wait in a line and ``--status`` is answered while
the engine computes. Before each command the engine holds the base and nothing of earlier requests. Only the
user's own processes are let in. Knows nothing of questions.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.schema import Candidates, Request
from kmmlu_fast.engines.protocol import ReusableEngine
from kmmlu_fast.engines.warm.address import claim_address, peer_of, socket_path
from kmmlu_fast.engines.warm.command_session import CommandSession
from kmmlu_fast.engines.warm.identity import EngineIdentity
from kmmlu_fast.engines.warm.messages import (
    MOST_BYTES,
    MOST_GREETING_BYTES,
    BadMessageError,
    Link,
    LinkLostError,
)

GREETING_SEC = 10.0  # in which whoever connects says what it wants
PATIENCE_SEC = 600.0  # for which a command may keep the engine without a word, such as while it is stopped
_LINE_SEC = 1.0  # how often a waiting command hears of its place in the line
_ACCEPT_SEC = 0.25
# The first token of any vocabulary.
_FIRST_REQUEST = Request(question_id="first", stage="", token_ids=(0,) * 16, want=Candidates((0,)))


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """A command in the line."""

    link: Link
    pid: int
    its_turn: bool = False


@dataclass(slots=True, kw_only=True)
class _State:
    """Shared by both threads; every access under ``changed``."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    line: list[_Waiting] = field(default_factory=list)
    current: _Waiting | None = None
    since: float = field(default_factory=time.time)
    phase: str = "starting"
    served: int = 0
    stopping: str = ""  # why
    closed: bool = False  # takes nobody any more


class WarmWorker:
    """Keeps the engine of ``identity`` for the user's commands."""

    def __init__(self, identity: EngineIdentity, folder: Path, idle_sec: float) -> None:
        """Claim the address and listen, so that commands can wait for the engine's start. ConfigError if
        another process keeps the same engine.
        """
        self.identity, self.idle_sec = identity, idle_sec
        self._lock = claim_address(folder, identity.key)
        self._path = socket_path(folder, identity.key)
        self._state = _State()
        self._started = time.time()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # under another name until it listens: a command that came in between would be turned away
            bound = self._path.with_suffix(".bind")
            bound.unlink(missing_ok=True)
            self._listener.bind(str(bound))
            self._listener.listen(16)
            bound.replace(self._path)
            self._listener.settimeout(_ACCEPT_SEC)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._accept_all, name="warm engine", daemon=True).start()

    def serve_commands(
        self, open_engine: Callable[[], ReusableEngine], find_change: Callable[[], str] = lambda: ""
    ) -> str:
        """Open the engine and serve until it ends; why it ended. ``find_change``: why the engine's files are
        no longer those that it was started from, or "". EngineError if the engine failed.
        """
        engine = open_engine()
        try:
            for _ in engine.generate(
                [_FIRST_REQUEST]
            ):  # the first pass takes seconds, which no command waits for
                pass
            log_note(f"engine: warm, process {os.getpid()}; ends after {self._idle_text()} without a command")
            while (waiting := self._next_command()) is not None:
                with self._serving(waiting):
                    if reason := find_change():
                        self._set_stopping(reason)
                        continue
                    engine.start_afresh()
                    waiting.link.send({"ready": self._describe(engine)}, GREETING_SEC)
                    CommandSession(waiting.link, engine, min(self.idle_sec, PATIENCE_SEC)).serve()
                engine.start_afresh()  # also what a killed command left
            return self._state.stopping
        finally:
            self._close_line()
            engine.close()

    def _idle_text(self) -> str:
        minutes = self.idle_sec / 60
        return f"{minutes:g} minute{'s' * (minutes != 1)}"

    def _next_command(self) -> _Waiting | None:
        """The next command in the line, waiting for one; None if the worker ends."""
        state = self._state
        with state.changed:
            state.phase, state.since = "idle", time.time()
            state.changed.wait_for(lambda: state.line or state.stopping, self.idle_sec)
            if state.stopping or not state.line:
                state.stopping = state.stopping or f"no command for {self._idle_text()}"
                state.closed = True
                return None
            state.current = state.line.pop(0)
            state.current.its_turn = True
            state.phase, state.since = "answering", time.time()
            state.served += 1
            state.changed.notify_all()
            return state.current

    @contextlib.contextmanager
    def _serving(self, waiting: _Waiting) -> Iterator[None]:
        """A command that goes away, or that talks nonsense, ends its own session only."""
        try:
            yield
        except (LinkLostError, TimeoutError):
            log_note(f"engine: the command of process {waiting.pid} is gone; the base is put back")
        except BadMessageError as error:
            log_note(f"engine: process {waiting.pid} is not understood ({error}); let go")
        finally:
            with self._state.changed:
                self._state.current = None
            waiting.link.interrupt()
            waiting.link.close()

    def _set_stopping(self, reason: str) -> None:
        with self._state.changed:
            self._state.stopping, self._state.closed = reason, True
            if self._state.current is not None:
                self._state.current.link.interrupt()
            self._state.changed.notify_all()

    def _stop(self, reason: str) -> None:
        """End as soon as the engine's step is done; a start, which has no steps, is interrupted."""
        starting = self._state.phase == "starting"
        self._set_stopping(reason)
        if starting:
            os.kill(os.getpid(), signal.SIGTERM)

    def _accept_all(self) -> None:
        while not self._state.closed:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:  # closed
                return
            threading.Thread(target=self._greet, args=(connection,), name="greeting", daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        """Hear what a process wants. Whoever is not understood, or another user, is let go at once."""
        link = Link(connection, MOST_GREETING_BYTES)
        keep = False
        with contextlib.suppress(KmmluError, TimeoutError, OSError):
            peer = peer_of(connection)
            if peer.uid != os.geteuid():
                raise BadMessageError("another user")
            wish = link.receive(GREETING_SEC)
            match wish.get("do"):
                case "status":
                    link.send(self._describe(None), GREETING_SEC)
                case "stop":
                    link.send({"stopping": os.getpid()}, GREETING_SEC)
                    self._stop(f"stopped by process {peer.pid}")
                case "ask" if wish.get("key") == self.identity.key:
                    keep = self._stand_in_line(_Waiting(link=link, pid=peer.pid))
                case _:
                    raise BadMessageError("an unknown wish")
        if not keep:
            link.close()

    def _stand_in_line(self, waiting: _Waiting) -> bool:
        """Tell a command its place until it is its turn; whether it came to that."""
        state = self._state
        with state.changed:
            if state.closed:
                return False
            waiting.link.most_bytes = MOST_BYTES
            state.line.append(waiting)
            state.changed.notify_all()
            while not waiting.its_turn:
                if state.closed or waiting not in state.line:
                    return False
                place = {"place": state.line.index(waiting) + 1, **self._state_now()}
                try:
                    waiting.link.send(place, _LINE_SEC)
                except LinkLostError:
                    state.line.remove(waiting)
                    raise
                state.changed.wait(_LINE_SEC)
            return True

    def _describe(self, engine: ReusableEngine | None) -> dict[str, Any]:
        with self._state.changed:
            facts = {
                "pid": os.getpid(),
                "started": self._started,
                "max_model_len": self.identity.max_model_len,
                "parts": self.identity.parts,
                "idle_sec": self.idle_sec,
                "served": self._state.served,
                **self._state_now(),
            }
        return facts if engine is None else {**facts, "stats": engine.stats()}

    def _state_now(self) -> dict[str, Any]:
        current = self._state.current
        return {
            "phase": self._state.phase,
            "since": self._state.since,
            "client": current.pid if current else None,
        }

    def _close_line(self) -> None:
        """Take nobody any more: whoever waits is let go, and starts an engine of its own."""
        with self._state.changed:
            self._state.closed = True
            for waiting in self._state.line:
                waiting.link.interrupt()
            self._state.changed.notify_all()
        self._path.unlink(missing_ok=True)
        self._listener.close()

    def close(self) -> None:
        """Remove the socket and release the address. Calling it twice is harmless."""
        self._close_line()
        self._lock.close()
