"""The check before set-up downloads gigabytes: ``python -m kmmlu_fast.machine.preflight cpu|gpu``.

In: the requested set. Out: exit code 0, or 2 with one line per reason on stderr. Runs with the system's
Python: standard library only. ``KMMLU_SETUP_ANYWAY=1`` turns the reasons into warnings (for an image built on
another machine). Knows nothing of models.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kmmlu_fast.machine import gpus, host, memory_fit, packages
from kmmlu_fast.machine.diagnosis import toolchain_problem
from kmmlu_fast.machine.gpus import GpuInventory
from kmmlu_fast.machine.host import Machine
from kmmlu_fast.machine.packages import Toolchain

# The size of the installed set (4.2 and 9 GB), and half as much again for what pip unpacks and keeps.
DISK_BYTES = {"cpu": 6 * 10**9, "gpu": 14 * 10**9}


def find_setup_obstacles(
    kind: str, here: Machine, cards: GpuInventory, toolchain: Toolchain, cuda: int, *, done: bool = False
) -> list[str]:
    """Why the set cannot be used or installed here; ``done``: it is already installed."""
    reasons = []
    if here.architecture not in ("x86_64", "AMD64"):
        reasons.append(f"the pinned sets are for x86-64, this machine is {here.architecture}")
    if not done and 0 < here.disk_free_bytes < DISK_BYTES[kind]:
        need, free = DISK_BYTES[kind] / 1e9, here.disk_free_bytes / 1e9
        reasons.append(
            f"{free:.1f} GB are free on this disk, installing the {kind} set needs up to {need:.0f}"
        )
    if kind == "cpu":
        if "avx2" not in here.cpu.flags:
            reasons.append(f"the CPU ({here.cpu.name}) has no AVX2, which vLLM's CPU build needs")
        return reasons
    if not cards.cards:
        why = cards.problem or "no NVIDIA card answers; is the driver installed, or was --gpus all given?"
        return [*reasons, f"the gpu set was requested, but {why}; for the CPU: bash scripts/setup.sh cpu"]
    usable = [card for card in cards.cards if not memory_fit.unsupported_gpu_reason(card.capability)]
    if not usable:
        reasons.append(memory_fit.unsupported_gpu_reason(cards.cards[0].capability, cards.cards[0].name))
    if problem := packages.driver_problem(cards.driver, cuda):
        reasons.append(problem)
    if not toolchain.complete:
        reasons.append(toolchain_problem(toolchain, here.python))
    return reasons


def run_preflight_check(argv: list[str] | None = None) -> int:
    """Exit code 0 if the set can be installed and used here."""
    kind = (sys.argv[1:] if argv is None else argv)[0]
    done = Path(f".venv/.installed-{kind}").exists()
    cards = gpus.find_gpus() if kind == "gpu" else GpuInventory()
    reasons = find_setup_obstacles(
        kind, host.detect_machine(), cards, packages.find_toolchain(), packages.pinned_cuda(), done=done
    )
    anyway = os.environ.get("KMMLU_SETUP_ANYWAY") == "1"
    for reason in reasons:
        print(f"{'warning' if anyway else 'error'}: {reason}", file=sys.stderr)
    if reasons and not anyway:
        print("setup: nothing was downloaded; KMMLU_SETUP_ANYWAY=1 continues regardless", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_preflight_check())
