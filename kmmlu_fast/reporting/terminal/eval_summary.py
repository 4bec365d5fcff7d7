"""What stands at the end of an evaluation with adapters: the paired sentence of each, and the commands that
say more.

In: the runs of one evaluation. Out: lines. The sentence is ``compare``'s own, and each a look at test: they
are counted, and corrected for their number. Knows nothing of engines.
"""

from __future__ import annotations

import shlex
from dataclasses import replace

from kmmlu_fast.analysis.comparison import ComparisonSettings
from kmmlu_fast.command.help_text import invoked_command
from kmmlu_fast.reporting.pairs import compare_all_with_base
from kmmlu_fast.reporting.wording.language import Translator, get_translator
from kmmlu_fast.reporting.wording.verdict import caution_lines, verdict_lines
from kmmlu_fast.runs.run import Run


def adapter_verdict_lines(runs: list[Run], lang: str = "en") -> list[str]:
    """Nothing for a base alone; a sentence an adapter against the base, then the ready commands.

    Where asking stopped early the verdict is said already (``early``), and only ``compare`` takes
    such runs.
    """
    base = next((run for run in runs if not run.config.get("adapter")), None)
    adapters = [run for run in runs if run.config.get("adapter")]
    if base is None or not adapters:
        return []
    t = get_translator(lang, "summary")
    early = any(run.prefix is not None for run in [base, *adapters])
    lines = [] if early else _adapter_sentences(base, adapters, t)
    paths = shlex.join(str(run.path) for run in [base, *adapters])
    for verb in ("compare",) if early else ("compare", "report"):
        why = t(f"say_{verb}")
        lines.append(f"{invoked_command(f'python -m kmmlu_fast.{verb}')} {paths}   # {why}")
    return lines


def _adapter_sentences(base: Run, adapters: list[Run], t: Translator) -> list[str]:
    """Of each adapter the headline, and how much of it is letter habit."""
    named = [replace(run, name=str(run.config["adapter"]["name"])) for run in adapters]
    pairs, refused = compare_all_with_base(
        [replace(base, name="base"), *named], ComparisonSettings(replicates=2_000)
    )
    lines = [t("not_comparable", first="base", second=name, why=why) for name, why in refused]
    for pair in pairs:
        said = caution_lines(pair, t)
        lines += verdict_lines(pair, t)[: len(said) + 2]
    return lines
