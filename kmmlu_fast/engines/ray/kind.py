"""vLLM replicas on Ray."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.engines.kind import EngineKind
from kmmlu_fast.engines.options import EngineOptions
from kmmlu_fast.engines.protocol import Engine
from kmmlu_fast.engines.vllm.kind import vllm_option_problem
from kmmlu_fast.models.model import Model


def open_ray(
    options: EngineOptions, model: Model, adapters: Sequence[Adapter], max_model_len: int, path: str | None
) -> Engine:
    """Start the replicas."""
    from kmmlu_fast.engines.ray.engine import RayEngine
    from kmmlu_fast.engines.vllm.engine import VllmEngine
    from kmmlu_fast.engines.vllm.start import vllm_engine_settings

    settings = vllm_engine_settings(options, model, adapters, max_model_len, path)
    return RayEngine(
        functools.partial(VllmEngine, settings),
        max(options.num_replicas, options.data_parallel_size),
        address=options.ray_address,
        gpus_per_replica=options.tensor_parallel_size,
    )


KIND = EngineKind(
    name="ray",
    open=open_ray,
    requires=lambda options: ["ray", "vllm", "torch"],
    libraries=lambda options: ["vllm", "transformers"],
    option_problem=vllm_option_problem,
    own_flags={"num_replicas": "", "ray_address": ""},
    swap_problem=lambda options: "weights can be written only into a single vLLM engine in this process",
)
