"""What a command says beside its results: progress on stderr, and one line with exit code 2 for what a user can mend.

In: texts; an entry point's body. Out: lines on stderr, an exit code. Results go to stdout, by whoever has them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from kmmlu_fast.core.errors import KmmluError


def run_main(main: Callable[[], int | None]) -> int:
    """Run an entry point's body; turn a KmmluError into one line on stderr and exit code 2, Ctrl-C into 130."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read once, when torch is first imported
    try:
        return main() or 0
    except KmmluError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return 130


def note(text: str) -> None:
    """A line of progress on stderr: stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def say(message: str) -> None:
    """A progress line on stderr; stdout stays for the result."""
    print(message, file=sys.stderr, flush=True)
