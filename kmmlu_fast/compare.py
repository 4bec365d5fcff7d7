"""``python -m kmmlu_fast.compare FIRST SECOND...``: is the second better, by how much, in which subjects, and
is it letter habit?

In: two or more runs. Out: one screen of text and, on request, files with everything. Exit codes: 0 compared,
1 the condition of --fail-if is met, 2 faulty input. The work is in ``reporting.run_comparisons``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.machine.heavy_imports import use_one_blas_thread
from kmmlu_fast.reporting.config import CompareConfig


def run_compare_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> int:
        use_one_blas_thread()
        config = parse_config(CompareConfig, argv, "python -m kmmlu_fast.compare")
        from kmmlu_fast.reporting.run_comparisons import compare_and_print

        return compare_and_print(config)

    return run_main(body)


if __name__ == "__main__":
    sys.exit(run_compare_command())
