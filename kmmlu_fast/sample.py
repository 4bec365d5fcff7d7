"""``python -m kmmlu_fast.sample``: weak subjects of a run -> training questions that no test question is among. See ``sampling.job``."""

from __future__ import annotations

import sys

from kmmlu_fast.core.console import run_main
from kmmlu_fast.sampling.job import run_job


def main(argv: list[str] | None = None) -> int:
    return run_main(lambda: run_job(argv))


if __name__ == "__main__":
    sys.exit(main())
