"""``python -m kmmlu_fast.sample``: weak subjects of a run -> training questions that no test question is
among.

In: flags. Out: the plan on stdout, the files' names. The work is in ``sampling.job``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.crash_guard import guarded
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.untrusted_text import clean


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        # Imported here, in the watched process: nothing native may be loaded before it is made.
        from kmmlu_fast.command.flags import parse
        from kmmlu_fast.sampling.card import plan_table
        from kmmlu_fast.sampling.config import SampleConfig
        from kmmlu_fast.sampling.job import draw_rows

        drawn = draw_rows(parse(SampleConfig, argv, prog="python -m kmmlu_fast.sample"))
        plan_table(drawn.plan, drawn.facts)
        print(
            f"{len(drawn.rows)} rows written to {clean(str(drawn.path))}; plan, dropped rows and data card"
            " beside it"
        )

    return run_main(body)


if __name__ == "__main__":
    sys.exit(guarded(main))
