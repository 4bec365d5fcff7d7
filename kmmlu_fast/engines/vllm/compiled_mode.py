"""Whether vLLM compiles the model on a CPU (torch.compile, once at the start) or runs it step by step.

In: ``--compile``, the processor's flags, the compute type, how many questions, whether weights are swapped.
Out: yes or no, and why in a line; vLLM's arguments. Pure. Knows nothing of KMMLU.

Compiling joins what is not a matrix product (norms, GELU, rotary embedding). Where matrix units make the
products cheap (AMX), that is half of the time: 22.0 and 32.8 questions/s with the 270M demo model in bfloat16
(medians of seven passes in turns, 2026-11-30, a Xeon with AMX), for 60 to 80 s more at every start; nothing
in float32. Answers differ by rounding (175 of 180 letters were the same): a compiled run is another run.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

EAGER_RATE, COMPILED_RATE, START_SEC = 22.0, 32.8, 80.0  # measured, see above
# 5,345: what is saved is then what the start costs. A larger model is worth it sooner.
WORTH_COMPILING_QUESTIONS = round(START_SEC / (1 / EAGER_RATE - 1 / COMPILED_RATE))
SWAP_PROBLEM = "--compile on: a compiled model keeps the weights it was compiled with"


def choose_compiled_mode(
    setting: str, flags: Collection[str], dtype: str, questions: int, *, letters: bool, adapters: bool
) -> tuple[bool, str]:
    """Whether to compile, and why if that is not what a run without the flag does (else "").

    ``setting``: off, auto or on. ``flags``: words of /proc/cpuinfo. ``dtype``: the compute type; auto stands
    for bfloat16 here, as float32 is always named. ``questions``: that may be asked. ``letters``: one token
    per answer. ``adapters``: some are evaluated, so their weights may be written into the engine.
    """
    if setting != "auto":
        return setting == "on", ""
    if "amx_bf16" not in flags:
        return False, "not compiled: no CPU but those with AMX is known to gain from it"
    if dtype not in ("auto", "bfloat16"):
        return False, f"not compiled: nothing is gained in {dtype}"
    if not letters:
        return False, "not compiled: only answers of one token are known to gain from it"
    if adapters:
        return (
            False,
            "not compiled: an adapter's weights are written into the engine, which a compiled one ignores",
        )
    if questions < WORTH_COMPILING_QUESTIONS:
        return False, f"not compiled: it pays from about {WORTH_COMPILING_QUESTIONS:,} questions"
    return True, (
        f"compiled: about a minute more at the start, for {questions:,} questions in less time; a run to be"
        " compared with adapters later needs --compile off"
    )


def compiled_arguments() -> dict[str, Any]:
    """vLLM's arguments. Its CPU platform makes one graph of any size of "mode 3", by TorchInductor."""
    return {"enforce_eager": False, "compilation_config": {"mode": 3}}
