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
from kmmlu_fast.reporting.report_data import collect_report_data
from kmmlu_fast.reporting.terminal.screens import print_comparisons
from kmmlu_fast.reporting.wording.early_stopping import early_stopping_json, early_stopping_lines
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.runs.run import Run


def run_compare_command(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        config = parse_config(CompareConfig, argv, "python -m kmmlu_fast.compare")
        t = get_translator(config.lang)
        if config.json_file is not None:
            claim_outputs(
                [config.json_file], config_input_files(config), overwrite=config.overwrite, flag="--json-file"
            )
        runs, questions = load_runs(config, at_least=1 if config.group else 2, prefix=True)
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
        if config.json_file is not None:
            write_json_atomically(config.json_file, report_data_json(data, t))
        if config.format == "text":
            print_comparisons(data, config, t)
        else:
            print(format_report_data(config, data, t))

    return run_main(body)


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
