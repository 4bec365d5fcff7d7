"""``python -m kmmlu_fast.report RUN...``: one self-contained report.html, figure files,
exports, or a single question.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.flags import parse
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.console import note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import claim
from kmmlu_fast.core.progress import waiting
from kmmlu_fast.core.untrusted_text import clean
from kmmlu_fast.machine.heavy_imports import uncollected
from kmmlu_fast.reporting.comparison_settings import settings_of
from kmmlu_fast.reporting.config import ReportConfig
from kmmlu_fast.reporting.files.output_paths import targets
from kmmlu_fast.reporting.html.page import write_report
from kmmlu_fast.reporting.inputs import default_output, focused, input_files_of, load_groups, load_runs
from kmmlu_fast.reporting.report_data import find
from kmmlu_fast.reporting.terminal.screens import print_questions
from kmmlu_fast.reporting.wording.language import texts


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        config = parse(ReportConfig, argv, "python -m kmmlu_fast.report")
        path = config.output or default_output(config)
        if path.suffix != ".html":
            raise ConfigError(f"--output {path}: give a file name that ends in .html")
        if not config.show:
            claim(targets(config, path), input_files_of(config), overwrite=config.overwrite)
        runs, questions = load_runs(config, at_least=1)
        if config.show:
            print_questions(runs, questions, config.show)
            return
        base = focused(runs, config.exam)[0]
        groups = load_groups(config, questions, base)
        settings = settings_of(config, questions)
        found = find(runs, settings, questions, exam=config.exam, groups=groups)
        with_texts = not config.no_texts
        size = write_report(
            found,
            path,
            config.lang,
            figure_folder=config.figures,
            figure_width=config.figure_width,
            plan=config.plan,
            with_texts=with_texts,
        )
        print(f"{clean(str(path))}  ({_size(size)}, {len(runs)} run{'s' if len(runs) > 1 else ''})")
        if questions is not None and with_texts:
            note(f"{clean(str(path))} holds question texts: keep it private, or write it with --no-texts")
        if config.export:
            from kmmlu_fast.reporting.files.exports import export

            with waiting("writing exports"):
                files = export(config.export, found, texts(config.lang), path.parent, with_texts=with_texts)
            for written in files:
                print(f"{clean(str(written))}  ({_size(written.stat().st_size)})")

    def uninterrupted() -> None:
        with uncollected():  # hundreds of thousands of texts, none of them garbage
            body()

    return run_main(uninterrupted)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


if __name__ == "__main__":
    sys.exit(main())
