"""``python -m kmmlu_fast.improve``: find the recipe that improves a model most.

In: flags, a file of recipes. Out: the summary on stdout; summary and report in the search's directory. The
work is in ``improvement``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.untrusted_text import strip_control_characters


def run_improve_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        # Imported in the watched process: no native library may be loaded before it is forked.
        from kmmlu_fast.command.flags import parse_config
        from kmmlu_fast.improvement.config import ImproveConfig

        config = parse_config(ImproveConfig, argv, prog="python -m kmmlu_fast.improve")
        from kmmlu_fast.improvement.search import run_search
        from kmmlu_fast.improvement.search_report import write_search_report
        from kmmlu_fast.improvement.summary import summary_lines

        result = run_search(config)
        print("\n".join(map(strip_control_characters, summary_lines(config, result))))
        print(f"report: {strip_control_characters(str(write_search_report(config, result)))}")

    return run_main(body)


if __name__ == "__main__":
    sys.exit(run_with_crash_guard(run_improve_command))
