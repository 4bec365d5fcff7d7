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
        gpus_per_replica=options.gpus_per_replica,
        gpus_if_any=options.tensor_parallel_size,
    )


def _option_problem(options: EngineOptions) -> str:
    gpus, split = options.gpus_per_replica, options.tensor_parallel_size
    if gpus is None or gpus == split or (gpus == 0 and split == 1):
        return vllm_option_problem(options)
    return (
        f"--gpus-per-replica {gpus} with --tensor-parallel-size {split}: a replica computes on as many GPUs"
        f" as its model is split over; give --gpus-per-replica {split}, or 0 for CPUs (with"
        " --tensor-parallel-size 1)"
    )


def _replicas_have_gpus(options: EngineOptions) -> bool:
    """Whether the replicas, which may be on other machines, will compute on GPUs."""
    if options.gpus_per_replica is not None:
        return options.gpus_per_replica > 0
    from kmmlu_fast.engines.ray.cluster import cluster_has_gpus

    return cluster_has_gpus(options.ray_address)


KIND = EngineKind(
    name="ray",
    open=open_ray,
    requires=lambda options: ["ray", "vllm", "torch"],
    libraries=lambda options: ["vllm", "transformers"],
    option_problem=_option_problem,
    own_flags={"num_replicas": "", "gpus_per_replica": "", "ray_address": ""},
    on_gpu=_replicas_have_gpus,
    swap_problem=lambda options: "weights can be written only into a single vLLM engine in this process",
)
