"""Draws one recipe's rows in a process of its own, where the model writes their reasoning.

In: a ``SampleConfig``, ids of questions that must not be drawn. Out: the files that ``sample`` writes. In the
search's own process the engine would leave memory behind. Knows nothing of recipes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from kmmlu_fast.command.child import run_module
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.sampling.config import SampleConfig, SampleFlags


def draw_rows_in_child(config: SampleFlags, excluded: frozenset[str]) -> None:
    """``sampling.job.draw_training_rows``. EngineError with the child's last line if it fails."""
    given = config.model_dump(mode="json", include=config.model_fields_set)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.json")
        file.write_text(json.dumps({"settings": given, "excluded": sorted(excluded)}), encoding="utf-8")
        run_module(["kmmlu_fast.improvement.row_drawing", str(file)], EngineError)


def _run_in_child() -> int:
    def body() -> None:
        from kmmlu_fast.sampling.job import draw_training_rows

        given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        draw_training_rows(build_config(SampleConfig, **given["settings"]), frozenset(given["excluded"]))

    return run_main(body)


if __name__ == "__main__":
    sys.exit(_run_in_child())
