"""Reading a score file of one model, for tests."""

from pathlib import Path

from kmmlu_fast.runs.readers.score_files import read_score_runs
from kmmlu_fast.runs.readers.source import RunSource
from kmmlu_fast.runs.run import Run


def read_score_run(path: Path) -> Run:
    [run] = read_score_runs(RunSource(argument=str(path), path=path))
    return run
