"""``python -m kmmlu_fast.train``: training rows -> a LoRA adapter that evaluation loads. The work is in ``training.job``."""

from __future__ import annotations

import sys

from kmmlu_fast.core import flags
from kmmlu_fast.core.console import run_main
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.job import run_job


def main(argv: list[str] | None = None) -> int:
    return run_main(lambda: run_job(flags.parse(TrainConfig, argv, prog="python -m kmmlu_fast.train")))


if __name__ == "__main__":
    sys.exit(main())
