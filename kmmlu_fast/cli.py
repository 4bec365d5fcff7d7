"""``kmmlu-fast <verb>``: the entry points under one name. Knows only where they stand."""

from __future__ import annotations

import importlib
import sys

from kmmlu_fast.core.guard import guarded

VERBS = {
    "eval": "evaluate a base model and its adapters",
    "exams": "list exams, or check one of your own",
    "sample": "draw clean fine-tuning data from weak subjects",
    "leakage": "find test questions in a training file",
    "train": "train a QLoRA adapter",
    "compare": "compare runs question by question",
    "report": "write an HTML report, exports and figures",
    "doctor": "what this computer has, and what will work on it",
}


def main(argv: list[str] | None = None) -> int:
    """Hand the rest of the command line to the verb's own main."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: kmmlu-fast VERB ...\n\n" + "\n".join(f"  {verb:<9}{text}" for verb, text in VERBS.items()))
        return 0
    if arguments[0] not in VERBS:
        print(f"error: unknown verb {arguments[0]!r}: allowed are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"kmmlu_fast.{arguments[0]}").main(arguments[1:]))


def run() -> int:
    """What the installed command calls: the verb in a watched process, so that a crash is told in words."""
    return guarded(main)
