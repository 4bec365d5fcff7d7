"""``python -m kmmlu_fast.eval``: evaluate a base model and its adapters on KMMLU. Parses, runs, prints.

Exit codes: 0 done, 2 faulty input (one line on stderr), 130 interrupted (the same command continues).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main

if TYPE_CHECKING:
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.runs.run import Run


def run_eval_command(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _run_eval(argv))


def _run_eval(argv: list[str] | None) -> int:
    # Imported in the watched process: no native library may be loaded before it is forked.
    from kmmlu_fast.command.flags import parse_config
    from kmmlu_fast.evaluation.config import EvalConfig

    config = parse_config(EvalConfig, argv, "python -m kmmlu_fast.eval")
    if config.plan:
        return _print_plan(config)
    from kmmlu_fast.evaluation.session import run_evaluation
    from kmmlu_fast.reporting.terminal.summary import print_protocols, print_summary

    runs = run_evaluation(config)
    print_summary(runs, config.lang)
    if config.protocols:
        print_protocols(runs, config.protocols, config.lang)
    if len(runs) > 1:
        _print_verdicts(runs, config)
    return 0


def _print_verdicts(runs: list[Run], config: EvalConfig) -> None:
    """Each adapter's against its base, protocol by protocol."""
    from kmmlu_fast.reporting.terminal.eval_summary import adapter_verdict_lines

    each = len(runs) // max(1, len(config.protocols))
    for start in range(0, len(runs), each):
        for line in adapter_verdict_lines(runs[start : start + each], config.lang):
            print(line)


def _print_plan(config: EvalConfig) -> int:
    """EngineError if what was asked for does not fit."""
    from kmmlu_fast.core.console import terminal_width, wrap_line
    from kmmlu_fast.core.errors import EngineError
    from kmmlu_fast.evaluation.preview import preview_evaluation

    preview = preview_evaluation(config)
    width = terminal_width() if sys.stdout.isatty() else 1_000
    print("\n".join(wrap_line(line, width) for line in preview.lines))
    if preview.problem:
        raise EngineError(preview.problem)
    return 0


if __name__ == "__main__":
    sys.exit(run_with_crash_guard(run_eval_command))
