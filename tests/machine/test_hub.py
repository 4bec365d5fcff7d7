"""The hub is asked once, and what lies on this computer is used where it does not answer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from kmmlu_fast.eval import run_eval_command
code = run_eval_command(sys.argv[1:])
heavy = sorted({"torch", "transformers", "tokenizers", "vllm", "datasets"} & set(sys.modules))
print(json.dumps({"code": code, "loaded": heavy}))
"""


@pytest.fixture
def silent() -> Iterator[tuple[str, list[int]]]:
    """An endpoint that hangs up on everybody, and how often it was called."""
    calls: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                calls.append(1)
                caller.close()

        threading.Thread(target=hang_up, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        server.shutdown(socket.SHUT_RDWR)


def _child(script: str, endpoint: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_") and "proxy" not in name
    }
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "no-such/model", "--dataset", "sample"], "model 'no-such/model'"),
        (["--model", "{model}", "--dataset", "no-such/data"], "dataset 'no-such/data'"),
    ],
)
def test_a_dead_network_is_asked_once(
    silent: tuple[str, list[int]], tmp_path: Path, flags: list[str], said: str
) -> None:
    endpoint, calls = silent
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    given = [flag.format(model=tmp_path) for flag in flags]
    done = _child(SCRIPT, endpoint, tmp_path, *given, "--output-dir", str(tmp_path / "runs"))
    assert json.loads(done.stdout) == {"code": 2, "loaded": []}, done.stderr
    *notes, error = done.stderr.strip().splitlines()
    assert error.startswith(f"error: {said}: the hub cannot be reached (no answer") and len(notes) == 1
    assert len(calls) == 1


def test_the_copy_on_this_computer_is_used(silent: tuple[str, list[int]], tmp_path: Path) -> None:
    endpoint, calls = silent
    commit = "0" * 40
    folder = tmp_path / "hub" / "models--some--model"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit / "config.json").write_text('{"hidden_size": 64}')
    script = (
        "from kmmlu_fast.models.model import resolve_model; m = resolve_model('some/model');"
        " print(m.revision, m.config()['hidden_size'])"
    )
    done = _child(script, endpoint, tmp_path)
    assert done.stdout.split() == [commit, "64"], done.stderr
    assert len(calls) == 1
