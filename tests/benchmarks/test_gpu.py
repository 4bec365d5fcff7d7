"""The visit to a GPU: time kept, results written at once, nothing left running; no part of it runs here."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bench import common, gpu_commands, gpu_engine, gpu_needs, gpu_parts, gpu_visit
from bench.gpu_needs import PARTS, Part
from bench.gpu_visit import NOT_MEASURED, GpuConfig, Visit, WarmProcess, chosen_parts, run_limited
from bench.gpu_warm import PartsProcess
from kmmlu_fast.core.errors import ConfigError, EngineError
from kmmlu_fast.engines.vllm.engine import EngineSettings
from kmmlu_fast.machine.gpus import Gpu

FAILED = "ended with exit code {}; its own message is above"
ROOT = Path(__file__).resolve().parents[2]


def test_every_part_has_its_function_and_the_cheapest_come_first() -> None:
    names = [part.name for part in PARTS]
    assert set(gpu_parts.part_functions()) == {*names, "files", "weights"}
    assert names[:2] == ["ceilings", "doctor"] and names.index("letters") < names.index("eager 0+5-shot")
    assert [part.name for part in chosen_parts(["doctor", "ceilings"])] == ["ceilings", "doctor"]
    with pytest.raises(ConfigError, match="--parts matmul: allowed are ceilings, doctor"):
        chosen_parts(["ceilings", "matmul"])


def test_needs_are_told_on_a_bare_machine() -> None:
    """No site-packages: what the door and the list import is Python's own."""
    words = [sys.executable, "-S", "-c", "import sys; from bench import gpu; sys.exit(gpu.main(['--needs']))"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "polars" in done.stdout and done.stdout.count("runs here") == 1  # the doctor
    assert "not here: polars" in done.stdout
    words[3] = words[3].replace("['--needs']", "[]")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "polars" in done.stderr


def test_what_is_declared_is_what_is_imported() -> None:
    """The door's own imports: no package beyond BASE and what those bring."""
    code = "import sys, bench.gpu_visit, bench.gpu_parts; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)
    own = {"bench", "kmmlu_fast", "__main__", "sitecustomize", "_distutils_hack"}
    brought = {
        "pydantic_core",
        "annotated_types",
        "typing_extensions",
        "typing_inspection",
        "_yaml",
        "_polars_runtime_32",
    }
    known = {gpu_needs._MODULES.get(name, name) for name in gpu_needs.BASE}
    assert {name for name in loaded if not name.startswith("_")} <= known | own | brought


def visit(tmp_path: Path, minutes: float = 5, has_card: bool = True, **values: Any) -> Visit:
    config = GpuConfig.model_validate({"shape": "tiny", "minutes": minutes, "dataset": "sample", **values})
    return Visit(config, tmp_path, tmp_path, time.monotonic(), has_card)


def part(name: str = "doctor", **fields: Any) -> Part:
    return Part(**{"name": name, "limit_sec": 40, "needs": (), "base": False, "files": False, **fields})


def test_a_part_gets_its_limit_or_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(gpu_visit, "run_limited", lambda command, limit: limits.append(limit) or {})
    one = visit(tmp_path)
    one.run_part(part())
    one.until = time.monotonic() + 20
    one.run_part(part())
    assert limits[0] == 40 and 3 < limits[1] <= 20
    one.until = time.monotonic() + 2
    assert one.run_part(part()) == {NOT_MEASURED: "no time left"} and len(limits) == 2


def test_what_is_missing_is_said_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_visit, "run_limited", lambda *_: pytest.fail("nothing may run"))
    found = visit(tmp_path).run_part(part(needs=("no_such_package", "torch")))
    assert found == {NOT_MEASURED: "not installed: no_such_package"}


def test_files_are_made_once_and_their_failure_is_told_by_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def run(command: list[str], limit: float) -> dict[str, Any]:
        steps.append(command[command.index("--part") + 1])
        return {NOT_MEASURED: "no space"} if steps[-1] == "weights" else {}

    monkeypatch.setattr(gpu_visit, "run_limited", run)
    one = visit(tmp_path)
    assert one.run_part(part("a", files=True)) == {}
    for _ in range(2):
        found = one.run_part(part("b", files=True, weights=True))
        assert found == {NOT_MEASURED: "weights could not be made: no space"}
    assert steps == ["files", "a", "weights"]


def test_sizes_are_few_without_a_card_unless_they_are_given(tmp_path: Path) -> None:
    assert visit(tmp_path).config.questions == 35_030
    few = visit(tmp_path, has_card=False, some=7).config
    assert few.questions is not None and few.questions <= 225 and few.some == 7


