"""The evaluation: shows again what is finished, else asks base and adapters.

In: an ``EvalConfig``. Out: one complete ``Run`` per model state. A finished evaluation is shown without what
asking needs: prompts, engines, scoring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmmlu_fast.evaluation.base_model import take_base_from_adapters
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.reuse import reusable_runs
from kmmlu_fast.runs.run import Run

if TYPE_CHECKING:
    from kmmlu_fast.evaluation.open_engines import EngineOpener


def run_evaluation(config: EvalConfig, open_engine: EngineOpener | None = None) -> list[Run]:
    """Evaluate base and adapters. Finished runs are reused, interrupted ones continued. The runs are ordered
    by exam, the base before the adapters.

    ``open_engine(adapters, max_model_len, merged_path)`` replaces ``engines.factory.open_engine`` in tests
    and benchmarks.
    """
    if config.report_to:
        from kmmlu_fast.machine.trackers import require_trackers

        require_trackers(config.report_to)
    config = take_base_from_adapters(config)
    runs = reusable_runs(config)
    if runs is None:
        from kmmlu_fast.evaluation.model_states import evaluate_model_states

        runs = evaluate_model_states(config, open_engine)
    if config.report_to:
        from kmmlu_fast.evaluation.tracking import tracked_run
        from kmmlu_fast.machine.trackers import send_results

        send_results(config.report_to, [tracked_run(run) for run in runs])
    return runs
