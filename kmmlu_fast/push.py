"""``python -m kmmlu_fast.push DIR --repo ORG/NAME``: publish a model with its numbers, or show what would be.

In: flags. Out: the published paths on stdout. The work is in ``shipping.push``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main


def run_push_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        # Imported in the watched process: no native library may be loaded before it is forked.
        from kmmlu_fast.command.flags import parse_config
        from kmmlu_fast.shipping.config import PushConfig

        config = parse_config(PushConfig, argv, prog="python -m kmmlu_fast.push")
        from kmmlu_fast.core.untrusted_text import strip_control_characters
        from kmmlu_fast.shipping.push import push_directory

        push = push_directory(config)
        for path in push.paths:
            print(strip_control_characters(f"  {path}"))
        print(f"published: {push.url}" if push.url else "dry run: nothing was sent")

    return run_main(body)


if __name__ == "__main__":
    sys.exit(run_with_crash_guard(run_push_command))