def test_what_only_a_card_has_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_visit, "run_limited", lambda *_: {"seconds": 1})
    one = part(card=True)
    assert visit(tmp_path, has_card=False).run_part(one) == {NOT_MEASURED: "no GPU here"}
    assert visit(tmp_path).run_part(one) == {"seconds": 1}


def test_parts_run_in_a_process_that_is_warm(tmp_path: Path) -> None:
    """Its limit ends a part and the process that runs it; the warm one goes on."""
    process = WarmProcess("plain", 1)
    words = ["--folder", str(tmp_path), "--dataset", "sample", "--part"]
    try:
        assert NOT_MEASURED in process.run([*words, "no such part"], 60)
        assert process.run([*words, "ceilings"], 0.5) == {NOT_MEASURED: "not done after 0 s"}
        result = process.run([*words, "doctor"], 60)
        assert result["doctor"]["machine"] and result["cpu_sec"] > 0
        assert process.imports["ready_sec"] >= 0
    finally:
        process.close()
    assert "ended" in process.run([*words, "doctor"], 5)[NOT_MEASURED]


def test_parts_share_a_process_until_one_fails_and_some_have_their_own(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bench.gpu_warm", "plain", "1"]
    tasks = [("doctor", False), ("doctor", True), ("doctor", False), ("nothing", False), ("doctor", False)]
    lines = [
        json.dumps(
            {
                "number": number,
                "words": ["--folder", str(tmp_path), "--dataset", "sample", "--part", name],
                "out": str(tmp_path / str(number)),
                "alone": alone,
            }
        )
        for number, (name, alone) in enumerate(tasks, start=1)
    ]
    done = subprocess.run(words, input="\n".join(lines), cwd=ROOT, capture_output=True, text=True, check=True)
    ready, *answers = map(json.loads, done.stdout.splitlines())
    assert ready["number"] == 0
    pids = [answer["pid"] for answer in answers[::2]]
    assert pids[0] == pids[2] == pids[3] and len({*pids}) == 3
    assert [answer["exit_code"] == 0 for answer in answers[1::2]] == [True, True, True, False, True]
    assert '"machine"' in (tmp_path / "3").read_text() and not (tmp_path / "4").read_text()


@pytest.mark.parametrize("killed", [True, False])
def test_only_a_process_that_is_still_there_is_killed(killed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id of one that was waited for may be another's by then."""
    (tasks_out, tasks_in), (answers_out, answers_in) = os.pipe(), os.pipe()
    child = subprocess.Popen(["sleep", "600"])
    process = PartsProcess(child.pid, tasks_in, answers_out)
    if killed:
        child.kill()
    else:
        os.write(answers_in, b'{"exit_code": 1, "cpu_sec": 0}\n')
    assert process.run({})[0]["exit_code"] == (-9 if killed else 1)
    signals: list[int] = []
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda pid, number: (signals.append(number), kill(pid, number)))
    process.end()
    assert signals == ([] if killed else [9])
    child.returncode = -9  # reaped there
    os.close(tasks_out)
    os.close(answers_in)


def test_an_answer_about_a_task_that_was_given_up_belongs_to_no_other() -> None:
    process = WarmProcess.__new__(WarmProcess)
    process._answers = queue.Queue()
    for answer in ({"number": 1, "exit_code": -9}, {"number": 2, "pid": 7}, {"number": 2, "exit_code": 0}):
        process._answers.put(answer)
    until = time.monotonic() + 5
    assert process._answer("pid", 2, until)["pid"] == 7
    assert process._answer("exit_code", 2, until)["exit_code"] == 0


def test_one_lane_on_a_card_and_one_for_each_kind_without() -> None:
    parts = list(PARTS)
    assert gpu_visit.split_lanes(parts, has_card=True) == [parts]
    lanes = gpu_visit.split_lanes(parts, has_card=False)
    assert sorted(part.name for lane in lanes for part in lane) == sorted(part.name for part in parts)
    assert [{part.warm for part in lane} for lane in lanes] == [{"vllm"}, {"plain"}, {"training"}]
    names = [part.name for part in lanes[0]]
    # what one engine answers comes before what needs another one
    assert names[-2:] == ["LoRA", "served and merged"] and names.index("letters") < names.index("cot bf16")


def settings_of(**fields: Any) -> EngineSettings:
    return EngineSettings(**{"model": "nowhere", "load_format": "dummy", "max_model_len": 512, **fields})


def test_parts_of_one_process_share_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[EngineSettings] = []
    closed: list[EngineSettings] = []

    class Engine:
        def __init__(self, settings: EngineSettings) -> None:
            self.settings = settings
            opened.append(settings)

        def close(self) -> None:
            closed.append(self.settings)

    monkeypatch.setattr(gpu_engine, "start_vllm", Engine)
    own = gpu_engine.open_engine(settings_of())
    own.close()
    assert len(closed) == 1 and opened[0] == settings_of()  # a process of its own: as the part asks for

    monkeypatch.setattr(gpu_commands, "_in_place", True)
    monkeypatch.setattr(gpu_engine, "_kept", None)
    first = gpu_engine.open_engine(settings_of())
    first.close()
    assert first.settings.generates and len(closed) == 1
    assert gpu_engine.open_engine(settings_of(max_model_len=1500, generates=True)) is first
    for fields in (
        {"max_lora_rank": 16, "num_adapters": 1},
        {"max_model_len": 9000},
        {"quantization": "fp8"},
    ):
        assert gpu_engine.open_engine(settings_of(**fields)) is not first
    (tmp_path / "model.safetensors").touch()  # weights that were made since are read
    assert gpu_engine.open_engine(settings_of(model=str(tmp_path))).settings.load_format == "auto"
    assert len(opened) == len(closed) + 1  # never two at once
    gpu_engine.close_shared_engine()
    assert len(opened) == len(closed)


def test_commands_in_place_give_what_they_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_commands, "_in_place", True)
    assert "usage: python -m kmmlu_fast.doctor" in gpu_commands.run_command(["kmmlu_fast.doctor", "--help"])
    with pytest.raises(EngineError, match=r"ended with exit code 2"):
        gpu_commands.run_command(["kmmlu_fast.doctor", "--no-such-flag"])


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ('print("noise"); print(\'{"seconds": 3}\')', {"seconds": 3}),
        ("print('{}'); raise SystemExit(1)", {NOT_MEASURED: FAILED.format(1)}),
        ("print('no object')", {NOT_MEASURED: FAILED.format(0)}),
        ("import time; time.sleep(600)", {NOT_MEASURED: "not done after 1 s"}),
    ],
)
def test_a_commands_result_or_why_there_is_none(code: str, result: dict[str, Any]) -> None:
    limit = 1 if "sleep" in code else 60
    assert run_limited([sys.executable, "-c", code], limit) == result


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_nothing_of_a_part_is_left_running(tmp_path: Path) -> None:
    """A part's engine starts processes of its own, in groups of their own."""
    pids = tmp_path / "pids"
    code = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
