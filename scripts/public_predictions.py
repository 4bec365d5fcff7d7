"""Join the public predictions of hsr87/evaluate-llm-on-korean-dataset into one table that compare reads.

    git clone https://github.com/hsr87/evaluate-llm-on-korean-dataset
    python scripts/public_predictions.py evaluate-llm-on-korean-dataset/results > predictions.csv
    kmmlu-fast compare predictions.csv:FIRST predictions.csv:SECOND

In: the folder of its results, one ``[KMMLU] NAME.csv`` per model (category, answer, pred; each subject's rows
in the order of its test file). Out: question ids, keys and letters, on stdout. A file with other questions or
keys than the first is named and left out. Eight of these runs ship as ``published:NAME``
(``scripts/build_published_answers.py``; the head of published_answers.yaml says under what licence).
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path

PREFIX = "[KMMLU] "
Answers = dict[str, tuple[str, str]]  # question id -> key, letter


def read_answers(path: Path) -> Answers:
    """The key and the letter of each question; a letter that is not A to D is left empty."""
    counts: Counter[str] = Counter()
    answers: Answers = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            subject = row["category"].strip().replace(" ", "-")
            letter = (row["pred"] or "").strip()
            answers[f"{subject}/test/{counts[subject]}"] = (
                row["answer"].strip(),
                letter if letter in tuple("ABCD") else "",
            )
            counts[subject] += 1
    return answers


def join_answers(folder: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows. ValueError if the folder has no results of KMMLU."""
    models: dict[str, Answers] = {}
    keys: dict[str, str] = {}
    for path in sorted(folder.glob("[[]KMMLU] *.csv")):
        answers = read_answers(path)
        own_keys = {question: key for question, (key, _) in answers.items()}
        keys = keys or own_keys
        if own_keys == keys:
            models[path.stem.removeprefix(PREFIX).replace(" ", "-")] = answers
        else:
            print(f"left out, other questions or keys: {path.name}", file=sys.stderr)
    if not models:
        raise ValueError(f"{folder}: no file '{PREFIX}NAME.csv'; give the folder results of the repository")
    rows = [
        [question, key, *(answers[question][1] for answers in models.values())]
        for question, key in keys.items()
    ]
    return ["question_id", "answer", *models], rows


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print("usage: python scripts/public_predictions.py RESULTS > predictions.csv", file=sys.stderr)
        return 2
    try:
        header, rows = join_answers(Path(argv[0]))
    except (ValueError, KeyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    csv.writer(sys.stdout).writerows([header, *rows])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
