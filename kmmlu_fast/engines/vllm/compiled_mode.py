"""Whether vLLM compiles the model on a CPU (torch.compile, once at the start) or runs it step by step.

In: ``--compile``, the processor's flags, the compute type, how many questions, whether weights are swapped.
Out: yes or no, and why in a line; vLLM's arguments. Pure. Knows nothing of KMMLU.

Compiling joins what is not a matrix product (norms, GELU, rotary embedding). Where matrix units make the
products cheap (AMX), that is half of the time; elsewhere less (``GAINS``). It costs most of a minute more at
every start, and gains nothing in float32. Answers differ by rounding (175 of 180 letters were the same): a
compiled run is another run.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CompiledGain:
    """What compiling gained on a kind of CPU, measured: questions/s of the 270M demo model in bfloat16."""

    eager_rate: float
    compiled_rate: float
    start_sec: float  # more at the start

    @property
    def worth_questions(self) -> int:
        """How many questions save what the start costs."""
        return round(self.start_sec / (1 / self.eager_rate - 1 / self.compiled_rate))


# By the flag that names the kind, the most capable first. Two cores each: a Xeon with AMX, medians of seven
# passes in turns (2026-11-30); an EPYC with AVX512_BF16, 1,350 questions each, and 1.08 and 1.22 times in 450
# (2026-12-01). A larger model is worth it sooner.
GAINS = {
    "amx_bf16": CompiledGain(22.0, 32.8, 80.0),
    "avx512_bf16": CompiledGain(12.8, 14.7, 40.0),
}
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
    gain = next((gain for flag, gain in GAINS.items() if flag in flags), None)
    if gain is None:
        return False, "not compiled: no CPU but those with AMX or AVX512_BF16 is known to gain from it"
    if dtype not in ("auto", "bfloat16"):
        return False, f"not compiled: nothing is gained in {dtype}"
    if not letters:
        return False, "not compiled: only answers of one token are known to gain from it"
    if adapters:
        return (
            False,
            "not compiled: an adapter's weights are written into the engine, which a compiled one ignores",
        )
    if questions < gain.worth_questions:
        return False, f"not compiled: it pays from about {gain.worth_questions:,} questions"
    return True, (
        f"compiled: about a minute more at the start, for {questions:,} questions in less time; a run to be"
        " compared with adapters later needs --compile off"
    )


def compiled_arguments() -> dict[str, Any]:
    """vLLM's arguments. Its CPU platform makes one graph of any size of "mode 3", by TorchInductor."""
    return {"enforce_eager": False, "compilation_config": {"mode": 3}}
