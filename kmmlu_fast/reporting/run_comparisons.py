"""Comparing runs as the command does: one screen of text, files on request, and a gate's exit code.

In: the configuration of ``compare``. Out: text on stdout, files, and the exit code: 1 if --fail-if is met.
Knows nothing of how a comparison is computed.
"""

from __future__ import annotations

import json

import polars as pl

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import claim_outputs, write_bytes_atomically, write_json_atomically
from kmmlu_fast.machine.trackers import require_trackers, send_results
from kmmlu_fast.reporting.comparison_settings import make_comparison_settings
from kmmlu_fast.reporting.config import CompareConfig
from kmmlu_fast.reporting.early_pairs import compare_early_stopped
from kmmlu_fast.reporting.files.formats import format_report_data, lines_to_markdown
from kmmlu_fast.reporting.files.frames import report_data_json
from kmmlu_fast.reporting.inputs import config_input_files, load_recipe_groups, load_runs, select_exam_runs
from kmmlu_fast.reporting.quality_gate import (
    GatedComparison,
    gate_junit_file,
    gate_line,
    gated_comparisons,
    gated_early_comparisons,
)
from kmmlu_fast.reporting.report_data import ReportData, collect_report_data
from kmmlu_fast.reporting.terminal.screens import print_comparisons
from kmmlu_fast.reporting.tracking import tracked_comparisons, tracked_early_comparisons
from kmmlu_fast.reporting.wording.early_stopping import early_stopping_json, early_stopping_lines
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.published_text import published_json, published_lines
from kmmlu_fast.runs.published import (
    PUBLISHED_EXAM,
    PublishedFigure,
    find_published_figures,
    is_published_argument,
)
from kmmlu_fast.runs.run import Run, refuse_early_stopped_runs


def compare_and_print(config: CompareConfig) -> int:
    """Everything that ``compare`` does. Returns the exit code."""
    config, figures = _split_published_figures(config)
    require_trackers(config.report_to)
    outputs = [path for path in (config.json_file, config.junit) if path is not None]
    claim_outputs(
        outputs, config_input_files(config), overwrite=config.overwrite, flag="--json-file, --junit"
    )
    runs, questions = load_runs(config, at_least=1 if config.group or figures else 2, prefix=True)
    if figures:
        refuse_early_stopped_runs(runs)
        _check_published_exam(runs)
    if figures and len(runs) == 1 and not config.group:
        _show_published(runs, figures, config)
        return _close_gate(config, [])
    if any(run.prefix is not None for run in runs):
        runs = _runs_of_one_exam(runs, config.exam)
    if any(run.prefix is not None for run in runs):  # still, in the chosen exam
        return _print_early_comparison(runs, config, questions)
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
    if config.report_to:
        send_results(config.report_to, tracked_comparisons(data))
    return _close_gate(config, gated_comparisons(data, get_translator(config.lang)))


def _split_published_figures(config: CompareConfig) -> tuple[CompareConfig, list[PublishedFigure]]:
    """The configuration with runs only, and the published figures that were named among them."""
    figures: list[PublishedFigure] = []
    runs = []
    for name in config.runs:
        found = find_published_figures(name) if is_published_argument(name) else []
        figures += found
        if not found:
            runs.append(name)
    if figures and config.format not in ("text", "md"):
        raise ConfigError("published figures go with --format text or md; for programs give --json-file")
    return config.model_copy(update={"runs": runs}), figures


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


def _close_gate(config: CompareConfig, gated: list[GatedComparison]) -> int:
    """The exit code, 1 if a comparison fails --fail-if; and the JUnit file."""
    if config.fail_if is None and config.junit is None:
        return 0
    if not gated:
        raise ConfigError("nothing was compared; give a base and at least one other run")
    if config.junit is not None:
        write_bytes_atomically(config.junit, gate_junit_file(gated, config.fail_if or "worse"))
    if config.fail_if is None:
        return 0
    log_note(gate_line(gated, config.fail_if))
    return 1 if any(each.fails(config.fail_if) for each in gated) else 0


def _print_early_comparison(runs: list[Run], config: CompareConfig, questions: pl.DataFrame | None) -> int:
    """Compare runs that stopped early, by the sequential test alone. Returns the exit code."""
    if len(runs) < 2:
        raise ConfigError(
            f"nothing to compare: {runs[0].name} is the only run of its exam; name two runs of one exam"
        )
    if config.format not in ("text", "md", "json"):
        raise ConfigError(
            f"--format {config.format}: runs that stopped early have no table of subjects; give text, md or"
            " json, or finish them (the same eval command without --until-decided)"
        )
    settings = make_comparison_settings(config, sizes_from=questions)
    early = compare_early_stopped(runs, settings)
    document = early_stopping_json(runs, early, config.lang)
    if config.json_file is not None:
        write_json_atomically(config.json_file, document)
    lines = early_stopping_lines(runs, early, config.lang)
    if config.format == "json":
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        print(lines_to_markdown(lines) if config.format == "md" else "\n".join(lines))
    if config.report_to:
        send_results(config.report_to, tracked_early_comparisons(early))
    return _close_gate(config, gated_early_comparisons(early, get_translator(config.lang, "early")))


def _runs_of_one_exam(runs: list[Run], exam: str | None) -> list[Run]:
    """The runs of the chosen exam. ConfigError if the runs are of several exams and none is chosen."""
    names = list(dict.fromkeys(run.exam for run in runs))
    if exam is None and len(names) > 1:
        raise ConfigError(
            "runs that stopped early are compared one exam at a time, and these are of"
            f" {', '.join(names)}: give --exam {names[0]}"
        )
    return select_exam_runs(runs, exam)
