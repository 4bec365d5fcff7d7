"""``python -m kmmlu_fast.compare FIRST SECOND...``: is the second better, by how much, where, and is it letter habit?

In: two or more runs. Out: one screen of text, and a JSON file with all of it on request.
"""

from __future__ import annotations

import json
import sys

from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.core.console import run_main
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.flags import parse
from kmmlu_fast.reporting.exports import as_json
from kmmlu_fast.reporting.inputs import CompareConfig, load_runs, settings_of
from kmmlu_fast.reporting.formats import formatted
from kmmlu_fast.reporting.language import texts
from kmmlu_fast.reporting.tables import print_comparison


def main(argv: list[str] | None = None) -> int:
    """Entry point."""

    def body() -> None:
        config = parse(CompareConfig, argv, "python -m kmmlu_fast.compare")
        t = texts(config.lang)
        runs, _ = load_runs(config, at_least=2)
        settings = settings_of(config)
        pairs, refused = [], []
        for other in runs[1:]:
            try:
                pairs.append(compare_pair(runs[0], other, settings))
            except RunError as error:
                if len(runs) == 2 and not (runs[0].predictions is None or other.predictions is None):
                    raise
                refused.append(t("not_comparable", first=runs[0].name, second=other.name, why=str(error)))
        if config.json_file is not None:
            document = json.dumps(as_json(runs, pairs, settings, config.lang), ensure_ascii=False, indent=2)
            config.json_file.write_text(document + "\n", encoding="utf-8")
        if config.format == "text":
            print_comparison(runs, pairs, refused, config, settings, t)
        else:
            print(formatted(config, runs, pairs, refused, settings, t))

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
