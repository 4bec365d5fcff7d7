"""Two hosts on one shared folder whose file locks do not reach each other: one writes, the other is told who.

Each host is a process of its own namespaces (mounts, process numbers, host name) in which flock does nothing,
as on NFS mounted with ``nolock``.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

HOST = """
import fcntl, sys
from pathlib import Path

fcntl.flock = lambda *_: None
from kmmlu_fast.core import lock_owner
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.schema import Prediction
from kmmlu_fast.runs.metrics import Metrics
from kmmlu_fast.runs.store import RunStore

lock_owner.SILENT_SEC, lock_owner.BEAT_SEC = 2.0, 0.2
ids = [f"Law/test/{row}" for row in range(6)]
store = None
for line in sys.stdin:
    try:
        if line == "open\\n":
            store = RunStore(Path(sys.argv[1]), "name", {"model": "m"}, {"config": {}})
            print("open", len(store.answered), flush=True)
            continue
        if line == "finish\\n":
            store.finish(ids, lambda frame: Metrics(num_questions=len(frame)), {})
            print("finished", flush=True)
            continue
        row = int(line)
        store.append(
            Prediction(
                question_id=ids[row], subject="Law", supercategory="HUMSS", split="test", row=row,
                answer="A", prediction="A", correct=True, read_by="loglikelihood", texts=[],
                prompt_digest="d",
            )
        )
        store.flush()
        print("wrote", row, flush=True)
    except RunError as error:
        print("refused:", error, flush=True)
"""
NAMESPACES = ["unshare", "--map-root-user", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
NAMESPACES += ["--mount-proc"]


def has_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not has_namespaces(), reason="this user cannot make namespaces")


class Host:
    """A process on a machine of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        script = f'hostname {name}; exec "$0" -c "$1" "$2"'
        self._process = subprocess.Popen(
            [*NAMESPACES, "sh", "-c", script, sys.executable, HOST, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.hear()

    def send(self, how: int) -> None:
        """To the process itself, which is a grandchild."""
        for child in _descendants(self._process.pid):
            if not Path(f"/proc/{child}/comm").read_text().startswith("unshare"):
                subprocess.run(["kill", f"-{how}", str(child)], check=False)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def _descendants(pid: int) -> Iterator[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in map(int, children):
        yield child
        yield from _descendants(child)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    made = (Host("first", tmp_path), Host("second", tmp_path))
    yield made
    for host in made:
        host.end()


def answered(folder: Path) -> list[str]:
    (run,) = (path for path in folder.iterdir() if path.is_dir())
    assert json.loads((run / "metrics.json").read_text())["num_questions"] == 6
    return pl.read_parquet(run / "predictions.parquet")["question_id"].to_list()


def test_the_second_is_told_who_writes_and_goes_on_when_that_host_dies(
    tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    first, second = hosts
    assert first.ask("open") == "open 0" and first.ask("0") == "wrote 0"
    told = second.ask("open")
    assert told.startswith("refused:") and told.endswith("on first)") and "wait for it" in told
    assert first.ask("1") == "wrote 1"
    first.end()
    assert second.ask("open") == "open 2"
    assert [second.ask(str(row)) for row in (2, 3, 4, 5)] == [f"wrote {row}" for row in (2, 3, 4, 5)]
    assert second.ask("finish") == "finished"
    assert answered(tmp_path) == [f"Law/test/{row}" for row in range(6)]


def test_a_host_that_stood_still_writes_nothing_after_another_took_over(
    tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    first, second = hosts
    assert first.ask("open") == "open 0" and first.ask("0") == "wrote 0"
    first.send(signal.SIGSTOP)
    assert second.ask("open") == "open 1" and second.ask("1") == "wrote 1"
    first.send(signal.SIGCONT)
    told = first.ask("2")
    assert told.startswith("refused:") and "took over while this one stood still" in told
    assert [second.ask(str(row)) for row in (2, 3, 4, 5)] == [f"wrote {row}" for row in (2, 3, 4, 5)]
    assert second.ask("finish") == "finished"
    assert answered(tmp_path) == [f"Law/test/{row}" for row in range(6)]
