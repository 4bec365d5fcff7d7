"""``python -m kmmlu_fast.export``: an adapter as a merged model, as GGUF files, or as a GGUF adapter.

In: flags. Out: a new directory, and its files on stdout. The work is in ``shipping.export``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main


def run_export_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        # Imported in the watched process: no native library may be loaded before it is forked.
        from kmmlu_fast.command.flags import parse_config
        from kmmlu_fast.shipping.config import ExportConfig

        config = parse_config(ExportConfig, argv, prog="python -m kmmlu_fast.export")
        from kmmlu_fast.core.untrusted_text import strip_control_characters
        from kmmlu_fast.shipping.export import export_adapter

        export = export_adapter(config)
        print(strip_control_characters(f"exported: {export.path}"))
        for name, facts in export.record["files"].items():
            print(strip_control_characters(f"  {name}  {facts['bytes']:,} bytes"))

    return run_main(body)


if __name__ == "__main__":
    sys.exit(run_with_crash_guard(run_export_command))
