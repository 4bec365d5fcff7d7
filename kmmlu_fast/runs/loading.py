"""A run argument of ``compare`` and ``report`` -> ``Run``, whatever wrote it.

In: a string: a run directory; an lm-eval output (directory or ``results_*.json``); a predictions table
``FILE.csv`` or ``FILE.csv:COLUMN`` keyed by ``_config`` and ``_row``; or a score file (JSON or CSV by
subject). Out: one ``Run`` a column or run. The dataset's frame, where given, brings the key. Knows nothing of
statistics or of how results are shown.
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
    """Every argument's runs, with short, distinct names. ``key``: the dataset's frame (question_id, answer),
    where given.

    ``prefix``: runs that stopped early are read too.
    """
    runs = [run for argument in arguments for run in load_run_argument(argument, key, split, prefix)]
    log_as_warnings(text for run in runs for text in run.notes)
    return [replace(run, name=name) for run, name in zip(runs, short_run_names(runs), strict=True)]


def short_run_names(runs: list[Run]) -> list[str]:
    """Run directories' names without the fingerprint and without what all of them share; the
    full names where that is not enough.
    """
    made = [
        run.name.removesuffix(f"-{run.config.get('fingerprint')}").split("-")
        for run in runs
        if run.kind == "run"
    ]
    start, end = _count_shared_words(made), _count_shared_words([words[::-1] for words in made])
    names = []
    for run in runs:
        if run.kind == "run":
            words = run.name.removesuffix(f"-{run.config.get('fingerprint')}").split("-")
            names.append(
                "-".join(
                    words[start : len(words) - end]
                    if len(made) > 1 and start + end < min(map(len, made))
                    else words
                )
            )
        else:
            names.append(run.name)
    if len(set(names)) < len(names):
        names = [run.name for run in runs]
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[place] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def _count_shared_words(names: list[list[str]]) -> int:
    """How many leading words all names share."""
    return next(
        (place for place, words in enumerate(zip(*names, strict=False)) if len(set(words)) > 1),
        min(map(len, names), default=0),
    )


def load_run_argument(
    argument: str, key: pl.DataFrame | None = None, split: str = "test", prefix: bool = False
) -> list[Run]:
    """The runs of one argument; RunError or DataError where there is none, saying what would do."""
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
        found = read_score_file(path)
        return [
            Run(
                name=path.stem,
                kind="scores",
                source=argument,
                predictions=None,
                scores=found.scores,
                facts=found.facts,
                notes=found.notes,
            )
        ]
    raise RunError(
        f"{argument}: is no run directory, lm-eval output, score file (.json, .csv) or predictions table with"
        " _config and _row"
    )


def run_input_files(arguments: list[str]) -> list[Path]:
    """Every file that these arguments stand for: nothing that is written may be one of them."""
    patterns = (
        "*.parquet",
        "config.json",
        "environment.json",
        "metrics.json",
        "probe.json",
        "**/results_*.json",
        "**/samples_*.jsonl",
    )
    return [
        file
        for argument in arguments
        for file in files_in(expand_path(_split_column(argument)[0], "run"), *patterns)
    ]


def _split_column(argument: str) -> tuple[str, str | None]:
    head, colon, tail = argument.rpartition(".csv:")
    return (head + ".csv", tail) if colon and tail else (argument, None)


def _load_lm_eval_run(path: Path, source: str, split: str) -> Run:
    if not find_lm_eval_files(path):
        raise RunError(
            f"{source}: holds neither config.json (a run) nor results_*.json or samples_*.jsonl (lm-eval)"
        )
    name, predictions, scores, facts = read_lm_eval(path, split)
    counted = (
        count_subject_scores(predictions)
        if predictions is not None
        else pl.DataFrame(scores, schema=SCORE_SCHEMA, orient="row")
    )
    return Run(name=name, kind="lm-eval", source=source, predictions=predictions, scores=counted, facts=facts)
