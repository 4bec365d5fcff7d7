"""``python -m kmmlu_fast.report RUN...``: one self-contained report.html, figure files, exports, or a single question."""

from __future__ import annotations

import sys
from pathlib import Path

from kmmlu_fast.analysis.comparison import compare_with_base
from kmmlu_fast.core.console import note, run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.flags import parse
from kmmlu_fast.reporting.inputs import ReportConfig, load_runs, settings_of
from kmmlu_fast.reporting.page import write_report
from kmmlu_fast.reporting.tables import print_questions


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        config = parse(ReportConfig, argv, "python -m kmmlu_fast.report")
        runs, questions = load_runs(config, at_least=1)
        if config.show:
            print_questions(runs, questions, config.show)
            return
        settings = settings_of(config)
        only = runs[0].path if len(runs) == 1 else None
        path = config.output or (only or Path()) / "report.html"
        if path.suffix != ".html":
            raise ConfigError(f"--output {path}: give a file name that ends in .html")
        size = write_report(
            runs, path, questions, settings, config.lang, config.figures, config.plan,
            with_texts=not config.no_texts, figure_width=config.figure_width,
        )  # fmt: skip
        print(f"{path}  ({size / 1e6:.1f} MB, {len(runs)} run{'s' if len(runs) > 1 else ''})")
        if questions is not None and not config.no_texts:
            note(f"{path} holds question texts: keep it private, or write it with --no-texts")
        if config.export:
            from kmmlu_fast.reporting.exports import export

            for written in export(config.export, runs, compare_with_base(runs, settings)[0], questions, settings, config.lang, path.parent):
                print(written)

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
