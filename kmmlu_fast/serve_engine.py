"""``python -m kmmlu_fast.serve_engine``: keep an engine warm for the user's next commands.

Parses, runs, prints. Exit codes: 0 ended when idle or by ``--stop``, 2 faulty input, 130 ended by Ctrl-C.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main


def run_serve_engine_command(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _run_serve_engine(argv))


def _run_serve_engine(argv: list[str] | None) -> int:
    # Imported in the watched process: no native library may be loaded before it is forked.
    from kmmlu_fast.command.flags import parse_config
    from kmmlu_fast.core.console import log_note
    from kmmlu_fast.engines.warm.config import WarmEngineConfig

    config = parse_config(WarmEngineConfig, argv, "python -m kmmlu_fast.serve_engine")
    if config.status or config.stop:
        print("\n".join(_status_lines() if config.status else _stop_lines()))
        return 0
    from kmmlu_fast.engines.warm.keeping import keep_engine_warm

    try:
        log_note(f"engine: ended ({keep_engine_warm(config)})")
    except KeyboardInterrupt:
        log_note("engine: ended by Ctrl-C")
        return 130
    return 0


def _status_lines() -> list[str]:
    from kmmlu_fast.engines.warm.running import describe_warm_engine, list_warm_engines

    return [describe_warm_engine(facts) for facts in list_warm_engines()] or ["no engine is kept warm"]


def _stop_lines() -> list[str]:
    from kmmlu_fast.engines.warm.running import stop_warm_engines

    return [f"process {pid}: stopping" for pid in stop_warm_engines()] or ["no engine is kept warm"]


if __name__ == "__main__":
    sys.exit(run_with_crash_guard(run_serve_engine_command))
