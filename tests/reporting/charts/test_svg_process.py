"""Drawing in a process of its own: the same SVG, also when the process is killed or cannot be started."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.reporting.charts import svg_process, svg_worker
from kmmlu_fast.reporting.charts.drawing import spec_to_svg
from kmmlu_fast.reporting.charts.svg_process import SvgQueue, open_svg_queue

SPEC: dict[str, Any] = {
    "data": {"values": [{"name": "가나다", "count": 3}, {"name": "b", "count": 5}]},
    "mark": "bar",
    "encoding": {
        "y": {"field": "name", "type": "nominal"},
        "x": {"field": "count", "type": "quantitative"},
    },
}


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg_process, "usable_cores", lambda: 2)


def process_of(queue: SvgQueue) -> "subprocess.Popen[str]":
    process = queue._process
    assert process is not None
    return process


@pytest.mark.usefixtures("cores")
def test_the_process_draws_what_this_one_would() -> None:
    with open_svg_queue() as queue:
        process = process_of(queue)
        futures = [queue.submit(lambda draw: draw(SPEC)) for _ in range(2)]
        assert [future.result() for future in futures] == [spec_to_svg(SPEC)] * 2
        assert process.poll() is None
    assert process.returncode is not None  # it has ended, and is no zombie


@pytest.mark.usefixtures("cores")
def test_a_killed_process_costs_no_chart() -> None:
    with open_svg_queue() as queue:
        process_of(queue).kill()
        process_of(queue).wait()
        assert queue.submit(lambda draw: draw(SPEC)).result() == spec_to_svg(SPEC)


def test_with_one_core_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svg_process, "usable_cores", lambda: 1)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with open_svg_queue() as queue:
        assert queue.submit(lambda draw: draw(SPEC)).result() == spec_to_svg(SPEC)


@pytest.mark.usefixtures("cores")
def test_without_a_python_to_start_charts_are_drawn_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with open_svg_queue() as queue:
        assert queue.submit(lambda draw: draw(SPEC)).result() == spec_to_svg(SPEC)


@pytest.mark.usefixtures("cores")
def test_a_faulty_specification_is_an_error_here_too() -> None:
    with open_svg_queue() as queue:
        future = queue.submit(lambda draw: draw({"mark": 7}))
        with pytest.raises(ValueError):
            future.result()
        assert queue.submit(lambda draw: draw(SPEC)).result() == spec_to_svg(SPEC)


@pytest.mark.usefixtures("cores")
def test_an_error_in_the_block_waits_for_no_drawing() -> None:
    with pytest.raises(KeyboardInterrupt), open_svg_queue() as queue:
        futures = [queue.submit(lambda draw: draw(SPEC)) for _ in range(50)]
        raise KeyboardInterrupt
    assert futures[-1].cancelled()
    assert all(future.done() for future in futures)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc")
def test_the_process_ends_with_its_parent() -> None:
    parent = subprocess.run(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, os, signal\n"
            f"child = subprocess.Popen([sys.executable, '-P', {str(Path(svg_worker.__file__))!r}],"
            " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
            "print(child.pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    pid = int(parent.stdout)
    state = Path(f"/proc/{pid}/stat")
    for _ in range(600):
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the worker outlived its parent")
