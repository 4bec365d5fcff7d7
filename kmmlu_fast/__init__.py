"""kmmlu_fast: measure and improve language models on KMMLU, on one GPU.

    from kmmlu_fast import evaluate, compare_runs, write_report
    base, lora = evaluate(model="demo", dataset="sample", adapter=["out/lora"])
    print(compare_runs(base, lora).verdict())

Names are imported on first use (PEP 562), so ``import kmmlu_fast`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kmmlu_fast.core.version import __version__

if TYPE_CHECKING:
    from kmmlu_fast.api import (
        check_artefacts,
        compare_runs,
        draw_rows,
        evaluate,
        export_model,
        export_runs,
        find_confident_errors,
        find_overlap,
        find_recipe,
        load_run,
        plan_evaluation,
        plan_training,
        profile_errors,
        score_subjects,
        train_adapter,
        write_report,
    )
    from kmmlu_fast.core.errors import (
        AdapterError,
        ConfigError,
        DataError,
        EngineError,
        InstallError,
        KmmluError,
        ModelError,
        RunError,
        TrainError,
    )
    from kmmlu_fast.core.schema import Prediction, Question
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.integrations.watch import watch
    from kmmlu_fast.machine.diagnosis import diagnose_machine
    from kmmlu_fast.reporting.comparison_view import Comparison
    from kmmlu_fast.runs.run import Run

__all__ = [
    "AdapterError",
    "Comparison",
    "ConfigError",
    "DataError",
    "EngineError",
    "EvalConfig",
    "InstallError",
    "KmmluError",
    "ModelError",
    "Prediction",
    "Question",
    "Run",
    "RunError",
    "TrainError",
    "__version__",
    "check_artefacts",
    "compare_runs",
    "diagnose_machine",
    "draw_rows",
    "evaluate",
    "export_model",
    "export_runs",
    "find_confident_errors",
    "find_overlap",
    "find_recipe",
    "load_run",
    "plan_evaluation",
    "plan_training",
    "profile_errors",
    "score_subjects",
    "train_adapter",
    "watch",
    "write_report",
]

_ERRORS = (
    "AdapterError",
    "ConfigError",
    "DataError",
    "EngineError",
    "InstallError",
    "KmmluError",
    "ModelError",
    "RunError",
    "TrainError",
)
_HOMES = {
    **dict.fromkeys(_ERRORS, "core.errors"),
    "Comparison": "reporting.comparison_view",
    "EvalConfig": "evaluation.config",
    "Prediction": "core.schema",
    "Question": "core.schema",
    "diagnose_machine": "machine.diagnosis",
    "Run": "runs.run",
    "watch": "integrations.watch",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'kmmlu_fast' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kmmlu_fast.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
