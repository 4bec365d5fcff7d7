"""What surrounds a command is hostile: no temporary folder, closed or full streams, bad proxies, passwords in
addresses, python -OO.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kmmlu_fast.cli import VERBS
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.untrusted_text import mask_credentials
from kmmlu_fast.engines.server.client import ServerClient, check_base_url
from kmmlu_fast.machine.packages import check_hub

ROOT = Path(__file__).parents[2]
NO_TEMPORARY_FOLDER = """
import tempfile
def refuse(*_):
    raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")
tempfile._get_default_tempdir = refuse
"""


def run(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell command, with ``kmmlu-fast`` for the program."""
    program = f"{sys.executable} -m kmmlu_fast"
    everything = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "KMMLU_FAST_CACHE": str(cwd / "cache"),
        **environment,
    }
    return subprocess.run(
        ["bash", "-c", command.replace("kmmlu-fast", program)],
        cwd=cwd,
        env=everything,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", ["--help", "--version", "exams", "eval --help", "compare nothing"])
def test_no_temporary_folder_is_needed(tmp_path: Path, arguments: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_TEMPORARY_FOLDER)
    done = run(f"kmmlu-fast {arguments}", tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if arguments == "compare nothing" else 0), done.stderr


@pytest.mark.parametrize("arguments", ["--help", "--version", "help", "completion bash", "eval --help"])
def test_prints_that_nobody_can_read(tmp_path: Path, arguments: str) -> None:
    gone = run(f"kmmlu-fast {arguments} | true; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (gone.returncode, gone.stderr) in [(128 + signal.SIGPIPE, ""), (0, "")]  # 0: read in time
    full = run(f"kmmlu-fast {arguments} > /dev/full", tmp_path)
    assert full.returncode == 2 and full.stderr.count("\n") == 1 and "no space left" in full.stderr
    for closed in (">&-", "<&- >&- 2>&-"):
        assert run(f"kmmlu-fast {arguments} {closed}", tmp_path).stderr == ""


def test_no_file_gets_a_closed_streams_number(tmp_path: Path) -> None:
    """A library that prints would write into it."""
    script = (
        "from kmmlu_fast.command.streams import open_standard_descriptors as o; o(); import os;"
        "assert os.open('x', os.O_CREAT | os.O_WRONLY) > 2; os.write(1, b'noise')"
    )
    done = run(f'{sys.executable} -c "{script}" <&- >&-', tmp_path)
    assert done.returncode == 0 and (tmp_path / "x").read_bytes() == b"", done.stderr


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_with_all_streams_closed(tmp_path: Path, verb: str) -> None:
    done = run(f"kmmlu-fast {verb} --no-such-flag <&- >&- 2>&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize(
    "url", ["http://[::g]/v1", "http://xn--a/v1", "http://a\u202e/v1", "http://h\x7f/", "http://a b/v1"]
)
def test_addresses_that_httpx_refuses_are_refused_first(url: str) -> None:
    with pytest.raises(ConfigError, match="--base-url") as caught:
        check_base_url(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "http://[::1"),
        ("ALL_PROXY", "ftp://x"),
        ("HTTPS_PROXY", "socks5://me:secret@x"),
        ("SSL_CERT_FILE", "/nonexistent"),
    ],
)
def test_network_settings_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for other in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.lower(), raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"correct or unset {name}$"):
        ServerClient("https://host/v1", 1)


@pytest.mark.parametrize("key", ["a\nb", "키", "a b"])
def test_a_key_that_no_header_holds_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        ServerClient("http://localhost:1/v1", 1)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://me:secret@hub.co/x", "https://***@hub.co/x"),
        ("at https://token@hub: no", "at https://***@hub: no"),
        ("'me:secret@hub'", "'***@hub'"),
        ("https://me:se@cret@hub/x", "https://***@hub/x"),
        ("a@b.c https://hub/a@b", "a@b.c https://hub/a@b"),
        ("lora=a:b", "lora=a:b"),
        ("a hub id (owner/name[:split@revision])", "a hub id (owner/name[:split@revision])"),
    ],
)
def test_credentials_are_masked(text: str, masked: str) -> None:
    assert mask_credentials(text) == masked


@pytest.mark.parametrize("endpoint", ["http://me:secret@127.0.0.1:9", "me:secret@127.0.0.1:9"])
def test_the_hubs_password_is_never_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    status = check_hub(0.5)
    assert "secret" not in status.endpoint + status.problem
    for command in ("doctor", "eval --model a/b --dataset sample --limit 1"):
        done = run(f"kmmlu-fast {command}", tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0")
        assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["eval --model demo --dataset sample"])
def test_without_docstrings_it_is_one_line(tmp_path: Path, command: str) -> None:
    done = run(f"kmmlu-fast {command}", tmp_path, PYTHONOPTIMIZE="2")
    assert done.returncode == 2 and "PYTHONOPTIMIZE=2" in done.stderr and done.stderr.count("\n") == 1
