"""``python -m kmmlu_fast.leakage TRAIN_FILE``: does a training file contain questions of the test split?

In: training files (default: the dataset's own train split). Out: the pairs on stdout and, on request, a file
of ids; exit code 1 if a training file overlaps. The work is in ``contamination.file_check``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.contamination.config import LeakageConfig


def run_leakage_command(argv: list[str] | None = None) -> int:
    """Exit codes: 0 clean (or no training file was given), 1 a training file overlaps, 2 an error."""

    def body() -> int:
        config = parse_config(LeakageConfig, argv, prog="python -m kmmlu_fast.leakage")
        from kmmlu_fast.contamination.file_check import check_training_files

        return 1 if check_training_files(config) else 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(run_leakage_command())
