"""A run argument of ``compare`` and ``report`` -> ``Run``, whatever wrote it.

In: a string: a run directory; an lm-eval output (directory or ``results_*.json``); a predictions table
``FILE.csv`` or ``FILE.csv:COLUMN`` keyed by ``_config`` and ``_row``; or a score file (JSON or CSV by
subject). Optionally the dataset's frame, for the answer key. Out: one ``Run`` per run or column. Knows
nothing of statistics or reports.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from kmmlu_fast.core.errors import DataError, RunError
from kmmlu_fast.core.files import files_in
from kmmlu_fast.core.notes import log_as_warnings
from kmmlu_fast.core.reading import expand_path, read_csv
from kmmlu_fast.runs.lm_eval import find_lm_eval_files, read_lm_eval
from kmmlu_fast.runs.run import SCORE_SCHEMA, Run, count_subject_scores
from kmmlu_fast.runs.score_files import read_score_file
from kmmlu_fast.runs.store import load_run_directory
from kmmlu_fast.runs.tables import read_predictions_table


def load_all_runs(
    arguments: list[str], key: pl.DataFrame | None = None, split: str = "test", prefix: bool = False
) -> list[Run]:
    """Every argument's runs, with short, distinct names.

    ``key``: the dataset's frame (question_id, answer). ``prefix``: also load runs that stopped early.
    """
    runs = [run for argument in arguments for run in load_run_argument(argument, key, split, prefix)]
    log_as_warnings(text for run in runs for text in run.notes)
    return [replace(run, name=name) for run, name in zip(runs, short_run_names(runs), strict=True)]


def short_run_names(runs: list[Run]) -> list[str]:
    """Run directories' names without the fingerprint and the words that all of them share; the full names if
    that leaves duplicates.
    """
    split_names = [_name_words(run) for run in runs if run.kind == "run"]
    start, end = _count_shared_words(split_names), _count_shared_words([words[::-1] for words in split_names])
    if len(split_names) < 2 or start + end >= min(map(len, split_names)):
        start = end = 0
    names = []
    for run in runs:
        words = _name_words(run)
        names.append("-".join(words[start : len(words) - end]) if run.kind == "run" else run.name)
    if len(set(names)) < len(names):
        names = [run.name for run in runs]
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[place] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def _name_words(run: Run) -> list[str]:
    return run.name.removesuffix(f"-{run.config.get('fingerprint')}").split("-")


def _count_shared_words(names: list[list[str]]) -> int:
    """How many leading words all names share."""
    for place, words in enumerate(zip(*names, strict=False)):
        if len(set(words)) > 1:
            return place
    return min(map(len, names), default=0)


def load_run_argument(
    argument: str, key: pl.DataFrame | None = None, split: str = "test", prefix: bool = False
) -> list[Run]:
    """The runs of one argument; RunError or DataError if there are none, naming what is allowed."""
    table, column = _split_column(argument)
    path = expand_path(table, "run")
    if not path.exists():
        raise RunError(
            f"{argument}: does not exist; give a run directory, an lm-eval output, a score file, or a"
            " predictions table FILE.csv:COLUMN"
        )
    if path.is_dir() and (path / "config.json").is_file():
        return [replace(load_run_directory(path, prefix), source=argument)]
    if path.is_dir() or path.name.startswith("results_"):
        return [_load_lm_eval_run(path, argument, split)]
    if path.suffix == ".csv" and {"_config", "_row"} <= set(read_csv(path, DataError, lossy=True).columns):
        return read_predictions_table(path, column, key, split)
    if path.suffix in (".csv", ".json") and column is None:
        content = read_score_file(path)
        run = Run(
            name=path.stem,
            kind="scores",
            source=argument,
            predictions=None,
            scores=content.scores,
            facts=content.facts,
            notes=content.notes,
        )
        return [run]
    raise RunError(
        f"{argument}: is not a run directory, lm-eval output, score file (.json, .csv) or predictions table"
        " with _config and _row"
    )


def run_input_files(arguments: list[str]) -> list[Path]:
    """Every file that these arguments read: no output may overwrite one of them."""
    patterns = (
        "*.parquet",
        "config.json",
        "environment.json",
        "metrics.json",
        "probe.json",
        "**/results_*.json",
        "**/samples_*.jsonl",
    )
    paths = [expand_path(_split_column(argument)[0], "run") for argument in arguments]
    return [file for path in paths for file in files_in(path, *patterns)]


def _split_column(argument: str) -> tuple[str, str | None]:
    head, colon, tail = argument.rpartition(".csv:")
    return (head + ".csv", tail) if colon and tail else (argument, None)


def _load_lm_eval_run(path: Path, source: str, split: str) -> Run:
    if not find_lm_eval_files(path):
        raise RunError(
            f"{source}: holds neither config.json (a run) nor results_*.json or samples_*.jsonl (lm-eval)"
        )
    name, predictions, rows, facts = read_lm_eval(path, split)
    if predictions is None:
        scores = pl.DataFrame(rows, schema=SCORE_SCHEMA, orient="row")
    else:
        scores = count_subject_scores(predictions)
    return Run(name=name, kind="lm-eval", source=source, predictions=predictions, scores=scores, facts=facts)
