"""``python -m kmmlu_fast.sample``: training questions from a run's weak subjects, without test questions.

In: flags. Out: the plan and the file's name on stdout. The work is in ``sampling.job``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.untrusted_text import strip_control_characters


def run_sample_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        # Imported in the watched process: no native library may be loaded before it is forked.
        from kmmlu_fast.command.flags import parse_config
        from kmmlu_fast.sampling.config import SampleConfig

        config = parse_config(SampleConfig, argv, prog="python -m kmmlu_fast.sample")
        from kmmlu_fast.sampling.card import print_sampling_plan
        from kmmlu_fast.sampling.job import draw_training_rows

        drawn = draw_training_rows(config)
        print_sampling_plan(drawn.plan, drawn.facts)
        path = strip_control_characters(str(drawn.path))
        print(f"{len(drawn.rows)} rows written to {path}, with plan, dropped rows and data card next to it")

    return run_main(body)


if __name__ == "__main__":
    sys.exit(run_with_crash_guard(run_sample_command))
