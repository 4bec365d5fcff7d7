"""Check the shipped published figures and answers, and print them: python scripts/check_published.py"""

from __future__ import annotations

import datetime
import sys
from collections import Counter

from kmmlu_fast.runs.loading import load_run_argument
from kmmlu_fast.runs.published import load_published_answers, load_published_figures


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
    models = {name for each in figures for name in (each.model.lower(), each.model.lower().split("/")[1])}
    for each in load_published_answers().runs:
        (run,) = load_run_argument(f"published:{each.name}")
        unread = run.frame["prediction"].null_count()
        print(
            f"{100 * run.micro:6.2f}  {each.model:40} {each.name}, {each.num_fewshot} exemplars,"
            f" {unread} unread"
        )
        if (run.correct, unread) != (each.correct, each.unread):
            faults.append(f"{each.name}: {run.correct} correct and {unread} unread, not as declared")
        if {each.name, each.model.lower()} & models:
            faults.append(f"{each.name}: a published figure has this name too")
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
