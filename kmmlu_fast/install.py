"""``kmmlu-fast install gpu|cpu``: install the tested package versions into the running environment (such as
a Colab kernel).

In: a kind. Out: pip's work, or its command lines with --print. The pins are shipped with the package;
``scripts/setup.sh`` installs the same ones into a clone's ``.venv``. Knows nothing of what the packages do.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from kmmlu_fast.command.flags import Config, parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import InstallError

PINS = Path(__file__).parent / "pins"
_TORCH_CPU = "https://download.pytorch.org/whl/cpu"  # PyTorch's own; KMMLU_TORCH_INDEX overrides it
_PYTHONS = {"gpu": ((3, 11), (3, 12)), "cpu": ((3, 11), (3, 13))}


class InstallConfig(Config):
    """python -m kmmlu_fast.install: install the tested package versions into the running Python."""

    positional: ClassVar[str | None] = "kind"
    examples: ClassVar[tuple[str, ...]] = ("gpu", "cpu", "gpu --print")

    kind: list[Literal["gpu", "cpu"]] = Field(
        [], max_length=1, description="gpu or cpu; default: gpu if there is an NVIDIA GPU"
    )
    print: bool = Field(False, description="only print the pip commands")


def run_install_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> int:
        config = parse_config(InstallConfig, argv, "python -m kmmlu_fast.install")
        kind = config.kind[0] if config.kind else _detect_kind()
        commands = pip_commands(kind)
        if config.print:
            print("\n".join(shlex.join(command) for command in commands))
            return 0
        _check_python(kind)
        for command in commands:
            log_note(shlex.join(command))
            if subprocess.run(command, check=False).returncode:
                raise InstallError(f"pip failed; the command was: {shlex.join(command)}")
        log_note("installed; in a notebook, restart the kernel now; then run kmmlu-fast doctor")
        return 0

    return run_main(body)


def _detect_kind() -> str:
    from kmmlu_fast.machine.gpus import list_gpus

    return "gpu" if list_gpus() else "cpu"


def _check_python(kind: str) -> None:
    first, last = _PYTHONS[kind]
    if not first <= sys.version_info[:2] <= last:
        allowed = f"{first[0]}.{first[1]} to {last[0]}.{last[1]}"
        raise InstallError(
            f"install {kind}: this is Python {sys.version_info[0]}.{sys.version_info[1]}, and the tested"
            f" versions need {allowed}; create an environment with one of them and run the same command there"
        )


def pip_commands(kind: str) -> list[list[str]]:
    """pip's command lines. ``--no-deps``: the file is complete, and resolving could choose other versions."""
    # --no-compile: pip would compile every module, a minute on one core; Python compiles those it imports.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-compile"]
    pins = PINS / f"{kind}.txt"
    commands = [[*pip, "--no-deps", "-r", str(pins)]]
    if kind == "cpu":
        lines = pins.read_text(encoding="utf-8").splitlines()
        torch = next(line for line in lines if line.startswith("torch=="))
        index = os.environ.get("KMMLU_TORCH_INDEX", _TORCH_CPU)
        commands.insert(0, [*pip, "--no-deps", "--extra-index-url", index, torch])
    return commands


if __name__ == "__main__":
    sys.exit(run_install_command())
