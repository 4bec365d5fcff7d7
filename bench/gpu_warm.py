"""A process that imports libraries once and forks the ones that run parts: without a card, imports and the
engine's start are most of a part.

    python -m bench.gpu_warm vllm|training|plain CORES          internal to bench.gpu; plain imports nothing

In: a line of JSON for each part on stdin: its words, a file for what it prints, whether it is ``alone``.
Out: the id of the process that runs it, then its exit code and CPU seconds, a line of JSON each. Parts run
one after the other in one forked process, which keeps what they share (``bench.gpu_engine``); after a part
that failed or was killed, the next one gets a new process. A part that is alone has one of its own, in which
nothing was computed. Forking is safe because this process computes nothing. Knows nothing of measurements.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from bench.gpu_commands import die_with_parent, exit_code_of, leave, run_in_place
from kmmlu_fast.machine.heavy_imports import freeze_live_objects, hide_packages, pause_garbage_collection

_MODULES = {
    "training": ("transformers", "peft", "trl"),
    "vllm": ("transformers", "peft", "vllm.entrypoints.llm"),
    "plain": (),
}


def import_libraries(kind: str) -> None:
    """What the parts of this kind import, as far as it is installed."""
    if kind == "training" and find_spec("unsloth") is not None:
        from kmmlu_fast.training.libraries import import_unsloth

        import_unsloth()
    if kind == "vllm" and find_spec("vllm") is not None:
        from kmmlu_fast.engines.vllm.engine import prepare_environment

        prepare_environment(gpu=False)
    for name in _MODULES[kind]:
        if find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)


@dataclass(slots=True)
class PartsProcess:
    """A forked process that runs parts until one fails."""

    pid: int
    tasks: int
    answers: int
    has_ended: bool = False  # and was waited for: its id may be another's by now

    def run(self, task: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """What a part ended with, and whether the process goes on: not after a part that failed."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.tasks, (json.dumps(task) + "\n").encode())
        while True:
            if select.select([self.answers], [], [], 0.05)[0] and (line := os.read(self.answers, 4096)):
                answer: dict[str, Any] = json.loads(line)
                return answer, answer["exit_code"] == 0
            ended, status, usage = os.wait4(self.pid, os.WNOHANG)
            if ended:
                self.has_ended = True
                code = os.waitstatus_to_exitcode(status)
                return {"exit_code": code, "cpu_sec": usage.ru_utime + usage.ru_stime}, False

    def end(self) -> None:
        """No more parts: kill the process if it is still there."""
        os.close(self.tasks)
        os.close(self.answers)
        if not self.has_ended:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def start_process(cores: int) -> PartsProcess:
    """Fork a process that runs the tasks it is given."""
    (tasks_out, tasks_in), (answers_out, answers_in) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(tasks_in)
        os.close(answers_out)
        run_tasks(tasks_out, answers_in, cores)
    os.close(tasks_out)
    os.close(answers_in)
    return PartsProcess(pid, tasks_in, answers_out)


def serve(kind: str, cores: int) -> None:
    """Have a forked process run each line of stdin until it ends."""
    die_with_parent()
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=stream, flush=True)

    os.environ["OMP_NUM_THREADS"] = "1"  # a pool of threads would not survive the fork
    began = time.monotonic()
    with pause_garbage_collection(), hide_packages():
        import_libraries(kind)
        freeze_live_objects()
    answer(number=0, ready_sec=round(time.monotonic() - began, 1), cpu_sec=round(time.process_time(), 1))
    shared: PartsProcess | None = None
    for line in sys.stdin:
        task = json.loads(line)
        process = (None if task["alone"] else shared) or start_process(cores)
        answer(number=task["number"], pid=process.pid)
        ended_with, goes_on = process.run(task)
        if task["alone"] or not goes_on:
            process.end()
        if not task["alone"]:
            shared = process if goes_on else None
        answer(number=task["number"], **ended_with)


def run_tasks(tasks: int, answers: int, cores: int) -> None:
    """The parts, in the forked child. Does not return."""
    os.setsid()
    die_with_parent()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    use_cores(cores)
    run_in_place()

    def body() -> int:
        with os.fdopen(tasks) as lines:
            for line in lines:
                began = sum(os.times()[:4])
                code = run_part(json.loads(line))
                answer = {"exit_code": code, "cpu_sec": round(sum(os.times()[:4]) - began, 2)}
                os.write(answers, (json.dumps(answer) + "\n").encode())
        return 0

    leave(body)


def run_part(task: dict[str, Any]) -> int:
    """The part's exit code; what it prints goes to the task's file."""
    from bench import gpu_parts

    out = os.open(task["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.close(out)
    code = exit_code_of(lambda: gpu_parts.main(task["words"]))
    sys.stdout.flush()
    return code


def use_cores(cores: int) -> None:
    """As many threads as this process may use; the one that forked it has none that the fork could lose."""
    os.environ["OMP_NUM_THREADS"] = str(cores)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(cores)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
