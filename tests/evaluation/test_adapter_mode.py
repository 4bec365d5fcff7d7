"""Which way an adapter reaches the engine, and that one engine is opened for the base and all
that are swapped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import AdapterError, ConfigError, EngineError
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, Adapter
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.adapter_mode import choose_adapter_mode
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.machine import device
from kmmlu_fast.models import merging


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modes")
    make_tiny_model(folder / "base")
    for seed in (1, 2):
        make_tiny_adapter(folder / "base", folder / f"lora-{seed}", seed=seed)
    make_tiny_adapter(folder / "base", folder / "dora")
    path = folder / "dora" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "use_dora": True}))
    return folder / "base"


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(device, "has_gpu", lambda: False)
    yield


def config(model: Path, root: Path, *flags: str) -> EvalConfig:
    argv = [
        "--model",
        str(model),
        "--dataset",
        "sample",
        "--subjects",
        "Math",
        "--output-dir",
        str(root),
        *flags,
    ]
    return parse_config(EvalConfig, argv, "eval")


def adapter_of(folder: Path) -> Adapter:
    return Adapter(name=folder.name, path=folder, adapter_id=1, rank=4, digest=folder.name)


class Opened:
    """Opens engines that swap, and remembers with what; ``torn`` is the adapter that does not go in."""

    def __init__(self, torn: str = "") -> None:
        self.paths: list[str | None] = []
        self.held: list[str] = []
        self.torn = torn

    def __call__(self, served: list[Adapter], length: int, path: str | None) -> FakeEngine:
        assert not served
        self.paths.append(path)
        outer = self

        class Swapping(FakeEngine):
            def swap(self, adapter: Adapter | None) -> None:
                if adapter and adapter.name == outer.torn:
                    raise AdapterError("has no place in this model")
                outer.held.append(adapter.name if adapter else "base")
                super().swap(adapter)

        engine = Swapping()
        if path:  # a merged copy answers as its adapter would
            engine._held = adapter_of(Path(path))
        return engine


def test_one_engine_holds_the_base_and_then_each_adapter(model: Path, tmp_path: Path) -> None:
    flags = [flag for seed in (1, 2) for flag in ("--adapter", str(model.parent / f"lora-{seed}"))]
    opened = Opened()
    base, one, two = run_evaluation(config(model, tmp_path, *flags), opened)
    assert opened.paths == [None] and opened.held == ["base", "lora-1", "lora-2"]
    letters = [run.predictions[LOGPROB_COLUMNS[0]].to_list() for run in (base, one, two)]
    assert letters[0] != letters[1] != letters[2]
    assert one.metrics.to_json()["adapter_mode"] == "swap" and "adapter_mode" not in base.metrics
    assert one.metrics.to_json()["adapter_shift"]["largest_nats"] > 0
    [again] = run_evaluation(config(model, tmp_path, "--no-base", *flags[:2]), opened)
    assert again.predictions.equals(one.predictions) and opened.paths == [None]  # found, nothing opened


def test_the_base_is_held_again_where_its_probes_are_missing(model: Path, tmp_path: Path) -> None:
    opened = Opened()
    run_evaluation(config(model, tmp_path, "--no-base", "--adapter", str(model.parent / "lora-1")), opened)
    assert opened.held == ["base", "lora-1"]


def test_what_does_not_go_in_is_merged(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        merging, "merge_adapter", lambda model, adapter, dtype: tmp_path / f"merged-{adapter.name}"
    )
    opened = Opened(torn="lora-2")
    flags = [
        flag for name in ("dora", "lora-2", "lora-1") for flag in ("--adapter", str(model.parent / name))
    ]
    with caplog.at_level("INFO", logger="kmmlu_fast"):
        runs = run_evaluation(config(model, tmp_path, *flags), opened)
    assert [run.metrics.adapter_mode for run in runs] == [None, "merge", "merge", "swap"]
    assert opened.paths == [None, str(tmp_path / "merged-dora"), None, str(tmp_path / "merged-lora-2"), None]
    log = caplog.text
    assert "dora: merged into a copy with PEFT, because it is DoRA (use_dora True" in log
    assert "lora-2: merged into a copy with PEFT, because has no place in this model" in log


def test_an_engine_that_holds_half_an_adapter_ends_the_evaluation(model: Path, tmp_path: Path) -> None:
    class Broken(FakeEngine):
        def swap(self, adapter: Adapter | None) -> None:
            if adapter:
                raise EngineError("half of it")

    with pytest.raises(EngineError, match="half of it"):
        run_evaluation(
            config(model, tmp_path, "--adapter", str(model.parent / "lora-1")), lambda *_: Broken()
        )


@pytest.mark.parametrize(
    ("flags", "mode"),
    [
        ([], "swap"),
        (["--adapter-mode", "swap"], "swap"),
        (["--adapter-mode", "merge"], "merge"),
        (["--adapter-mode", "serve"], "serve"),
        (["--engine", "ray"], "merge"),
        (["--load-format", "dummy"], "merge"),
        (["--engine", "server", "--base-url", "http://localhost:1/v1"], "serve"),
    ],
)
def test_modes_on_a_cpu(model: Path, tmp_path: Path, flags: list[str], mode: str) -> None:
    assert (
        choose_adapter_mode(config(model, tmp_path, *flags), adapter_of(model.parent / "lora-1"))[0] == mode
    )


def test_a_gpu_serves_by_itself_and_swaps_when_asked(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "has_gpu", lambda: True)
    adapter = adapter_of(model.parent / "lora-1")
    assert choose_adapter_mode(config(model, tmp_path), adapter)[0] == "serve"
    assert choose_adapter_mode(config(model, tmp_path, "--adapter-mode", "swap"), adapter)[0] == "swap"


@pytest.mark.parametrize("mode", ["swap", "merge"])
def test_a_server_takes_neither(model: Path, tmp_path: Path, mode: str) -> None:
    made = config(
        model, tmp_path, "--engine", "server", "--base-url", "http://localhost:1/v1", "--adapter-mode", mode
    )
    with pytest.raises(ConfigError, match=f"--adapter-mode {mode} does not go with --engine server"):
        choose_adapter_mode(made, adapter_of(model.parent / "lora-1"))
