"""Check the shipped table of published figures, and print it: python scripts/check_published.py"""

from __future__ import annotations

import datetime
import sys
from collections import Counter

from kmmlu_fast.runs.published import load_published_figures


def main() -> int:
    figures = load_published_figures()  # types, ranges and addresses are checked by the model
    faults = []
    seen = Counter((each.model, each.protocol, each.source) for each in figures)
    faults += [
        f"{model} stands twice for {source}" for (model, _, source), count in seen.items() if count > 1
    ]
    today = datetime.datetime.now(datetime.UTC).date()
    faults += [f"{each.model}: {each.date} is in the future" for each in figures if each.date > today]
    for each in figures:
        print(
            f"{each.figure:6.2f}  {each.model:40} {each.metric:8} {each.date}  {each.protocol}  {each.source}"
        )
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
