"""What an evaluation calls its run directories, before the fingerprint.

In: an ``EvalPlan`` and an adapter. Out: a name. Knows nothing of what the directories hold.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kmmlu_fast.core.files import make_ascii_slug, make_slug, shorten_name
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.evaluation.plan import EvalPlan

_NAME_LENGTH = 235  # with a fingerprint, a dot and ".new" it must fit into a file name's 255 bytes
_PART_LENGTH = 56
_SHORT = {"multiple_choice": "mc", "generate_until": "gen", "cot": "cot"}


def run_directory_name(plan: EvalPlan, adapter: Adapter | None, fingerprint: str) -> str:
    """The readable part of a run directory's name; as earlier versions wrote it if they wrote this run."""
    earlier = run_name(plan, adapter, make_ascii_slug)
    if (plan.config.output_dir / f"{earlier}-{fingerprint}").exists():
        return earlier
    return run_name(plan, adapter)


def run_name(plan: EvalPlan, adapter: Adapter | None, slug: Callable[[str], str] = make_slug) -> str:
    """What a run's directory is called before its fingerprint: model, state, questions, and how they were
    asked."""
    config = plan.config
    state = slug(adapter.name) if adapter else "base"
    style, method = plan.style.replace("-", ""), _SHORT[config.output_type]
    model = slug(Path(plan.model.name).name)
    data, rest = plan.source.slug, f"{config.split}-{style}-{config.num_fewshot}shot-{method}"
    name = f"{model}-{state}-{data}-{rest}"
    if len(name.encode("utf-8", "replace")) <= _NAME_LENGTH:
        return name
    return "-".join([*(shorten_name(part, _PART_LENGTH) for part in (model, state, data)), rest])
