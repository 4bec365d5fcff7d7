"""``python -m kmmlu_fast.compare FIRST SECOND...``: is the second better, by how much, where, and is it
letter habit?

In: two or more runs. Out: one screen of text, and a JSON file with all of it on request.
"""

from __future__ import annotations

import sys

from kmmlu_fast.command.flags import parse
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import claim, write_json_atomically
from kmmlu_fast.reporting.comparison_settings import settings_of
from kmmlu_fast.reporting.config import CompareConfig
from kmmlu_fast.reporting.files.formats import formatted
from kmmlu_fast.reporting.files.frames import as_json
from kmmlu_fast.reporting.inputs import focused, input_files_of, load_groups, load_runs
from kmmlu_fast.reporting.report_data import find
from kmmlu_fast.reporting.terminal.screens import print_findings
from kmmlu_fast.reporting.wording.early_stopping import compare_early, early_json, early_lines
from kmmlu_fast.reporting.wording.language import texts
from kmmlu_fast.runs.run import Run


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        config = parse(CompareConfig, argv, "python -m kmmlu_fast.compare")
        t = texts(config.lang)
        if config.json_file is not None:
            claim([config.json_file], input_files_of(config), overwrite=config.overwrite, flag="--json-file")
        runs, questions = load_runs(config, at_least=1 if config.group else 2, prefix=True)
        if any(run.prefix is not None for run in runs):
            runs = _of_one_exam(runs, config.exam)
        if any(run.prefix is not None for run in runs):
            _compare_early(runs, config)
            return
        base = focused(runs, config.exam)[0]
        settings = settings_of(config, questions if config.what_moved else None, sizes_from=questions)
        groups = load_groups(config, questions, base)
        found = find(
            runs,
            settings,
            questions,
            exam=config.exam,
            groups=groups,
            strictly=True,
            audit=config.key_audit,
        )
        if config.json_file is not None:
            write_json_atomically(config.json_file, as_json(found, t))
        if config.format == "text":
            print_findings(found, config, t)
        else:
            print(formatted(config, found, t))

    return run_main(body)


def _compare_early(runs: list[Run], config: CompareConfig) -> None:
    """Runs that stopped early, by the sequential test alone."""
    if len(runs) < 2:
        raise ConfigError(
            f"nothing to compare: {runs[0].name} is the only run of its exam; name two of one exam"
        )
    early = compare_early(runs, config.different_prompts)
    if config.json_file is not None:
        write_json_atomically(config.json_file, early_json(runs, early, config.lang))
    print("\n".join(early_lines(runs, early, config.lang)))


def _of_one_exam(runs: list[Run], exam: str | None) -> list[Run]:
    """The runs of the exam in focus; ConfigError where some stopped early and nothing says
    which exam is meant.
    """
    names = list(dict.fromkeys(run.exam for run in runs))
    if exam is None and len(names) > 1:
        others = ", ".join(names)
        raise ConfigError(
            f"runs that stopped early are compared one exam at a time, and these are of {others}: give --exam"
            f" {names[0]}"
        )
    return focused(runs, exam)


if __name__ == "__main__":
    sys.exit(main())
