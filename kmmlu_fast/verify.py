"""``python -m kmmlu_fast.verify BUNDLE``: do published numbers follow from the model?

In: a bundle, and the model to re-score a sample. Out: accepted, or why not. Exit codes: 0 accepted, 1
rejected, 2 faulty input. The work is in ``shipping.verify``.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.crash_guard import run_with_crash_guard
from kmmlu_fast.command.run import run_main


def run_verify_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> int:
        # Imported in the watched process: no native library may be loaded before it is forked.
        from kmmlu_fast.command.flags import parse_config
        from kmmlu_fast.shipping.config import VerifyConfig

        config = parse_config(VerifyConfig, argv, prog="python -m kmmlu_fast.verify")
        from kmmlu_fast.core.untrusted_text import strip_control_characters
        from kmmlu_fast.shipping.verify import verify_bundle

        result = verify_bundle(config)
        if result.questions:
            print(
                f"re-scored {result.questions} questions: {result.same_letters} letters equal,"
                f" {result.expected_flips:.1f} near ties expected to differ, rounding {result.noise:.3f} nats"
            )
        for reason in result.reasons:
            print(strip_control_characters(f"rejected: {reason}"))
        if result.accepted:
            print("accepted" if result.questions else "accepted: the numbers follow from the answers")
        return 0 if result.accepted else 1

    return run_main(body)


if __name__ == "__main__":
    sys.exit(run_with_crash_guard(run_verify_command))
