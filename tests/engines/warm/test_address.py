"""The socket's directory is the user's alone, or it is not used; a killed process's socket is swept."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.engines.warm import address


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_the_directory_is_made_for_the_user_alone(runtime: Path) -> None:
    before = os.umask(0)
    try:
        folder = address.make_socket_folder()
    finally:
        os.umask(before)
    assert folder == runtime / "kmmlu_fast" and folder.stat().st_mode & 0o777 == 0o700
    assert address.make_socket_folder() == folder


def test_without_a_runtime_directory_it_is_a_temporary_one_by_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for value in ("", ".", str(tmp_path / "absent")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert address.socket_folder() == tmp_path / f"kmmlu_fast-{os.geteuid()}"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_enter_is_refused(runtime: Path, mode: int) -> None:
    folder = runtime / "kmmlu_fast"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match=rf"other users may enter it \(mode {mode:o}\)"):
        address.make_socket_folder()


def test_somebody_elses_directory_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = address.make_socket_folder()
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match=f"belongs to another user \\(uid {owner}\\)"):
        address.check_socket_folder(folder)


def test_a_runtime_directory_of_another_user_or_without_rights_is_passed_over(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As after sudo -E, whose root would leave a directory there that the user cannot enter."""
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    user = os.geteuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: user + 1)
        assert address.socket_folder() == temporary / f"kmmlu_fast-{user + 1}"
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, wanted: wanted != os.W_OK | os.X_OK)
        assert address.make_socket_folder() == temporary / f"kmmlu_fast-{user}"
    (runtime / "file").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "file"))
    assert address.socket_folder().parent == temporary
    assert not (runtime / "kmmlu_fast").exists()


def test_a_link_or_a_file_in_its_place_is_refused(runtime: Path) -> None:
    (runtime / "elsewhere").mkdir(mode=0o700)
    place = runtime / "kmmlu_fast"
    place.symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="is not a directory"):
        address.make_socket_folder()
    place.unlink()
    place.write_text("")
    with pytest.raises(ConfigError, match="is not a directory"):
        address.make_socket_folder()


def test_too_long_a_path_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("가" * 40)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(ConfigError, match=r"too long a path for a socket \(\d+ bytes, at most 107\)"):
        address.make_socket_folder()
    assert not list(long.iterdir())


def test_one_process_has_an_address_and_a_dead_ones_socket_is_swept(runtime: Path) -> None:
    folder = address.make_socket_folder()
    path = address.socket_path(folder, "0" * 16)
    path.touch()  # as a killed process leaves it
    with address.claim_address(folder, "0" * 16):
        assert not path.exists()
        path.touch()
        with pytest.raises(ConfigError, match="already kept warm"):
            address.claim_address(folder, "0" * 16)
        assert not address.sweep_dead_socket(path) and path.exists()
    assert address.sweep_dead_socket(path) and not path.exists()


def test_the_kernel_names_the_other_end() -> None:
    one, other = socket.socketpair()
    assert address.peer_of(one) == address.Peer(os.getpid(), os.geteuid())
    one.close()
    other.close()
