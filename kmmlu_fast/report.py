"""``python -m kmmlu_fast.report RUN...``: one self-contained HTML file, figures, exports, or one question.

The work is in ``reporting.report_files``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.machine.heavy_imports import pause_garbage_collection, use_one_blas_thread
from kmmlu_fast.reporting.config import ReportConfig


def run_report_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        use_one_blas_thread()
        config = parse_config(ReportConfig, argv, "python -m kmmlu_fast.report")
        from kmmlu_fast.reporting.report_files import write_report_files

        with pause_garbage_collection():  # hundreds of thousands of texts that all stay in use
            write_report_files(config)

    return run_main(body)


if __name__ == "__main__":
    sys.exit(run_report_command())
