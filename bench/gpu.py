"""The whole set for one GPU in one command, with random weights in the A.X-4.0-Light shape: no hub and no
real weights needed.

    python -m bench.gpu                            everything, within 10 minutes (after: bash scripts/setup.sh gpu)
    python -m bench.gpu --needs                    which packages the parts import, and which are here
    python -m bench.gpu --shape tiny --minutes 1   tries the scripts out on any machine

In: the command line. Out: the parts' JSON files, one at once after each part, and a table. This door needs only
the standard library; ``gpu_visit`` runs the parts. Knows nothing of accuracy: random weights have none.
"""  # noqa: E501

from __future__ import annotations

import sys
import time

from bench.gpu_needs import describe_needs

STARTED = time.monotonic()


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if "--needs" in words:
        print(describe_needs())
        return 0
    try:
        from bench.gpu_visit import run_visit
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed\n{describe_needs()}", file=sys.stderr)
        return 2
    return run_visit(argv, STARTED)


if __name__ == "__main__":
    sys.exit(main())
