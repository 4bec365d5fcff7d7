"""Options that the chosen engine does not take are refused before anything starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kmmlu_fast.engines.config import EngineConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_replicas": 2}, "--num-replicas goes with --engine ray"),
        ({"ray_address": "h:1"}, "--ray-address goes with --engine ray"),
        ({"base_url": "http://h/v1"}, "--base-url goes with --engine server"),
        (
            {"engine": "ray", "data_parallel_size": 2},
            "--data-parallel-size goes with --engine vllm; with",
        ),
        ({"engine": "server"}, "--engine server needs --base-url"),
        ({"engine": "transformers", "quantization": "fp8"}, "takes nf4"),
        ({"engine": "transformers", "tensor_parallel_size": 2}, "on one device"),
        ({"engine": "transformers", "load_format": "dummy"}, "--load-format goes with vLLM"),
    ],
)
def test_options_of_another_engine_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EngineConfig(**options)
