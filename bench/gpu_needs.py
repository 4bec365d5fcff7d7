"""The parts of ``bench.gpu``, cheapest and most telling first: their time limits, and what they import.

In: nothing. Out: ``PARTS``; what is missing here; the text of ``--needs``. Standard library only, so that a
bare machine can be asked before anything is carried to it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

# What every part but the first two imports, by the name on the package index.
BASE = (
    "polars", "pydantic", "numpy", "pyyaml", "torch", "transformers", "tokenizers", "safetensors", "filelock",
)  # fmt: skip
_MODULES = {"pyyaml": "yaml"}
_TRAIN = ("unsloth", "unsloth_zoo", "trl", "peft", "datasets", "accelerate", "bitsandbytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: a process of its own with a limit."""

    name: str
    limit_sec: int  # the most it may take on a card
    needs: tuple[str, ...]  # packages beside BASE
    base: bool = True  # False: needs no package of BASE but torch, if any
    files: bool = True  # False: needs neither questions nor a model
    weights: bool = False  # needs random weights on disk
    card: bool = False  # measures what only a card has
    warm: str = "vllm"  # whose imports it shares where there is no card: bench.gpu_warm's kind
    turn: int = 0  # where there is no card: parts of one kind run in this order, those of a turn as listed
    alone: bool = False  # where there is no card: in a process that ran no other part


PARTS = (
    Part(name="ceilings", limit_sec=60, needs=("torch",), base=False, files=False),
    Part(name="doctor", limit_sec=30, needs=(), base=False, files=False, warm="plain"),
    Part(name="label loss", limit_sec=150, needs=("peft",), files=False, warm="training"),
    Part(name="train 500 x 3", limit_sec=300, needs=_TRAIN, weights=True, warm="training"),
    Part(name="kill and resume", limit_sec=150, needs=_TRAIN, weights=True, warm="training", alone=True),
    Part(name="transformers", limit_sec=90, needs=("accelerate",), weights=True),
    Part(name="letters", limit_sec=150, needs=("vllm",), weights=True),
    Part(name="eager 0+5-shot", limit_sec=150, needs=("vllm",)),
    Part(name="fp8", limit_sec=150, needs=("vllm",), card=True),
    Part(name="LoRA", limit_sec=150, needs=("vllm", "peft"), weights=True, turn=1),
    Part(name="cot bf16", limit_sec=200, needs=("vllm",)),
    Part(name="out of memory", limit_sec=120, needs=("vllm",), card=True),
    Part(name="served and merged", limit_sec=240, needs=("vllm", "peft"), weights=True, turn=2),
    Part(name="graphs", limit_sec=180, needs=("vllm",), card=True),
    Part(name="zero-shot bf16", limit_sec=240, needs=("vllm",)),
    Part(name="zero-shot fp8", limit_sec=200, needs=("vllm",), card=True),
    Part(name="five-shot bf16", limit_sec=240, needs=("vllm",)),
    Part(name="steps", limit_sec=200, needs=_TRAIN, weights=True, warm="training"),
)


def needed_packages(part: Part) -> tuple[str, ...]:
    """All packages that the part imports."""
    return (*(BASE if part.base else ()), *part.needs)


def missing_packages(part: Part) -> list[str]:
    """Those of them that cannot be imported here."""
    modules = {name: _MODULES.get(name, name) for name in needed_packages(part)}
    return [name for name, module in modules.items() if importlib.util.find_spec(module) is None]


def describe_needs() -> str:
    """What to have on a machine, and which parts run on this one."""
    rows = ["python -m bench.gpu needs, beside Python 3.11 to 3.13:", f"  every part: {', '.join(BASE)}"]
    rows.append("  (torch 2.11 or newer with transformers 5.17 and PEFT run what needs no other package)")
    for part in PARTS:
        missing = missing_packages(part)
        state = f"not here: {', '.join(missing)}" if missing else "runs here"
        needs = ", ".join(part.needs) or "nothing more"
        rows.append(f"  {part.name:<18} {needs:<66} {state}")
    return "\n".join(rows)
