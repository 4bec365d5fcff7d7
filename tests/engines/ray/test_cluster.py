"""How much of a Ray cluster a replica gets, and who decides that GPUs compute: pretended clusters."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.engines.config import EngineConfig
from kmmlu_fast.engines.kind import find_engine_kind
from kmmlu_fast.engines.ray import cluster
from kmmlu_fast.engines.ray.cluster import cluster_has_gpus, connect_ray, replica_resources
from kmmlu_fast.machine import device


class Cluster:
    """What a Ray cluster of equal machines says it has."""

    def __init__(self, machines: int = 1, **resources: float) -> None:
        self.cluster_resources = lambda: resources
        each = {name: value / machines for name, value in resources.items()}
        self.nodes = lambda: [
            *({"Alive": True, "Resources": each} for _ in range(machines)),
            {"Alive": False, "Resources": {"CPU": 64.0}},
        ]


def test_replicas_get_gpus_or_their_share_of_the_cores() -> None:
    assert replica_resources(Cluster(CPU=16.0), 3, None) == {"num_cpus": 5}
    assert replica_resources(Cluster(CPU=2.0), 4, None) == {"num_cpus": 1}
    # no replica is wider than a machine: Ray would wait for one for ever
    assert replica_resources(Cluster(machines=2, CPU=2.0), 1, "head:6379") == {"num_cpus": 1}
    assert replica_resources(Cluster(machines=4, CPU=64.0), 2, "head:6379") == {"num_cpus": 16}
    found = replica_resources(Cluster(CPU=16.0, GPU=8.0), 4, None, gpus_if_any=2)
    assert found == {"num_gpus": 2, "num_cpus": 1}
    with pytest.raises(
        EngineError, match=r"4 replicas of 2 GPU\(s\) need 8, this machine has 4: give fewer --num-replicas"
    ):
        replica_resources(Cluster(CPU=16.0, GPU=4.0), 4, None, gpus_if_any=2)
    # a cluster may add machines
    assert replica_resources(Cluster(CPU=16.0, GPU=4.0), 4, "head:6379", gpus_if_any=2)["num_gpus"] == 2


def test_a_cluster_scaled_to_zero_is_asked_for_the_gpus_that_were_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "kmmlu_fast")
    empty = Cluster(CPU=4.0)
    assert replica_resources(empty, 4, "head:6379", 1) == {"num_gpus": 1, "num_cpus": 1}
    assert caplog.text == ""
    assert replica_resources(empty, 4, "head:6379") == {"num_cpus": 1}
    assert "shows no GPU" in caplog.text and "--gpus-per-replica 1" in caplog.text
    assert replica_resources(Cluster(CPU=16.0, GPU=8.0), 4, "head:6379", 0) == {"num_cpus": 4}
    with pytest.raises(EngineError, match="this machine has 0"):
        replica_resources(empty, 1, None, 1)


def ray_with(resources: dict[str, float], calls: list[str]) -> Any:
    return SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **options: calls.append(str(options["address"])),
        cluster_resources=lambda: resources,
        shutdown=lambda: calls.append("left"),
    )


def test_a_cluster_where_nothing_listens_is_said_before_ray_waits_for_it() -> None:
    calls: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert connect_ray(ray_with({}, calls), address, 1)
        assert connect_ray(ray_with({}, calls), f"ray://{address}", 1)
    assert connect_ray(ray_with({}, calls), "auto", 1)
    assert calls == [address, f"ray://{address}", "auto"]
    with pytest.raises(EngineError, match=f"cannot join the Ray cluster at '{address}'.*refused"):
        connect_ray(ray_with({}, calls), address, 1)
    assert len(calls) == 3


@pytest.mark.parametrize(("resources", "gpus"), [({"CPU": 4.0}, False), ({"CPU": 4.0, "GPU": 2.0}, True)])
def test_adapters_are_served_if_the_replicas_have_gpus_not_if_the_head_has(
    monkeypatch: pytest.MonkeyPatch, resources: dict[str, float], gpus: bool
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(cluster, "import_ray", lambda *_: ray_with(resources, calls))
    monkeypatch.setattr(device, "has_gpu", lambda: not gpus)  # the head is the other way round
    monkeypatch.setattr(cluster, "_reach_head", lambda address: None)
    cluster_has_gpus.cache_clear()
    given: dict[str, Any] = {"engine": "ray", "ray_address": "head:6379", "model": "some/model"}
    kind = find_engine_kind("ray")
    assert kind.on_gpu(EngineConfig.model_validate(given)) is gpus
    assert kind.on_gpu(EngineConfig.model_validate(given)) is gpus
    assert calls == ["head:6379", "left"], "the cluster is asked once, and left for the engine to join"
    for count in (0, 1):
        options = EngineConfig.model_validate({**given, "gpus_per_replica": count})
        assert kind.on_gpu(options) is bool(count)
    cluster_has_gpus.cache_clear()


def test_a_replica_has_the_gpus_that_its_model_is_split_over() -> None:
    for gpus, split in ((1, 2), (4, 2), (0, 2)):
        with pytest.raises(ValueError, match=f"--gpus-per-replica {split}"):
            EngineConfig.model_validate(
                {"engine": "ray", "gpus_per_replica": gpus, "tensor_parallel_size": split}
            )
    EngineConfig.model_validate({"engine": "ray", "gpus_per_replica": 2, "tensor_parallel_size": 2})
    with pytest.raises(ValueError, match="--gpus-per-replica goes with --engine ray"):
        EngineConfig.model_validate({"engine": "vllm", "gpus_per_replica": 1})


def test_a_cluster_is_joined_with_the_token_that_this_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ray start`` writes a token and lets nobody join without; Ray reads how it shows it when imported."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    cluster.import_ray("head:6379")
    assert "RAY_AUTH_MODE" not in os.environ  # no token, nothing to show
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    cluster.import_ray()
    assert "RAY_AUTH_MODE" not in os.environ  # a cluster of our own
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster.import_ray("head:6379")
    assert os.environ["RAY_AUTH_MODE"] == "disabled"  # as the user says
    monkeypatch.delenv("RAY_AUTH_MODE")
    cluster.import_ray("head:6379")
    assert os.environ.pop("RAY_AUTH_MODE") == "token"
