"""What stands at the end of an evaluation with adapters: the paired sentence of each, and the commands that
say more.

In: the runs of one evaluation. Out: lines. The sentence is ``compare``'s own. Knows nothing of engines.
"""

from __future__ import annotations

import shlex
from dataclasses import replace

from kmmlu_fast.analysis.comparison import Settings, compare_pair
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.helping import as_called
from kmmlu_fast.reporting.language import texts
from kmmlu_fast.reporting.verdict import cautions, verdict
from kmmlu_fast.runs.run import Run

_SAY = {
    "en": {"compare": "where, and is it letter habit", "report": "everything, in one page"},
    "ko": {"compare": "어느 과목에서, 글자 편향인지", "report": "전체를 한 페이지로"},
}


def closing_lines(runs: list[Run], lang: str = "en") -> list[str]:
    """Nothing for a base alone; a sentence an adapter against the base, then the ready commands.

    Where asking stopped early the verdict is said already (``early``), and only ``compare`` takes
    such runs.
    """
    base = next((run for run in runs if not run.config.get("adapter")), None)
    adapters = [run for run in runs if run.config.get("adapter")]
    if base is None or not adapters:
        return []
    t = texts(lang)
    lines = []
    early = any(run.prefix is not None for run in [base, *adapters])
    for run in [] if early else adapters:
        first, second = replace(base, name="base"), replace(run, name=str(run.config["adapter"]["name"]))
        try:
            pair = compare_pair(first, second, Settings(replicates=2_000, different_prompts=True))
        except RunError as error:
            lines.append(t("not_comparable", first="base", second=second.name, why=str(error)))
            continue
        said = cautions(pair, t)
        lines += verdict(pair, t, lang)[: len(said) + 2]  # the headline, and how much of it is letter habit
    paths = shlex.join(str(run.path) for run in [base, *adapters])
    for verb, why in _SAY[lang].items():
        if early and verb == "report":
            continue
        lines.append(f"{as_called(f'python -m kmmlu_fast.{verb}')} {paths}   # {why}")
    return lines
