"""Writing a report as the command does: the page, figures, exports, or one question on the screen.

In: the configuration of ``report``. Out: files, and their names and sizes on stdout. Knows nothing of what a
page holds.
"""

from __future__ import annotations

from pathlib import Path

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import claim_outputs
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.core.untrusted_text import strip_control_characters
from kmmlu_fast.reporting.charts.paper_figures import write_figures
from kmmlu_fast.reporting.comparison_settings import make_comparison_settings
from kmmlu_fast.reporting.config import ReportConfig
from kmmlu_fast.reporting.files.output_paths import report_output_paths
from kmmlu_fast.reporting.html.page import write_report_page
from kmmlu_fast.reporting.inputs import (
    config_input_files,
    default_report_path,
    load_recipe_groups,
    load_runs,
    select_exam_runs,
)
from kmmlu_fast.reporting.report_data import ReportData, collect_report_data
from kmmlu_fast.reporting.terminal.screens import print_questions
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.runs.run import Run


def _are_texts_free(config: ReportConfig, runs: list[Run]) -> bool:
    """Whether all texts are the packaged sample's, which is CC0."""
    own = {(run.config.get("config") or {}).get("dataset") for run in runs}
    return (own if config.dataset is None else {config.dataset}) == {"sample"}


def write_report_files(config: ReportConfig) -> None:
    """Everything that ``report`` does."""
    path = config.output or default_report_path(config)
    if path.suffix != ".html":
        raise ConfigError(f"--output {path}: the file name must end in .html")
    if not config.show:
        outputs = report_output_paths(config, path)
        claim_outputs(outputs, config_input_files(config), overwrite=config.overwrite)
    runs, questions = load_runs(config, at_least=1)
    if config.show:
        print_questions(runs, questions, config.show)
        return
    base = select_exam_runs(runs, config.exam)[0]
    groups = load_recipe_groups(config, questions, base)
    settings = make_comparison_settings(config, questions)
    data = collect_report_data(runs, settings, questions, exam=config.exam, groups=groups)
    with_texts = not config.no_texts
    size = write_report_page(
        data,
        path,
        config.lang,
        plan=config.plan,
        with_texts=with_texts,
    )
    shown_path = strip_control_characters(str(path))
    print(f"{shown_path}  ({_format_size(size)}, {len(runs)} run{'s' if len(runs) > 1 else ''})")
    if questions is not None and with_texts and not _are_texts_free(config, runs):
        log_note(f"{shown_path} contains question texts: keep it private, or write it with --no-texts")
    _write_beside_page(config, data, path, with_texts)
    if config.open:
        _open_page(path)


def _write_beside_page(config: ReportConfig, data: ReportData, path: Path, with_texts: bool) -> None:
    """Write and list the figures and exports that were asked for."""
    if config.figures is not None:
        with report_wait("drawing figures"):
            figures = write_figures(
                data,
                config.figures,
                config.lang,
                plan=config.plan,
                width_in=config.figure_width,
                with_titles=config.figure_title,
            )
        names = ", ".join(figure.stem for figure in figures if figure.suffix == ".pdf")
        print(f"{strip_control_characters(f'{config.figures}: {names}')}  (SVG, PNG, PDF)")
    if config.export:
        from kmmlu_fast.reporting.files.exports import write_exports

        with report_wait("writing exports"):
            t = get_translator(config.lang)
            files = write_exports(config.export, data, t, path.parent, with_texts=with_texts)
        for written in files:
            print(f"{strip_control_characters(str(written))}  ({_format_size(written.stat().st_size)})")


def _open_page(path: Path) -> None:
    """Show the page in the user's browser; a note if there is none."""
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        log_note(f"--open: no browser was found; open {strip_control_characters(str(path))} yourself")


def _format_size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
