"""``python -m kmmlu_fast.check ADAPTER ARTEFACT...``: is what you ship what you measured?

In: an adapter and artefacts. Out: a sentence for each. Exit codes: 0 all are safe to ship, 1 one is not, 2
faulty input. The work is in ``shipping.gate``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main


def run_check_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> int:
        # Imported in the watched process: no native library may be loaded before it is forked.
        from kmmlu_fast.command.flags import parse_config
        from kmmlu_fast.shipping.config import CheckConfig

        config = parse_config(CheckConfig, argv, prog="python -m kmmlu_fast.check")
        from kmmlu_fast.core.files import claim_outputs, write_bytes_atomically, write_json_atomically
        from kmmlu_fast.shipping.gate import check_release
        from kmmlu_fast.shipping.gate_report import gate_json, gate_junit, gate_lines

        outputs = [path for path in (config.json_file, config.junit) if path is not None]
        claim_outputs(outputs, overwrite=config.overwrite, flag="--json-file, --junit")
        report = check_release(config)
        if config.json_file is not None:
            write_json_atomically(config.json_file, gate_json(report))
        if config.junit is not None:
            write_bytes_atomically(config.junit, gate_junit(report))
        print("\n".join(gate_lines(report)))
        return 0 if report.is_safe else 1

    return run_main(body)


if __name__ == "__main__":
    sys.exit(run_with_crash_guard(run_check_command))
