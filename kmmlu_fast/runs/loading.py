"""A run argument of ``compare`` and ``report`` -> ``Run``, whatever wrote it.

In: a string: a run directory, ``published:NAME``, or what one of ``readers.registry`` knows (lm-eval,
inspect, tables, score files, ...), perhaps with a choice behind a colon. Optionally the dataset's frame, for
the answer key. Out: one ``Run`` per run or column. Knows nothing of statistics or reports.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.files import files_in
from kmmlu_fast.core.notes import log_as_warnings
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.runs.published import is_published_argument
from kmmlu_fast.runs.readers.published_answers import read_published_runs
from kmmlu_fast.runs.readers.registry import read_foreign_runs
from kmmlu_fast.runs.readers.source import RunSource, run_path_exists, split_run_argument
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import load_run_directory


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
    if is_published_argument(argument):
        return read_published_runs(argument, key, split)
    text, choice = split_run_argument(argument)
    path = expand_path(text, "run")
    if not run_path_exists(text):
        raise RunError(
            f"{argument}: does not exist; give a run directory, an lm-eval output, an inspect log, a score"
            " file, a predictions table (FILE.csv, or FILE.csv:COLUMN), or published:NAME"
        )
    if path.is_dir() and (path / "config.json").is_file():
        if choice is not None:
            raise RunError(f"{argument}: {text} is one run; leave out :{choice}")
        return [replace(load_run_directory(path, prefix), source=argument)]
    return read_foreign_runs(RunSource(argument=argument, path=path, choice=choice, key=key, split=split))


def only_run(argument: str, runs: list[Run]) -> Run:
    """The one run that an argument holds; RunError, with how to name one, if it holds several."""
    if len(runs) == 1:
        return runs[0]
    names = ", ".join(run.name for run in runs[:5]) + (", ..." if len(runs) > 5 else "")
    first = f"{argument.removesuffix(':*')}:{runs[0].name}"
    if is_published_argument(argument):
        first = runs[0].source
    raise RunError(f"{argument}: holds {len(runs)} runs ({names}); name one, such as {first}")


def run_input_files(arguments: list[str]) -> list[Path]:
    """Every file that these arguments read: no output may overwrite one of them."""
    patterns = (
        "*.parquet",
        "config.json",
        "environment.json",
        "metrics.json",
        "probe.json",
        "**/*.json",
        "**/*.jsonl",
        "*.eval",
    )
    named = [argument for argument in arguments if not is_published_argument(argument)]
    paths = [expand_path(split_run_argument(argument)[0], "run") for argument in named]
    return [file for path in paths for file in files_in(path, *patterns)]
