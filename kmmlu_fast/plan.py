"""``python -m kmmlu_fast.plan``: how many questions, minutes and seeds show a difference.

Parses, computes, prints; starts no engine. Exit codes: 0 done, 2 faulty input.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.console import terminal_width, wrap_line
from kmmlu_fast.reporting.config import PlanConfig


def run_plan_command(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _run_plan(argv))


def _run_plan(argv: list[str] | None) -> int:
    config = parse_config(PlanConfig, argv, "python -m kmmlu_fast.plan")
    from kmmlu_fast.reporting.terminal.question_plan import plan_lines

    width = terminal_width() if sys.stdout.isatty() else 1_000
    print("\n".join(wrap_line(line, width) for line in plan_lines(config)))
    return 0


if __name__ == "__main__":
    sys.exit(run_plan_command())
