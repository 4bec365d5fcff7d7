"""Runs a verb's body as a command: progress on stderr, at most one line for what ends it, an exit code.

In: a function without arguments. Out: an exit code. Knows nothing of what the verb does.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from kmmlu_fast.command.exit_codes import run_to_exit_code
from kmmlu_fast.core.console import show_notes


def run_main(main: Callable[[], int | None]) -> int:
    """Run a verb's body and return its exit code; an error becomes one line on stderr."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read only when torch is first imported
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for them reads all packages' data
    with show_notes():
        return run_to_exit_code(main)
