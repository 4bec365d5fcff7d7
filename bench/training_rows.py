"""Reading, checking and encoding training rows: CPU seconds until a training could load its model.

In: ``--rows`` invented rows of ``--chars`` characters (``guard``'s: chats of three turns, Alpaca, questions).
Out: CPU seconds of reading with the leakage check, as ``train`` does
both, and of encoding with the model's tokenizer. Bound: 20,000 rows of 500 characters are read within 15 s of
CPU. Knows nothing of steps (``training``).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, run_child, spread, table
from bench.guard import GuardConfig, write_file
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main

BOUND_SEC = 15.0  # for 20,000 rows of 500 characters


class TrainingRowsConfig(BenchConfig):
    """python -m bench.training_rows: reading and encoding a training file."""

    model: str = Field("demo", description="hub id, directory, or 'demo': whose tokenizer encodes")
    rows: PositiveInt = Field(20_000, description="rows of the file")
    chars: PositiveInt = Field(500, description="characters a row, about")
    part: Path | None = Field(None, description="internal: read this file in this process, print JSON only")


def measure_rows(config: TrainingRowsConfig, path: Path) -> dict[str, Any]:
    """CPU seconds for one file in this process."""
    from kmmlu_fast.models.model import load_tokenizer, resolve_model
    from kmmlu_fast.training.chat_setup import prepare_chat
    from kmmlu_fast.training.config import TrainConfig
    from kmmlu_fast.training.encoding import encode_training_set
    from kmmlu_fast.training.inputs import read_training_inputs

    settings: dict[str, Any] = {"data": [str(path)], "model": config.model, "dataset": config.dataset_name()}
    settings["allow_leakage"] = True  # the words are the dataset's own
    training = TrainConfig.model_validate({**settings, "num_train_epochs": 1})
    began = time.process_time()
    inputs = read_training_inputs(training)
    read_sec = time.process_time() - began
    model = resolve_model(config.model)
    tokenizer = load_tokenizer(model)
    began = time.process_time()
    chat = prepare_chat(training, model, tokenizer, inputs.rows)
    data = encode_training_set(training, inputs.rows, inputs.held_out, chat.tokenizer, inputs.asked)
    encode_sec = time.process_time() - began
    tokens = sum(len(row.input_ids) for row in data.rows)
    return {"rows": len(data.rows), "tokens": tokens, "read_sec": read_sec, "encode_sec": encode_sec}


def main(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    config = parse_config(TrainingRowsConfig, argv, "python -m bench.training_rows")
    if config.part is not None:
        print(json.dumps(measure_rows(config, config.part)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        note(f"training rows: {config.rows:,} rows are written")
        made = {"rows": config.rows, "chars": config.chars, "planted": config.rows + 1}
        write_file(GuardConfig(**made, dataset=config.dataset), path)
        flags = ["--part", str(path), "--dataset", config.dataset, "--model", config.model]
        found = [run_child(["bench.training_rows", *flags]) for _ in range(config.repeats)]
    seconds = {name: spread([one.pop(name) for one in found], 2) for name in ("read_sec", "encode_sec")}
    bound_sec = round(BOUND_SEC * config.rows * config.chars / 10_000_000, 2)
    within = seconds["read_sec"]["median"] <= bound_sec
    result = {**found[0], **seconds, "chars": config.chars, "bound_sec": bound_sec, "within": within}
    shown = {**found[0], **{name: one["median"] for name, one in seconds.items()}, "bound_sec": bound_sec}
    name = config.model.rsplit("/", 1)[-1]
    result["model"] = name
    finish("training_rows", config, argv, result, [table("Training rows, seconds of CPU", [shown])])
    return 0


if __name__ == "__main__":
    sys.exit(main())
