"""A verb's body run as a command: progress on stderr, one line for whatever ends it, an exit code.

In: a function without arguments. Out: an exit code. Knows nothing of what the verb does.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from kmmlu_fast.command.exit_codes import run_to_exit_code
from kmmlu_fast.core.console import show_notes


def run_main(main: Callable[[], int | None]) -> int:
    """Run a verb's body; whatever ends it becomes at most one line on stderr and an exit code."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read once, when torch is first imported
    with show_notes():
        return run_to_exit_code(main)
