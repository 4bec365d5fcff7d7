"""Engine on Ray: any number of replicas, one engine each, on this machine or a cluster.

In: a picklable opener of one engine, and Requests in order of subject. Out: Responses, block by block as
blocks finish. Ray places the replicas, restarts them after a fault and repeats their blocks; a block's
responses arrive together and once, so none is missing or doubled. Knows nothing of KMMLU, of vLLM, or of what
the follow-ups ask: they are pickled and run on the replicas.

Why an ``ActorPool`` and not Ray Data's ``map_batches``: every Ray Data execution starts and ends its actors,
so each model state (base, every adapter) would load the model again; and it needs its input up front, while
``generate`` is fed lazily.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from kmmlu_fast.core.errors import EngineError, KmmluError
from kmmlu_fast.core.schema import Request, Response
from kmmlu_fast.engines.counters import Counters
from kmmlu_fast.engines.protocol import Engine, FollowUp
from kmmlu_fast.engines.ray.cluster import connect_ray, first_line, import_ray, replica_resources
from kmmlu_fast.engines.ray.replica import Replica

# Contiguous, hence mostly of one subject: its shared prefix is computed at most once per block.
BLOCK_REQUESTS = 32
BLOCKS_IN_FLIGHT = 16  # per replica: 512 requests keep vLLM's batch full while finished blocks travel
RESTARTS = 3  # of a replica, and repeats of a block
ABANDON_TIMEOUT_SEC = 10.0
START_TIMEOUT_SEC = 3600.0  # a cluster may have to add machines, and each replica to load a large model


class RayEngine:
    """``num_replicas`` engines made by ``opener``, each with ``gpus_per_replica`` GPUs (0: a share of the CPU
    cores; None: ``gpus_if_any`` GPUs if Ray shows any). What an engine does with them it decides where it
    opens: this machine may have other devices.
    """

    def __init__(
        self,
        opener: Callable[[], Engine],
        num_replicas: int = 1,
        *,
        address: str | None = None,
        gpus_per_replica: int | None = None,
        gpus_if_any: int = 1,
        cpus_per_replica: int | None = None,
        block_requests: int = BLOCK_REQUESTS,
        blocks_in_flight: int = BLOCKS_IN_FLIGHT,
    ) -> None:
        started = time.monotonic()
        ray = import_ray(address)
        self._block_requests = block_requests
        self._blocks_in_flight = blocks_in_flight
        self._counters = Counters()
        self._replicas: list[Any] = []
        self._connected_here = connect_ray(ray, address, num_replicas * (cpus_per_replica or 1))
        try:
            resources = replica_resources(
                ray,
                num_replicas,
                address,
                gpus_per_replica,
                gpus_if_any=gpus_if_any,
                cpus_per_replica=cpus_per_replica,
            )
            self._placement = {
                "replicas": num_replicas,
                **{f"{name}_per_replica": count for name, count in resources.items()},
            }
            actor = ray.remote(Replica).options(
                max_restarts=RESTARTS,
                max_task_retries=RESTARTS,
                max_concurrency=blocks_in_flight + 1,
                **resources,
            )
            self._replicas = [actor.remote(opener) for _ in range(num_replicas)]
            self.replica_pids()  # wait until all are open
        except BaseException:
            self.close()
            raise
        self._start_sec = time.monotonic() - started

    def generate(self, requests: Iterable[Request], follow_up: FollowUp | None = None) -> Iterator[Response]:
        import ray
        from ray.util import ActorPool

        source = iter(requests)
        follow_up_ref = ray.put(follow_up)
        # A replica is in the pool once per block that it may hold. Requests are pulled only for a free slot.
        pool = ActorPool(self._replicas * self._blocks_in_flight)
        try:
            while True:
                while pool.has_free() and (block := list(islice(source, self._block_requests))):
                    pool.submit(lambda replica, block: replica.run.remote(block, follow_up_ref), block)
                if not pool.has_next():
                    return
                for response in _translate_ray_errors(pool.get_next_unordered):
                    self._counters.add(response)
                    yield response
        finally:
            if pool.has_next():
                self._abandon_blocks()

    def _abandon_blocks(self) -> None:
        """Have the replicas drop the blocks of a caller that stopped reading: nobody waits for them."""
        import ray

        refs = [replica.abandon_blocks.remote() for replica in self._replicas]
        with contextlib.suppress(Exception):  # a replica that died has none
            ray.get(refs, timeout=ABANDON_TIMEOUT_SEC)

    def replica_pids(self) -> list[int]:
        """Process ids, once every replica's engine is open."""
        import ray

        refs = [replica.wait_until_open.remote() for replica in self._replicas]
        pids: list[int] = _translate_ray_errors(lambda: ray.get(refs, timeout=START_TIMEOUT_SEC))
        return pids

    def stats(self) -> dict[str, Any]:
        """Counters of the responses that arrived here: work that a lost replica had to repeat counts once."""
        return {
            "engine": "ray",
            "start_sec": round(self._start_sec, 3),
            "placement": self._placement,
            **self._counters.stats(),
        }

    def close(self) -> None:
        import ray

        for replica in self._replicas:
            ray.kill(replica)
        self._replicas = []
        if self._connected_here:
            self._connected_here = False
            ray.shutdown()


def _translate_ray_errors(get: Callable[[], Any]) -> Any:
    """The result of ``get``; Ray's exceptions become EngineErrors of one line."""
    import ray

    try:
        return get()
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, KmmluError):
            raise type(cause)(str(cause)) from error
        raise EngineError(
            f"a replica failed ({type(cause).__name__}: {first_line(cause)}); run the same command to"
            " continue"
        ) from error
    except ray.exceptions.GetTimeoutError as error:
        raise EngineError(
            f"the replicas did not get their resources or did not start within {START_TIMEOUT_SEC:.0f} s; the"
            f" cluster has {ray.cluster_resources()}"
        ) from error
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"a replica was lost more than {RESTARTS} times ({first_line(error)}); run the same command to"
            " continue"
        ) from error
