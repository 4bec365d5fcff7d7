"""The readers of runs, in the order in which they are asked. To add one: a module with a READER, and a line
here.

In: a ``RunSource``. Out: its runs, by the first reader that knows its shape; RunError if none does. Knows
nothing of any format.
"""

from __future__ import annotations

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.readers import (
    evalscope,
    hret,
    inspect_log,
    lighteval,
    lm_eval,
    opencompass,
    prediction_tables,
    score_files,
    wandb,
)
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.run import Run

READERS: tuple[RunReader, ...] = (
    inspect_log.READER,
    hret.READER,
    evalscope.READER,
    lighteval.READER,
    opencompass.READER,
    wandb.READER,
    lm_eval.READER,
    prediction_tables.READER,
    score_files.READER,
)


def read_foreign_runs(source: RunSource) -> list[Run]:
    """The runs of whatever another program, or its user, wrote."""
    reader = next((reader for reader in READERS if reader.detect(source)), None)
    if reader is not None:
        return reader.read(source)
    if source.path.is_dir():
        inner = sorted(path.parent.name for path in source.path.glob("*/config.json"))
        hint = (
            f"; it holds run directories: give {source.path}/{inner[0]}, or {source.path}/*" if inner else ""
        )
        raise RunError(
            f"{source.argument}: holds neither config.json (a run) nor results_*.json or samples_*.jsonl"
            f" (lm-eval), and no output of another known program{hint}"
        )
    raise RunError(
        f"{source.argument}: is not a run directory, lm-eval output, inspect log, score file (.json, .csv) or"
        " predictions table with _config and _row"
    )
