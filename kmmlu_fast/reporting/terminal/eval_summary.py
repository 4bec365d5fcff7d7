"""The end of an evaluation with adapters: a verdict for each, and the commands that tell more.

In: the runs of one evaluation. Out: lines. Each verdict is ``compare``'s own and is logged as a comparison on
test; p-values are corrected for their number. Knows nothing of engines.
"""

from __future__ import annotations

import shlex
from dataclasses import replace

from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.command.help_text import invoked_command
from kmmlu_fast.reporting.pairs import compare_all_with_base
from kmmlu_fast.reporting.wording.language import Translator, get_translator
from kmmlu_fast.reporting.wording.verdict import word_verdict
from kmmlu_fast.runs.run import Run


def adapter_verdict_lines(runs: list[Run], lang: str = "en") -> list[str]:
    """The verdict of each adapter against the base, then the ready commands; [] without both.

    If asking stopped early, the verdict was printed before, and only ``compare`` takes such runs.
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
        command = invoked_command(f"python -m kmmlu_fast.{verb}")
        why = t(f"say_{verb}")
        lines.append(f"{command} {paths}   # {why}")
    return lines


def _adapter_sentences(base: Run, adapters: list[Run], t: Translator) -> list[str]:
    """Per adapter, the headline and the most important sentence."""
    named = [replace(run, name=str(run.config["adapter"]["name"])) for run in adapters]
    pairs, refused = compare_all_with_base([replace(base, name="base"), *named], ComparisonSettings())
    lines = [t("not_comparable", first="base", second=name, why=why) for name, why in refused]
    for pair in pairs:
        verdict = word_verdict(pair, t)
        lines += [*verdict.cautions, verdict.headline, *verdict.sentences[:1]]
    return lines
