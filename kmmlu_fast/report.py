"""``python -m kmmlu_fast.report RUN...``: one self-contained report.html, figure files,
exports, or a single question.
"""

from __future__ import annotations

import sys

from kmmlu_fast.core.console import note, run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import claim
from kmmlu_fast.core.flags import parse
from kmmlu_fast.core.foreign import clean
from kmmlu_fast.core.importing import uncollected
from kmmlu_fast.core.progress import waiting
from kmmlu_fast.reporting.comparing import compared
from kmmlu_fast.reporting.exams import section
from kmmlu_fast.reporting.inputs import (
    ReportConfig,
    default_output,
    focused,
    input_files_of,
    load_runs,
    settings_of,
)
from kmmlu_fast.reporting.language import texts
from kmmlu_fast.reporting.page import write_report
from kmmlu_fast.reporting.places import targets
from kmmlu_fast.reporting.tables import print_questions


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
        settings = settings_of(config, questions)
        t = texts(config.lang, "report")
        chosen = focused(runs, config.exam)
        exams = section(runs, settings, chosen[0].exam_title, t)
        size = write_report(
            chosen,
            path,
            questions,
            settings,
            config.lang,
            config.figures,
            config.plan,
            exams,
            with_texts=not config.no_texts,
            figure_width=config.figure_width,
        )
        print(f"{clean(str(path))}  ({size / 1e6:.1f} MB, {len(runs)} run{'s' if len(runs) > 1 else ''})")
        if questions is not None and not config.no_texts:
            note(f"{clean(str(path))} holds question texts: keep it private, or write it with --no-texts")
        if config.export:
            from kmmlu_fast.reporting.exports import export

            pairs = compared(chosen, settings)[0]
            with waiting("writing exports"):
                files = export(
                    config.export,
                    chosen,
                    pairs,
                    questions,
                    settings,
                    config.lang,
                    path.parent,
                    with_texts=not config.no_texts,
                )
            for written in files:
                print(f"{clean(str(written))}  ({written.stat().st_size / 1e6:.1f} MB)")

    def uninterrupted() -> None:
        with uncollected():  # hundreds of thousands of texts, none of them garbage
            body()

    return run_main(uninterrupted)


if __name__ == "__main__":
    sys.exit(main())
