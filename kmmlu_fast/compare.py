"""``python -m kmmlu_fast.compare FIRST SECOND...``: is the second better, by how much, in which subjects, and
is it letter habit?

In: two or more runs. Out: one screen of text and, on request, a JSON file with everything.
"""

from __future__ import annotations

import sys

import polars as pl

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import claim_outputs, write_json_atomically
from kmmlu_fast.reporting.comparison_settings import make_comparison_settings
from kmmlu_fast.reporting.config import CompareConfig
from kmmlu_fast.reporting.early_pairs import compare_early_stopped
from kmmlu_fast.reporting.files.formats import format_report_data
from kmmlu_fast.reporting.files.frames import report_data_json
from kmmlu_fast.reporting.inputs import config_input_files, load_recipe_groups, load_runs, select_exam_runs
from kmmlu_fast.reporting.report_data import ReportData, collect_report_data
from kmmlu_fast.reporting.terminal.screens import print_comparisons
from kmmlu_fast.reporting.wording.early_stopping import early_stopping_json, early_stopping_lines
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.published_text import published_json, published_lines
from kmmlu_fast.runs.published import PUBLISHED_EXAM, PublishedFigure, find_published_figures
from kmmlu_fast.runs.run import Run, refuse_early_stopped_runs


def run_compare_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        config = parse_config(CompareConfig, argv, "python -m kmmlu_fast.compare")
        figures = [each for name in config.published_arguments for each in find_published_figures(name)]
        config = config.without_published()
        if config.json_file is not None:
            claim_outputs(
                [config.json_file], config_input_files(config), overwrite=config.overwrite, flag="--json-file"
            )
        runs, questions = load_runs(config, at_least=1 if config.group or figures else 2, prefix=True)
        if figures:
            refuse_early_stopped_runs(runs)
            _check_published_exam(runs)
        if figures and len(runs) == 1 and not config.group:
            _show_published(runs, figures, config)
            return
        if any(run.prefix is not None for run in runs):
            runs = _runs_of_one_exam(runs, config.exam)
        if any(run.prefix is not None for run in runs):  # still, in the chosen exam
            _print_early_comparison(runs, config, questions)
            return
        base = select_exam_runs(runs, config.exam)[0]
        settings = make_comparison_settings(config, questions, what_moved=config.what_moved)
        data = collect_report_data(
            runs,
            settings,
            questions,
            exam=config.exam,
            groups=load_recipe_groups(config, questions, base),
            strictly=True,
            audit=config.key_audit,
        )
        _show_comparisons(data, figures, config)

    return run_main(body)


def _show_comparisons(data: ReportData, figures: list[PublishedFigure], config: CompareConfig) -> None:
    """Everything about the runs, and published figures beside each."""
    t = get_translator(config.lang)
    if config.json_file is not None:
        document = report_data_json(data, t)
        if figures:
            document["published"] = [row for run in data.runs for row in published_json(run, figures)]
        write_json_atomically(config.json_file, document)
    if config.format == "text":
        print_comparisons(data, config, t)
    else:
        print(format_report_data(config, data, t))
    for run in data.runs if figures else []:
        print("\n".join(published_lines(run, figures, t)))


def _check_published_exam(runs: list[Run]) -> None:
    """ConfigError if a run is of other questions than the published figures."""
    for run in runs:
        what = run.exam_title
        if (run.config.get("exam") or {}).get("dataset") == "sample":
            what = "the packaged sample"
        elif run.facts.get("split", "test") != "test":
            what = f"the {run.facts['split']} split"
        if what != PUBLISHED_EXAM:
            raise ConfigError(
                f"{run.name} is of {what}: published figures are of {PUBLISHED_EXAM}'s test questions"
            )


def _show_published(runs: list[Run], figures: list[PublishedFigure], config: CompareConfig) -> None:
    """One run beside published figures."""
    if config.json_file is not None:
        write_json_atomically(config.json_file, {"published": published_json(runs[0], figures)})
    print("\n".join(published_lines(runs[0], figures, get_translator(config.lang))))


def _print_early_comparison(runs: list[Run], config: CompareConfig, questions: pl.DataFrame | None) -> None:
    """Compare runs that stopped early, by the sequential test alone."""
    if len(runs) < 2:
        raise ConfigError(
            f"nothing to compare: {runs[0].name} is the only run of its exam; name two runs of one exam"
        )
    settings = make_comparison_settings(config, sizes_from=questions)
    early = compare_early_stopped(runs, settings)
    if config.json_file is not None:
        write_json_atomically(config.json_file, early_stopping_json(runs, early, config.lang))
    print("\n".join(early_stopping_lines(runs, early, config.lang)))


def _runs_of_one_exam(runs: list[Run], exam: str | None) -> list[Run]:
    """The runs of the chosen exam. ConfigError if the runs are of several exams and none is chosen."""
    names = list(dict.fromkeys(run.exam for run in runs))
    if exam is None and len(names) > 1:
        raise ConfigError(
            "runs that stopped early are compared one exam at a time, and these are of"
            f" {', '.join(names)}: give --exam {names[0]}"
        )
    return select_exam_runs(runs, exam)


if __name__ == "__main__":
    sys.exit(run_compare_command())
