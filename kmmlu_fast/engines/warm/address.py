"""Where the socket of a warm engine is, and that nobody else can reach it.

In: an engine's key. Out: a path in a directory of the user's own (mode 0700), below ``XDG_RUNTIME_DIR`` if
that is the user's, else the temporary directory; the user and process at the other end of a connection. A
directory that belongs to somebody else, that others may enter, or that is a link is refused. Knows nothing of
engines.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.locks import Lock, acquire_lock

_MOST_PATH_BYTES = 107  # sun_path of Linux, without the final zero
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
SUFFIX = ".sock"


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel names it."""

    pid: int
    uid: int


def can_check_peers() -> bool:
    """Whether this system has Unix sockets that tell who is at the other end (Linux)."""
    return hasattr(socket, "SO_PEERCRED") and hasattr(socket, "AF_UNIX")


def socket_folder() -> Path:
    """The directory of this user's warm engines, whether or not it exists."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if Path(runtime).is_absolute() and _is_own_directory(Path(runtime)):
        return Path(runtime) / "kmmlu_fast"
    return Path(tempfile.gettempdir()) / f"kmmlu_fast-{os.geteuid()}"


def _is_own_directory(folder: Path) -> bool:
    """Whether it is as the XDG specification wants it: this user's, who may write there. sudo, su and
    containers often leave the variable at another user's, or at one that is not there.
    """
    try:
        state = folder.stat()
    except OSError:
        return False
    is_own = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
    return is_own and os.access(folder, os.W_OK | os.X_OK)


def make_socket_folder() -> Path:
    """Create the directory if it is missing. ConfigError if it is not this user's alone, or its path is too
    long for a socket.
    """
    folder = socket_folder()
    size = len(os.fsencode(folder / ("0" * 16 + SUFFIX)))
    if size > _MOST_PATH_BYTES:
        raise ConfigError(
            f"{folder}: is too long a path for a socket ({size} bytes, at most {_MOST_PATH_BYTES}); set"
            " XDG_RUNTIME_DIR to a directory of your own with a short path"
        )
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    check_socket_folder(folder)
    return folder


def check_socket_folder(folder: Path) -> None:
    """ConfigError if the directory is not this user's alone."""
    state = folder.lstat()
    advice = "remove it, or set XDG_RUNTIME_DIR to a directory of your own"
    if not stat.S_ISDIR(state.st_mode):
        raise ConfigError(f"{folder}: is not a directory, as the sockets of warm engines need; {advice}")
    if state.st_uid != os.geteuid():
        raise ConfigError(f"{folder}: belongs to another user (uid {state.st_uid}); {advice}")
    if state.st_mode & 0o077:
        mode = stat.S_IMODE(state.st_mode)
        raise ConfigError(f"{folder}: other users may enter it (mode {mode:o}); chmod 700 it, or {advice}")


def socket_path(folder: Path, key: str) -> Path:
    return folder / f"{key}{SUFFIX}"


def claim_address(folder: Path, key: str) -> Lock:
    """The right to listen for this key, until the process ends. ConfigError if another process has it."""
    taken = ConfigError(
        "this engine is already kept warm: kmmlu-fast serve-engine --status shows it, --stop ends it"
    )
    lock = acquire_lock(folder / f"{key}.lock", taken)
    socket_path(folder, key).unlink(missing_ok=True)  # of a killed process
    return lock


def sweep_dead_socket(path: Path) -> bool:
    """Remove the socket of a process that was killed; whether there is no such process."""
    with contextlib.suppress(ConfigError, OSError):
        claim_address(path.parent, path.name.removesuffix(SUFFIX)).close()
        return True
    return False


def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end. OSError if the system does not say."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid)
