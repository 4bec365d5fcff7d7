"""Ray itself: joined or started, and how much of it each replica gets.

In: an address or None, the number of replicas. Out: whether GPUs compute; the resources of a replica;
EngineError if Ray does not answer or has too few. Knows nothing of engines or requests.
"""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path
from typing import Any

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError, EngineError

_REACH_SEC = 10.0


@functools.lru_cache(maxsize=8)
def cluster_has_gpus(address: str | None) -> bool:
    """Whether the cluster has GPUs now; without an address, whether this machine has.

    The machine with the command may be a head without a GPU, so the cluster is asked: joining it takes a few
    seconds, once.
    """
    if address is None:
        from kmmlu_fast.machine.device import has_gpu

        return has_gpu()
    ray = import_ray(address)
    connected_here = connect_ray(ray, address, 1)
    try:
        return int(ray.cluster_resources().get("GPU", 0)) > 0
    finally:
        if connected_here:
            ray.shutdown()


def import_ray(address: str | None = None) -> Any:
    """Ray. ``address``: of the cluster that is joined later. Clusters started by ``ray start`` want the token
    that it wrote, which Ray shows them only in this mode, read when it is imported; others do not mind.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address and _has_auth_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "Ray is not installed: pip install --no-deps 'ray==2.60.*' msgpack, or run without --engine ray"
        ) from error
    return ray


def _has_auth_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def connect_ray(ray: Any, address: str | None, num_cpus: int) -> bool:
    """Start or join Ray; False if it already ran, and so must not be shut down by ``close``."""
    if ray.is_initialized():
        return False
    try:
        if address:
            _reach_head(address)
            ray.init(address=address, log_to_driver=False, logging_level="error")
        else:
            ray.init(
                address="local",
                num_cpus=max(num_cpus, os.cpu_count() or 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                object_store_memory=512 * 1024**2,
            )
    except Exception as error:
        problem = "cannot start Ray on this machine"
        if address:
            problem = (
                f"cannot join the Ray cluster at {address!r}: is 'ray start --head' running there, and does"
                " this machine have its ~/.ray/auth_token?"
            )
        raise EngineError(f"{problem} ({first_line(error)})") from error
    return True


def _reach_head(address: str) -> None:
    """OSError if nothing listens at ``host:port``, of which Ray would say nothing for a minute. Other forms
    ("auto", a local name) are Ray's to resolve.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal() and int(port) < 1 << 16:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SEC).close()


def replica_resources(
    ray: Any,
    num_replicas: int,
    address: str | None,
    gpus_per_replica: int | None = None,
    *,
    gpus_if_any: int = 1,
    cpus_per_replica: int | None = None,
) -> dict[str, Any]:
    """GPUs and CPU cores per replica. ``gpus_per_replica`` None: ``gpus_if_any`` if the cluster shows GPUs.

    EngineError if this machine has too few GPUs; a cluster may still add machines.
    """
    total = ray.cluster_resources()
    gpus = int(total.get("GPU", 0))
    if gpus_per_replica is None:
        gpus_per_replica = gpus_if_any if gpus else 0
        if address and not gpus:
            log_note(
                f"engine: the Ray cluster at {address} shows no GPU, so the replicas compute on CPUs; for a"
                f" cluster that adds GPU machines on demand give --gpus-per-replica {gpus_if_any}"
            )
    if gpus_per_replica == 0:
        share = min(int(total.get("CPU", 1)) // num_replicas, _cores_of_largest_machine(ray))
        return {"num_cpus": cpus_per_replica or max(1, share)}
    needed = num_replicas * gpus_per_replica
    if gpus < needed and not address:
        raise EngineError(
            f"{num_replicas} replicas of {gpus_per_replica} GPU(s) need {needed}, this machine has {gpus}:"
            " give fewer --num-replicas, or the --ray-address of a cluster"
        )
    return {"num_gpus": gpus_per_replica, "num_cpus": cpus_per_replica or 1}


def _cores_of_largest_machine(ray: Any) -> int:
    """A replica lies on one machine: more cores than that, and Ray would wait for a machine for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return max((int(resources.get("CPU", 0)) for resources in machines), default=1)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
