"""``EngineOptions`` checked: what the chosen engine does not take is refused before anything starts.

In: values from YAML and the command line. Out: a frozen ``EngineConfig``. Knows nothing of questions.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from kmmlu_fast.engines.kind import find_engine_kind, foreign_option_problem
from kmmlu_fast.engines.options import EngineOptions
from kmmlu_fast.models.gguf import is_gguf_path

GGUF_ENGINE = "llama-cpp"


class EngineConfig(EngineOptions):
    """The model, the engine and the device, as one engine takes them."""

    @model_validator(mode="before")
    @classmethod
    def _choose_engine_of_gguf(cls, values: Any) -> Any:
        """A GGUF file is served by llama.cpp if no engine is named."""
        if isinstance(values, dict) and "engine" not in values and is_gguf_path(str(values.get("model", ""))):
            return {**values, "engine": GGUF_ENGINE}
        return values

    @model_validator(mode="after")
    def _check_engine_options(self) -> EngineConfig:
        kind = find_engine_kind(self.engine)
        problem = kind.option_problem(self) or foreign_option_problem(self)
        if is_gguf_path(self.model) and kind.computes_here:
            problem = (
                f"--model {self.model} is a GGUF file, which --engine {GGUF_ENGINE} serves: omit --engine"
            )
        if problem:
            raise ValueError(problem)
        return self
