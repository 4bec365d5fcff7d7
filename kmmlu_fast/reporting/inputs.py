"""The inputs that ``compare`` and ``report`` name: runs, dataset, exam, question texts.

In: flags. Out: loaded runs with the base first, recipes' runs, the dataset's frame. Knows nothing of how they
are compared or shown.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.exam_comparison import group_runs_by_exam
from kmmlu_fast.analysis.latest import keep_latest
from kmmlu_fast.core.errors import ConfigError, KmmluError
from kmmlu_fast.core.files import read_json
from kmmlu_fast.core.reading import expand_path
from kmmlu_fast.data.dataset import dataset_input_files as dataset_files
from kmmlu_fast.data.default_exam import DEFAULT_EXAM
from kmmlu_fast.data.exam import Exam
from kmmlu_fast.data.exam_lookup import find_exam
from kmmlu_fast.data.exam_rows import load_exam
from kmmlu_fast.reporting.config import PairsConfig, ReportConfig, parse_recipe_groups
from kmmlu_fast.runs.loading import load_all_runs, run_input_files
from kmmlu_fast.runs.lookup import drop_other_bases
from kmmlu_fast.runs.lookup import resolve_run_names as by_name
from kmmlu_fast.runs.run import Run


def resolve_run_paths(config: PairsConfig) -> list[str]:
    """The run arguments as paths: short names and --latest looked up, once for a command."""
    return list(_resolve_run_paths(config))


@keep_latest
def _resolve_run_paths(config: PairsConfig) -> tuple[str, ...]:
    return tuple(by_name(list(config.runs), config.runs_dir, config.latest))


def load_runs(
    config: PairsConfig, at_least: int, prefix: bool = False
) -> tuple[list[Run], pl.DataFrame | None]:
    """The runs of the arguments, the base first; and the dataset's questions if a dataset is known.

    ``prefix``: runs that stopped early are read too.
    """
    questions = load_questions_frame(config)
    runs = load_all_runs(resolve_run_paths(config), questions, config.split, prefix)
    runs = drop_other_bases(_name_exam(runs, questions, config), config.base)
    if len(runs) < at_least:
        wanted = "a base and at least one other, such as base lora" if at_least > 1 else "one, such as base"
        given = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        raise ConfigError(f"{given} given, {at_least} needed: name {wanted} (a path or a name), or --latest")
    if config.base is not None:
        chosen = [run for run in runs if config.base in (run.name, run.source, run.config.get("name"))]
        if not chosen:
            raise ConfigError(
                f"--base {config.base!r} is not among the runs {', '.join(run.name for run in runs)}"
            )
        runs = [chosen[0], *[run for run in runs if run is not chosen[0]]]
    return runs, questions


def _name_exam(runs: list[Run], questions: pl.DataFrame | None, config: PairsConfig) -> list[Run]:
    """A table says of no exam that it is of; it is of the one whose questions it answers."""
    exam = None if questions is None else resolve_exam(config)
    if exam is None or questions is None:
        return runs
    ids, sizes = questions["question_id"].implode(), dict(questions.group_by("subject").len().iter_rows())
    named = {"name": exam.name, "title": exam.title or exam.name, "licence": exam.licence}

    def answers_it(run: Run) -> bool:
        if run.predictions is not None:
            return bool(run.predictions["question_id"].is_in(ids).all())
        return all(total <= sizes.get(name, 0) for name, total in run.scores["subject", "total"].iter_rows())

    return [
        replace(run, config={**run.config, "exam": named})
        if run.kind in ("table", "scores") and answers_it(run)
        else run
        for run in runs
    ]


def load_recipe_groups(
    config: PairsConfig, questions: pl.DataFrame | None, base: Run
) -> dict[str, list[Run]]:
    """--group's recipes: name -> its runs; ConfigError if one has another exam than the base."""
    groups = {}
    for name, arguments in parse_recipe_groups(config).items():
        groups[name] = _name_exam(load_all_runs(arguments, questions, config.split), questions, config)
        for run in groups[name]:
            if run.exam != base.exam:
                raise ConfigError(
                    f"--group {name}: {run.name} is of {run.exam_title}, {base.name} of {base.exam_title};"
                    " name runs of one exam"
                )
    return groups


