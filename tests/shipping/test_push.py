"""What is pushed: a card that huggingface_hub reads back, bundles, weights; one commit, or nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import made_runs
import pytest
from huggingface_hub import ModelCard

from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.shipping.bundle import read_bundle
from kmmlu_fast.shipping.config import PushConfig
from kmmlu_fast.shipping.push import push_directory


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "README.md").write_text("---\ntags:\n- mine\n---\n# Mine\n", encoding="utf-8")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "kmmlu_fast_export.json").write_text('{"path": "/home/me"}', encoding="utf-8")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "secret").write_text("x", encoding="utf-8")
    runs = []
    for number, name in enumerate(("base", "lora")):
        frame = made_runs.predictions(1, skill=0.4 + number)
        path = made_runs.run_directory(tmp_path / name, name, frame, adapter=tmp_path if number else None)
        runs.append(str(path))
    return {"directory": [str(folder)], "repo": "org/name", "run": runs}


def test_card_reads_back(content: dict[str, Any], tmp_path: Path) -> None:
    push = push_directory(PushConfig(**content, dry_run=True, staging=tmp_path / "out", licence="gemma"))
    card = ModelCard.load(tmp_path / "out" / "README.md")
    results = card.data.eval_results
    assert [result.metric_name for result in results] == [
        f"{kind} accuracy, {state}" for state in ("base", "lora") for kind in ("micro", "macro")
    ]
    assert all(
        result.dataset_type == "HAERAE-HUB/KMMLU" and 0 < result.metric_value < 1 for result in results
    )
    assert card.data.license == "gemma" and "mine" in card.data.tags and "# Mine" in card.text
    assert "95 % interval" in card.text
    written = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert written == set(push.paths)
    assert "config.json" in written and not any("export" in name or "secret" in name for name in written)
    facts, frame = read_bundle(tmp_path / "out" / "evaluation" / "lora")
    assert facts["state"] == "lora" and len(frame) == 200


def test_nothing_is_replaced_and_nothing_is_left(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        push_directory(PushConfig(**content, dry_run=True, staging=tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())


def test_killed_at_any_moment_it_leaves_nothing_or_the_whole(content: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(content["directory"][0])
    for number in range(60):
        (folder / f"model-{number:02}.safetensors").write_bytes(bytes([number]) * (1 << 17))
    names = set(push_directory(PushConfig(**content, dry_run=True, staging=tmp_path / "first")).paths)
    child = """
import itertools, json, sys
from pathlib import Path
from kmmlu_fast.shipping.config import PushConfig
from kmmlu_fast.shipping.push import push_directory
content, place = json.loads(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
for number in itertools.count():
    push_directory(PushConfig(**content, dry_run=True, staging=place / str(number)))
"""
    draw, whole = random.Random(0), 0
    for number in range(4):
        place = tmp_path / f"killed-{number}"
        command = [sys.executable, "-c", child, json.dumps(content), str(place)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"ready\n"
        while not (place / "0").exists():
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.4))
        process.kill()
        process.wait()
        for target in place.iterdir():
            if not target.name.startswith("."):
                written = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
                assert written == names
                assert (target / "model-59.safetensors").read_bytes() == bytes([59]) * (1 << 17)
                whole += 1
        for partial in place.glob(".*.partial"):  # what the killed one left is taken away by the next
            name = partial.name[1:].removesuffix(".partial")
            push_directory(PushConfig(**content, dry_run=True, staging=place / name))
            assert not partial.exists() and (place / name).is_dir()
    assert whole


def test_faults_of_flags() -> None:
    with pytest.raises(ValueError, match="ORG/NAME"):
        PushConfig(directory=["x"], repo="name")


class _Hub(BaseHTTPRequestHandler):
    """The endpoints of one commit of small files."""

    commits: ClassVar[list[list[dict[str, Any]]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/repos/create"):
            reply: Any = {"url": "https://huggingface.co/org/name"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            reply = {
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            }
        elif self.path.endswith("validate-yaml"):
            reply = {"errors": [], "warnings": []}
        else:
            self.commits.append([json.loads(line) for line in body.splitlines()])
            reply = {
                "commitUrl": "https://huggingface.co/org/name/commit/1",
                "commitOid": "1" * 40,
                "success": True,
            }
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from huggingface_hub import HfApi, constants

    server = HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint=address, token="hf_x"))
    _Hub.commits.clear()
    yield address
    server.shutdown()


def test_one_commit_with_everything(content: dict[str, Any], hub: str) -> None:
    push = push_directory(PushConfig(**content))
    (commit,) = _Hub.commits
    added = {entry["value"]["path"] for entry in commit if entry["key"] == "file"}
    assert added == set(push.paths) and push.url == "https://huggingface.co/org/name/commit/1"


def test_a_refusal_is_one_line(content: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint="http://127.0.0.1:9", token="hf_x"))
    with pytest.raises(RunError, match="nothing was committed") as raised:
        push_directory(PushConfig(**content))
    assert "\n" not in str(raised.value)
