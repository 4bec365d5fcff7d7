"""``EngineOptions`` checked: what the chosen engine does not take is refused before anything starts.

In: values from YAML and the command line. Out: a frozen ``EngineConfig``. Knows nothing of questions.
"""

from __future__ import annotations

from pydantic import model_validator

from kmmlu_fast.engines.kind import find_engine_kind, foreign_option_problem
from kmmlu_fast.engines.options import EngineOptions


class EngineConfig(EngineOptions):
    """The model, the engine and the device, as one engine takes them."""

    @model_validator(mode="after")
    def _check_engine_options(self) -> EngineConfig:
        problem = find_engine_kind(self.engine).option_problem(self) or foreign_option_problem(self)
        if problem:
            raise ValueError(problem)
        return self
