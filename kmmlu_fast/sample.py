"""``python -m kmmlu_fast.sample``: weak subjects of a run -> training questions that no test question is
among.

In: flags. Out: the plan on stdout, the files' names. The work is in ``sampling.job``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.untrusted_text import strip_control_characters


def run_sample_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        # Imported here, in the watched process: nothing native may be loaded before it is made.
        from kmmlu_fast.command.flags import parse_config
        from kmmlu_fast.sampling.card import print_sampling_plan
        from kmmlu_fast.sampling.config import SampleConfig
        from kmmlu_fast.sampling.job import draw_training_rows

        drawn = draw_training_rows(parse_config(SampleConfig, argv, prog="python -m kmmlu_fast.sample"))
        print_sampling_plan(drawn.plan, drawn.facts)
        print(
            f"{len(drawn.rows)} rows written to {strip_control_characters(str(drawn.path))}; plan, dropped rows and data card"
            " beside it"
        )

    return run_main(body)


if __name__ == "__main__":
    sys.exit(run_with_crash_guard(run_sample_command))
