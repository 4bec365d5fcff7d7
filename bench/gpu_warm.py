"""A process that imports libraries once and forks one for each part: without a card, imports are most of one.

    python -m bench.gpu_warm vllm|training|plain          internal to bench.gpu; plain imports nothing

In: a line of JSON for each part on stdin: its words, and a file for what it prints. Out: the part's process
id, then its exit code, a line of JSON each. A part is a process and a session of its own, as it is where
there is a card; forking is safe because this process computes nothing. Knows nothing of what a part measures.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from importlib.util import find_spec
from typing import Any

from kmmlu_fast.machine.host import usable_cores

_MODULES = {
    "training": ("transformers", "peft", "trl"),
    "vllm": ("transformers", "peft", "vllm.v1.engine.llm_engine"),
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


def serve(kind: str) -> None:
    """Fork a process for each line of stdin until it ends."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    os.environ["OMP_NUM_THREADS"] = "1"  # a pool of threads would not survive the fork
    began = time.monotonic()
    import_libraries(kind)
    answer(ready_sec=round(time.monotonic() - began, 1))
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if child == 0:
            run_part(task)
        answer(pid=child)
        _, status = os.waitpid(child, 0)
        answer(exit_code=os.waitstatus_to_exitcode(status))


def run_part(task: dict[str, Any]) -> None:
    """The part, in the forked child. Does not return."""
    from bench import gpu_commands, gpu_parts

    os.setsid()
    die_with_parent()
    out = os.open(task["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    use_all_cores()
    gpu_commands.run_in_place()
    gpu_commands.leave(lambda: gpu_parts.main(task["words"]))


def use_all_cores() -> None:
    """As a process of its own would; the warm one has no threads that the fork could lose."""
    os.environ.pop("OMP_NUM_THREADS", None)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(usable_cores())


def die_with_parent() -> None:
    """End with the process that started this one, also when that is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    serve(sys.argv[1])
