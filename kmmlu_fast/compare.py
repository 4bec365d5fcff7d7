"""``python -m kmmlu_fast.compare FIRST SECOND...``: is the second better, by how much, where, and is it letter habit?

In: two or more runs. Out: one screen of text, and a JSON file with all of it on request.
"""

from __future__ import annotations

import sys

from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.exams import exam_rows
from kmmlu_fast.core.console import run_main
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.files import claim, write_json_atomically
from kmmlu_fast.core.flags import parse
from kmmlu_fast.reporting import exams
from kmmlu_fast.reporting.exports import as_json
from kmmlu_fast.reporting.inputs import CompareConfig, focused, input_files_of, load_runs, settings_of
from kmmlu_fast.reporting.language import texts
from kmmlu_fast.reporting.tables import print_comparison, print_exams


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        config = parse(CompareConfig, argv, "python -m kmmlu_fast.compare")
        t = texts(config.lang)
        if config.json_file is not None:
            claim([config.json_file], input_files_of(config), overwrite=config.overwrite, flag="--json-file")
        runs, _ = load_runs(config, at_least=2)
        settings = settings_of(config)
        pairs, refused = [], []
        rows = exam_rows(runs, settings) if len({run.exam for run in runs}) > 1 else []
        all_runs, runs = runs, focused(runs, config.exam)
        if len(runs) < 2 and not rows:
            raise ConfigError("nothing to compare: the runs are of different exams; name two of one exam")
        for other in runs[1:]:
            try:
                pairs.append(compare_pair(runs[0], other, settings))
            except RunError as error:
                if len(runs) == 2 and not (runs[0].predictions is None or other.predictions is None):
                    raise
                refused.append(t("not_comparable", first=runs[0].name, second=other.name, why=str(error)))
        if config.json_file is not None:
            found = as_json(all_runs if rows else runs, pairs, settings, config.lang)
            write_json_atomically(config.json_file, {**found, **(exams.as_json(rows, t) if rows else {})})
        if rows:
            print_exams(rows, t)
        print_comparison(runs, pairs, refused, config, settings, t)

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