def select_exam_runs(runs: list[Run], exam: str | None) -> list[Run]:
    """The runs of ``exam`` (default: the first run's), under short names. ConfigError if it has none."""
    groups = group_runs_by_exam(runs)
    if exam is None:
        return next(iter(groups.values()))
    selected = groups.get(exam) or groups.get(find_exam(exam).name)
    if not selected:
        raise ConfigError(f"--exam {exam}: none of the runs is of it; they are of {', '.join(groups)}")
    return selected


def load_questions_frame(config: PairsConfig) -> pl.DataFrame | None:
    """The dataset's questions if a dataset is known."""
    from kmmlu_fast.data.dataset import read_frame

    dataset, exam = resolve_dataset(config), resolve_exam(config)
    if exam is not None:
        available = dataset is not None or exam.path is not None
        # faulty rows were reported by the evaluation
        return load_exam(exam, config.split, dataset) if available and config.dataset != "none" else None
    return None if dataset is None else read_frame(dataset, config.split).log_and_unwrap()


def resolve_dataset(config: PairsConfig) -> str | None:
    """--dataset; by default the run directories' own, if it is available locally: the sample, a directory, or
    a hub id whose files are in the hub's cache.
    """
    if config.dataset is not None:
        return None if config.dataset == "none" else config.dataset
    named = set()
    for document in _read_run_configs(config):
        as_asked = _dict_field(document, "config").get("dataset") if _exam_name(document) == "kmmlu" else None
        named.add(str(_dict_field(document, "exam").get("dataset") or as_asked or ""))
    only = named.pop() if len(named) == 1 else None
    if not only:
        return None
    if only == "sample" or expand_path(only).exists():
        return only
    root = cached_dataset_root(only)
    return str(root) if root is not None and any((root / "data").glob(f"*-{config.split}.csv")) else None


def cached_dataset_root(dataset: str) -> Path | None:
    """A hub id's folder in the hub's cache; None if it is not there. Makes no network request."""
    if dataset.count("/") != 1:
        return None
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(dataset, repo_type="dataset", local_files_only=True))
    except Exception:  # the hub client raises a dozen kinds; all mean that it is not cached
        return None


def resolve_exam(config: PairsConfig) -> Exam | None:
    """The declaration of the questions' exam; None for KMMLU, or if it no longer exists."""
    declared = config.exam
    for document in _read_run_configs(config):
        declared = _dict_field(document, "exam").get("declaration") or declared
    if declared is None:
        return None
    try:
        exam = find_exam(str(declared))
    except KmmluError:
        return None
    return None if exam.name == DEFAULT_EXAM else exam


def _read_run_configs(config: PairsConfig) -> list[dict[str, Any]]:
    """config.json of the run directories of the exam in focus: --exam if a run is of it, else the first's."""
    paths = [expand_path(argument, "run") / "config.json" for argument in resolve_run_paths(config)]
    documents = [read_json(path) for path in paths if path.is_file()]
    names = [_exam_name(document) for document in documents]
    focus = config.exam if config.exam in names else next(iter(names), None)
    return [document for document, name in zip(documents, names, strict=True) if name == focus]


def _exam_name(document: dict[str, Any]) -> str:
    return str(_dict_field(document, "exam").get("name") or "kmmlu")


def _dict_field(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def config_input_files(config: PairsConfig) -> list[Path]:
    """Every file that the flags name as input: none of them is ever written to."""
    files = [expand_path(entry, "--overlap") for entry in config.overlap if entry not in ("auto", "none")]
    plan = getattr(config, "plan", None)
    if plan:
        files.append(plan)
    grouped = [name for members in parse_recipe_groups(config).values() for name in members]
    runs = run_input_files([*resolve_run_paths(config), *grouped])
    return [*runs, *files, *dataset_files(config.dataset)]


def default_report_path(config: ReportConfig) -> Path:
    """report.html in the run directory if only one is named, else in the current directory."""
    paths = resolve_run_paths(config)
    if len(paths) == 1:
        folder = expand_path(paths[0], "run")
        if (folder / "config.json").is_file():
            return folder / "report.html"
    return Path("report.html")
