"""The leakage guard at scale: a training file of a million rows of 500 characters against a test split,
streamed.

In: a number of rows; texts are made of the dataset's own train questions, the hardest there are, for they
share wordings with the test.
Out: seconds of the whole (reading, checking) and the peak memory, and the rate that says what a million rows
would take. Bounds: 600 s
and 4 GiB for a million rows on two cores. Knows nothing of engines.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, peak_memory_bytes, table
from kmmlu_fast.core.console import run_main
from kmmlu_fast.core.flags import parse

MILLION = 1_000_000
BOUND_SEC, BOUND_BYTES = 600.0, 4 * 2**30


class GuardConfig(BenchConfig):
    """python -m bench.guard: seconds and memory of the leakage guard over a large training file."""

    rows: PositiveInt = Field(MILLION, description="rows of the file")
    characters: PositiveInt = Field(500, description="characters a row")


def write_rows(path: Path, dataset: str, rows: int, characters: int) -> None:
    """Chat rows of that many characters, made of train questions, seeded."""
    from kmmlu_fast.data.dataset import load_questions

    with warnings.catch_warnings(action="ignore"):
        texts = [" ".join((q.question, *q.options)) for q in load_questions(dataset, "train")]
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            text = ""
            while len(text) < characters:
                text += draw.choice(texts) + "\n"
            turns = [{"role": "user", "content": text[:characters]}, {"role": "assistant", "content": "네."}]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        from kmmlu_fast.data.guard import check_training_rows
        from kmmlu_fast.data.overlap import guarded
        from kmmlu_fast.data.training_rows import read_training_rows

        config = parse(GuardConfig, argv, "python -m bench.guard")
        name = config.dataset_name()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            note(f"writing {config.rows:,} rows")
            write_rows(path, name, config.rows, config.characters)
            target = guarded(name)
            began, cpu = time.perf_counter(), time.process_time()
            pairs = check_training_rows(read_training_rows(str(path)), target)
            seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        peak = peak_memory_bytes()
        million = seconds * MILLION / config.rows
        result = {
            "rows": config.rows,
            "characters": config.characters,
            "test_questions": len(target),
            "pairs": len(pairs),
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
            "rows_per_sec": round(config.rows / seconds, 1),
            "peak_bytes": peak,
            "seconds_a_million": round(million, 1),
            "within_bounds": million <= BOUND_SEC and peak <= BOUND_BYTES,
        }
        finish("guard", config, argv, result, [table("leakage guard over a training file", [result])])

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
