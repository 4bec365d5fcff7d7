"""``python -m kmmlu_fast.compare FIRST SECOND...``: is the second better, by how much, where, and is it
letter habit?

In: two or more runs. Out: one screen of text, and a JSON file with all of it on request.
"""

from __future__ import annotations

import sys
from dataclasses import asdict

from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.exams import exam_rows
from kmmlu_fast.analysis.key_audit import audit_key
from kmmlu_fast.core.console import run_main
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.files import claim, write_json_atomically
from kmmlu_fast.core.flags import parse
from kmmlu_fast.reporting import exams
from kmmlu_fast.reporting.comparing import counted, recipe_of
from kmmlu_fast.reporting.early import compare_early, early_json, early_lines
from kmmlu_fast.reporting.exports import as_json
from kmmlu_fast.reporting.formats import formatted
from kmmlu_fast.reporting.inputs import (
    CompareConfig,
    focused,
    groups_of,
    input_files_of,
    load_runs,
    settings_of,
)
from kmmlu_fast.reporting.language import texts
from kmmlu_fast.reporting.tables import print_comparison, print_exams
from kmmlu_fast.reporting.verdict import key_lines, recipe_line
from kmmlu_fast.runs.loading import load_all
from kmmlu_fast.runs.run import Run


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        config = parse(CompareConfig, argv, "python -m kmmlu_fast.compare")
        t = texts(config.lang)
        if config.json_file is not None:
            claim([config.json_file], input_files_of(config), overwrite=config.overwrite, flag="--json-file")
        groups = groups_of(config)
        runs, questions = load_runs(config, at_least=1 if groups else 2, prefix=True)
        if any(run.prefix is not None for run in runs):
            runs = _of_one_exam(runs, config.exam)
        if any(run.prefix is not None for run in runs):
            if len(runs) < 2:
                raise ConfigError(
                    f"nothing to compare: {runs[0].name} is the only run of its exam; name two of one exam"
                )
            early = compare_early(runs, config.different_prompts)
            if config.json_file is not None:
                write_json_atomically(config.json_file, early_json(runs, early, config.lang))
            print("\n".join(early_lines(runs, early, config.lang)))
            return
        settings = settings_of(config, questions if config.what_moved else None, sizes_from=questions)
        pairs, refused = [], []
        all_runs, runs = runs, focused(runs, config.exam)
        rows = exam_rows(all_runs, settings, runs[0].exam) if len({run.exam for run in all_runs}) > 1 else []
        if len(runs) < 2 and not rows and not groups:
            raise ConfigError("nothing to compare: the runs are of different exams; name two of one exam")
        for other in runs[1:]:
            try:
                pairs.append(compare_pair(runs[0], other, settings))
            except RunError as error:
                if len(runs) == 2 and not (runs[0].predictions is None or other.predictions is None):
                    raise
                refused.append(t("not_comparable", first=runs[0].name, second=other.name, why=str(error)))
        pairs = counted(runs, pairs)
        members = {name: load_all(sources, questions, config.split) for name, sources in groups.items()}
        recipes = [
            recipe_of(name, runs[0], _of_the_base(runs[0], name, found)) for name, found in members.items()
        ]
        audit = audit_key(runs, questions) if config.key_audit else None
        if config.json_file is not None:
            extra = {
                "recipes": [asdict(recipe) for recipe in recipes],
                "key_audit": asdict(audit) if audit else None,
            }
            extra |= exams.as_json(rows, t) if rows else {}
            write_json_atomically(
                config.json_file,
                {**as_json(all_runs if rows else runs, pairs, settings, config.lang), **extra},
            )
        if config.format != "text":
            print(formatted(config, runs, pairs, refused, settings, t))
            return
        if rows:
            print_exams(rows, t)
        print_comparison(runs, pairs, refused, config, settings, t)
        for line in [
            *(recipe_line(recipe, t) for recipe in recipes),
            *(key_lines(audit, t) if config.key_audit else []),
        ]:
            print(line)

    return run_main(body)


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


def _of_the_base(base: Run, name: str, runs: list[Run]) -> list[Run]:
    """The recipe's runs; ConfigError where one is of another exam than the base."""
    for run in runs:
        if run.exam != base.exam:
            raise ConfigError(
                f"--group {name}: {run.name} is of {run.exam_title}, {base.name} of {base.exam_title}; name"
                " runs of one exam"
            )
    return runs


if __name__ == "__main__":
    sys.exit(main())