open({str(pids)!r}, "w").write(str(child.pid))
time.sleep(600)
"""
    assert NOT_MEASURED in run_limited([sys.executable, "-c", code], 5)
    pid = int(pids.read_text())
    until = time.monotonic() + 30
    while time.monotonic() < until and is_running(pid):
        time.sleep(0.05)
    assert not is_running(pid)


@pytest.mark.parametrize("has_card", [True, False])
def test_killed_in_the_middle_what_was_done_is_there(tmp_path: Path, has_card: bool) -> None:
    """On a card one part at a time; without one also those that ran beside it."""
    code = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from bench import gpu_visit
from bench.gpu_needs import PARTS
config = gpu_visit.GpuConfig.model_validate({{"shape": "tiny", "dataset": "sample"}})
folder = Path({str(tmp_path)!r})
visit = gpu_visit.Visit(config, folder, folder, time.monotonic(), {has_card})
done = ("ceilings", "label loss", "doctor") if not {has_card} else ("ceilings",)
visit.warm_up = lambda parts: None
visit.run_part = lambda part: {{"seconds": 7}} if part.name in done else time.sleep(600)
gpu_visit.run_parts(visit, list(PARTS))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    waiting = {"doctor ("} if has_card else {"transformers (", "train 500 x 3 (", "doctor:"}
    while waiting:
        line = process.stderr.readline()
        assert line, "it ended"
        waiting = {start for start in waiting if not line.startswith(start)}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    expected = ["01-ceilings.json"]
    expected += [] if has_card else ["02-doctor.json", "03-label-loss.json"]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == expected
    written = json.loads((tmp_path / expected[-1]).read_text())
    assert written["result"]["seconds"] == 7 and ("beside" in written) is not has_card
    assert written["device"]["cores"] and written["versions"]["python"]


def test_after_an_interrupt_no_part_is_written_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = visit(tmp_path)

    def run_part(part: Part) -> dict[str, Any]:
        one.close()
        return {NOT_MEASURED: "the process that imports for it ended"}

    monkeypatch.setattr(one, "run_part", run_part)
    with pytest.raises(KeyError):  # nothing was measured
        gpu_visit.run_parts(one, [part()])
    assert not list(tmp_path.glob("*.json"))


def test_results_never_overwrite_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_visit, "_now", lambda: "2026-01-02T03:04:05+00:00")
    folders = [gpu_visit.new_folder(tmp_path / "out") for _ in range(3)]
    assert [folder.name for folder in folders] == [
        "2026-01-02T03-04-05",
        "2026-01-02T03-04-05-2",
        "2026-01-02T03-04-05-3",
    ]


def test_a_gpu_is_asked_for_once_and_never_while_the_time_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(common, "has_gpu", lambda: asked.append(1) or False)
    common.computes_on_gpu.cache_clear()
    assert common.device_seconds(lambda: None, 3) > 0
    common.timed(lambda: common.device_seconds(lambda: None, 1), 3)
    assert len(asked) == 1
    common.computes_on_gpu.cache_clear()


def test_the_gpus_own_clock_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA events around the calls alone: what the host does meanwhile does not count."""
    import torch

    order: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            order.append("record")

        def elapsed_time(self, end: Event) -> float:
            return 250.0  # milliseconds

    monkeypatch.setattr(common, "computes_on_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("synchronize"))
    assert common.device_seconds(lambda: order.append("run"), 2) == 0.25
    assert order == ["synchronize", "record", "run", "run", "record", "synchronize"]


def test_gpu_parts_that_did_not_run_are_not_measured() -> None:
    found = {
        "zero-shot bf16": {"seconds": {"median": 100.0}},
        "zero-shot fp8": {NOT_MEASURED: "no time left"},
    }
    rows = {row["part"]: row for row in gpu_visit.judge(found, True)}
    assert rows["zero-shot bf16"]["reached"] is True
    assert (rows["zero-shot fp8"]["seconds"], rows["zero-shot fp8"]["reached"]) == ("not measured", None)


def test_five_shot_is_judged_by_the_zero_shot_pass() -> None:
    found = {
        "zero-shot bf16": {"seconds": {"median": 100.0}},
        "five-shot bf16": {"seconds": {"median": 131.0}},
    }
    assert [row["reached"] for row in gpu_visit.judge(found, True)] == [True, False]
    assert [row["reached"] for row in gpu_visit.judge(found, False)] == [None, None]


def test_letters_of_two_engines_are_compared_beyond_their_own_difference() -> None:
    one = [[-1.0, -2.0, -3.0, -4.0], [-1.0, -1.01, -3.0, -4.0], [-2.0, -1.0, -3.0, -4.0]]
    two = [[-1.1, -2.0, -3.0, -4.0], [-1.02, -1.0, -3.0, -4.0], [-2.0, -1.0, -3.0, -4.0]]
    found = gpu_parts.compare(one, two)
    assert found["largest_nats"] == pytest.approx(0.1) and found["mean_nats"] == pytest.approx(
        (0.1 + 0.02) / 3
    )
    assert (found["same_letter"], found["clear"], found["clear_and_same"]) == (
        2,
        2,
        2,
    )  # the second is a near tie


@pytest.mark.parametrize(
    ("capability", "name"),
    [((8, 6), "fp8_per_tensor"), ((8, 9), "fp8_per_channel"), ((9, 0), "fp8_per_channel")],
)
def test_fp8_is_what_the_card_computes(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str
) -> None:
    card = Gpu(name="A card", capability=capability, total_bytes=1, free_bytes=1, driver="")
    monkeypatch.setattr(gpu_parts, "first_gpu", lambda: card)
    assert gpu_parts.fp8_name() == name


@pytest.mark.parametrize("in_place", [True, False])
def test_what_a_part_starts_ends_with_it(tmp_path: Path, in_place: bool) -> None:
    """Also when the part is killed: the training that is to be killed must not go on by itself."""
    (tmp_path / "sleeper.py").write_text("import time\ndef main(argv=None):\n    time.sleep(600)\nmain()\n")
    code = f"""
import sys, time
sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]
from bench import gpu_commands
gpu_commands._in_place = {in_place}
print(gpu_commands.start_command(["sleeper"]), flush=True)
time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    assert process.stdout is not None
    started = int(process.stdout.readline())
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while time.monotonic() < until and is_running(started):
        time.sleep(0.05)
    assert not is_running(started)
