"""The leakage guard over a file of a million rows: seconds, peak memory, and what it finds of the planted.

In: ``--rows`` invented rows of ``--chars`` characters in the forms that people have (chats of three turns,
Alpaca, multiple-choice questions), written to a JSONL file, their words drawn by frequency from the dataset's
own train split; into every ``--planted``-th row a test question is put, in the middle of what is said. Out:
what ``python -m kmmlu_fast.leakage FILE`` takes from the file to the pairs. Bounds: a million rows of 500
characters within 10 minutes and 4 GB on two cores. Knows nothing of how overlap is found.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, peak_memory_bytes, run_child, spread, table
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.schema import Question

BOUND_SEC, BOUND_GB = 600.0, 4.0  # for a million rows of 500 characters on two cores
FORMS = ("chat", "alpaca", "chat", "exam")  # row by row, in turn


class GuardConfig(BenchConfig):
    """python -m bench.guard: the leakage guard over a large training file."""

    rows: PositiveInt = Field(1_000_000, description="rows of the file")
    chars: PositiveInt = Field(500, description="characters a row, about")
    planted: PositiveInt = Field(1000, description="every how many rows one holds a test question")
    part: Path | None = Field(None, description="internal: check this file in this process, print JSON only")


class Sentences:
    """Texts of a wanted length, of sentences whose words are drawn by their frequency."""

    chars, kept = 80, 50_000

    def __init__(self, texts: Sequence[str], seed: int) -> None:
        counted = Counter(word for text in texts for word in text.split())
        self.draw = random.Random(seed)
        mean = sum(len(word) * count for word, count in counted.items()) / counted.total() + 1
        words = self.draw.choices(
            list(counted), weights=list(counted.values()), k=round(self.kept * self.chars / mean)
        )
        size = len(words) // self.kept
        self.sentences = [" ".join(words[start : start + size]) for start in range(0, len(words), size)]

    def text(self, chars: int) -> str:
        """About ``chars`` characters."""
        whole = " ".join(self.draw.choice(self.sentences) for _ in range(-(-chars // self.chars)))
        return whole[:chars].strip()


def rows(config: GuardConfig, words: Sentences, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """The file's rows; the planted ones hold a test question that no marker announces."""
    for number in range(config.rows):
        quoted = ""
        if number % config.planted == 0:
            question = words.draw.choice(questions)
            quoted = " ".join([question.question, *question.options])
        yield _row(FORMS[number % len(FORMS)], config.chars, words, quoted)


def _row(form: str, chars: int, words: Sentences, quoted: str) -> dict[str, Any]:
    if form == "alpaca":
        asked, told = (words.text(chars // 2) for _ in range(2))
        return {"instruction": f"{asked} {quoted}".strip(), "output": told}
    if form == "exam" and not quoted:
        options = [words.text(chars // 10) for _ in range(4)]
        return {"question": words.text(chars * 6 // 10), "options": options, "answer": "ABCD"[chars % 4]}
    turns = [words.text(chars // 6) for _ in range(6)]
    turns[2] = f"{turns[2]} {quoted} {turns[3]}".strip()
    roles = ("user", "assistant") * 3
    return {"messages": [{"role": r, "content": text} for r, text in zip(roles, turns, strict=True)]}


def write_file(config: GuardConfig, path: Path) -> None:
    """``rows`` as JSONL; not timed."""
    from kmmlu_fast.data.dataset import load_frame, load_questions

    name = config.dataset_name()
    texts = load_frame(name, "train")["question"].to_list()
    words = Sentences(texts, seed=0)
    with path.open("w", encoding="utf-8") as file:
        for row in rows(config, words, load_questions(name, "test")):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def measure(config: GuardConfig, path: Path) -> dict[str, Any]:
    """The check of one file in this process."""
    from kmmlu_fast.contamination.check import find_table_overlap, load_guarded_exams

    began = time.perf_counter()
    guarded = load_guarded_exams(config.dataset_name(), [])
    pairs, count = find_table_overlap(str(path), guarded.frame)
    seconds = time.perf_counter() - began
    flagged = set(pairs["train_id"])
    planted = [f"row {number + 1}" for number in range(0, count, config.planted)]
    return {
        "rows": count,
        "guarded": len(guarded.frame),
        "sec": seconds,
        "pairs": len(pairs),
        "flagged": len(flagged),
        "planted": len(planted),
        "found": sum(row in flagged for row in planted),
        "peak_gb": round(peak_memory_bytes() / 1e9, 3),
    }


def main(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    config = parse_config(GuardConfig, argv, "python -m bench.guard")
    if config.part is not None:
        print(json.dumps(measure(config, config.part)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        note(f"guard: {config.rows:,} rows are written")
        write_file(config, path)
        size = path.stat().st_size
        note(f"guard: {size / 1e9:.2f} GB are checked")
        flags = ["--part", str(path), "--dataset", config.dataset, "--planted", str(config.planted)]
        found = [run_child(["bench.guard", *flags]) for _ in range(config.repeats)]
    if any(one["found"] < one["planted"] for one in found):
        raise RunError(f"the guard found {found[0]['found']} of {found[0]['planted']} planted questions")
    seconds = spread([one.pop("sec") for one in found], 1)
    row = {**found[0], "peak_gb": max(one["peak_gb"] for one in found)}
    bound_sec = BOUND_SEC * config.rows * config.chars / 500_000_000
    within = {"sec": seconds["median"] <= bound_sec, "memory": row["peak_gb"] <= BOUND_GB}
    result = {**row, "chars": config.chars, "file_gb": round(size / 1e9, 3), "sec": seconds}
    result |= {"bound_sec": round(bound_sec, 1), "bound_gb": BOUND_GB, "within": within}
    shown = {**row, "sec": seconds["median"], "bound_sec": round(bound_sec, 1), "bound_gb": BOUND_GB}
    finish("guard", config, argv, result, [table("Leakage guard over a training file", [shown])])
    return 0


if __name__ == "__main__":
    sys.exit(main())
