"""``python -m kmmlu_fast VERB`` is the same as ``kmmlu-fast VERB``."""

from __future__ import annotations

import sys

from kmmlu_fast.cli import run_cli

if __name__ == "__main__":
    sys.exit(run_cli())
