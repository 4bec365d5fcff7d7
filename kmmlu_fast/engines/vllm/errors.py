"""vLLM's exceptions as one line that says what helps.

In: an exception, the phase in which it was raised, a description of the memory. Out: an EngineError; once
answers were asked for it says that the finished ones are kept. Knows nothing of requests.
"""

from __future__ import annotations

from kmmlu_fast.core.errors import EngineError

_OUT_OF_MEMORY = ("out of memory", "No available memory", "KV cache", "Free memory on device")
_IN_ANOTHER_PROCESS = (
    "Engine core initialization failed",
    "EngineDeadError",
    "EngineCore encountered",
    "WorkerProc initialization failed",
)


NOT_STARTED, STOPPED = "the engine did not start", "the engine stopped"


def as_engine_error(error: Exception, what: str, memory: str = "") -> EngineError:
    """The EngineError for ``error``; ``what`` happened: ``NOT_STARTED`` or ``STOPPED``."""
    text = " ".join(str(error).split())
    kept = "; finished answers are kept" if what == STOPPED else ""
    if any(mark.lower() in text.lower() for mark in _OUT_OF_MEMORY):
        return EngineError(f"{what}: not enough memory ({text[:200]}); {_memory_advice(memory)}{kept}")
    if any(mark in f"{type(error).__name__} {text}" for mark in _IN_ANOTHER_PROCESS):
        # On a GPU vLLM's engine is its own process: it prints the reason, this error reports its end.
        return EngineError(
            f"{what}: its process ended ({text[:160]}; the reason is above); if memory ran out:"
            f" {_memory_advice(memory)}; if Triton did not compile: install gcc and Python's headers; if it"
            " says 'bootstrapping phase': start your script under if __name__ == '__main__'" + kept
        )
    going_on = f"{kept}, the same command continues" if kept else ""
    return EngineError(f"{what}: {type(error).__name__}: {text[:300]}{going_on}")


def _memory_advice(memory: str) -> str:
    known = f"{memory}; " if memory else ""
    return (
        f"{known}lower --max-model-len, --max-num-seqs, --max-num-batched-tokens or --gpu-memory-utilization,"
        " use --quantization fp8_per_channel or an AWQ or GPTQ repository, or split the model with"
        " --tensor-parallel-size"
    )
