"""``python -m kmmlu_fast.eval``: evaluate a base model and its adapters on KMMLU. A thin entry point: parse,
run, print.

Exit codes: 0 done, 2 a fault of the input (one line on stderr), 130 interrupted (the same command continues).
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.crash_guard import guarded
from kmmlu_fast.command.run import run_main


def main(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    # Imported here, in the watched process: nothing native may be loaded before it is made.
    from kmmlu_fast.command.flags import parse
    from kmmlu_fast.evaluation.config import EvalConfig

    config = parse(EvalConfig, argv, "python -m kmmlu_fast.eval")
    from kmmlu_fast.evaluation.session import evaluate
    from kmmlu_fast.reporting.terminal.eval_summary import closing_lines
    from kmmlu_fast.reporting.terminal.summary import print_summary

    runs = evaluate(config)
    print_summary(runs, config.lang)
    for line in closing_lines(runs, config.lang):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
