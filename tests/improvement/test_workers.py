"""Trainings in children and on Ray: errors come back as raised; what was lost is no recipe's fault."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.command.child import ChildKilledError
from kmmlu_fast.core.errors import EngineError, KmmluError, TrainError
from kmmlu_fast.core.locks import acquire_lock
from kmmlu_fast.engines.ray import cluster
from kmmlu_fast.improvement import workers
from kmmlu_fast.improvement.workers import (
    ChildWorkers,
    LostWorkError,
    RayWorkers,
    await_training_end,
    newest_step,
    run_steadily,
    trained_adapter_path,
)


def train_nothing(settings: dict[str, Any]) -> Path:
    folder = Path(settings["output_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    if settings.get("fault"):
        raise TrainError("no memory")
    if not (folder / "lost").exists() and settings.get("lost"):
        (folder / "lost").touch()
        os._exit(1)  # the machine went away
    (folder / "done").write_text(str(settings["seed"]))
    return folder


@pytest.mark.engine
@pytest.mark.alone
def test_two_ray_workers_train_all_pieces_and_repeat_a_lost_one(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pieces = [{"output_dir": tmp_path / str(n), "seed": n, "lost": n == 1} for n in range(3)]
    done = {trained.piece: trained.path for trained in RayWorkers(None, train_nothing).train(pieces)}
    assert done == {n: tmp_path / str(n) for n in range(3)}
    assert [(tmp_path / str(n) / "done").read_text() for n in range(3)] == ["0", "1", "2"]
    (failed,) = RayWorkers(None, train_nothing).train(
        [{"output_dir": tmp_path / "f", "seed": 1, "fault": True}]
    )
    assert failed.path is None and isinstance(failed.error, TrainError) and "no memory" in str(failed.error)


def test_a_directory_without_an_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="holds no adapter and no checkpoint"):
        trained_adapter_path(tmp_path)


def test_a_child_that_fails_is_told_and_the_next_piece_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "train_in_child", train_nothing)
    pieces = [
        {"output_dir": tmp_path / "f", "seed": 1, "fault": True},
        {"output_dir": tmp_path / "g", "seed": 2},
    ]
    failed, done = ChildWorkers().train(pieces)
    assert (failed.piece, failed.path) == (0, None) and "no memory" in str(failed.error)
    assert (done.piece, done.path, done.error) == (1, tmp_path / "g", None)


def killed_by(*numbers: int) -> Callable[[], str]:
    """A piece of work whose first children are ended by these signals."""
    left = list(numbers)

    def work() -> str:
        if left:
            raise TrainError("train was ended") from ChildKilledError(left.pop(0))
        return "done"

    return work


def test_a_killed_child_is_continued_once() -> None:
    assert run_steadily(killed_by()) == run_steadily(killed_by(signal.SIGKILL)) == "done"
    with pytest.raises(TrainError, match=r"killed twice \(SIGKILL\), perhaps for want of memory: train was"):
        run_steadily(killed_by(signal.SIGKILL, signal.SIGKILL))


@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGKILL, signal.SIGHUP)])
def test_a_child_that_was_asked_to_end_ends_the_command(numbers: Sequence[int]) -> None:
    with pytest.raises(LostWorkError, match="the same command continues"):
        run_steadily(killed_by(*numbers))


def test_a_fault_of_ones_own_is_not_tried_again() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise EngineError("no memory")

    with pytest.raises(EngineError, match=r"^no memory$"):
        run_steadily(work)
    assert len(calls) == 1


def test_pieces_after_a_lost_one_are_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(settings: dict[str, Any]) -> Path:
        raise LostWorkError("gone")

    monkeypatch.setattr(workers, "train_in_child", lose)
    with pytest.raises(LostWorkError, match="gone"):
        list(ChildWorkers().train([{"output_dir": tmp_path}]))


class RayError(Exception):
    """As Ray's errors are: one tree."""


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class OutOfMemoryError(RayError):
    pass


def made_ray(results: dict[str, Any], options: dict[str, Any]) -> Any:
    """Ray in one process. ``results``: by directory, what ``get`` gives or raises."""

    def get(reference: str) -> Any:
        if isinstance(results[reference], Exception):
            raise results[reference]
        return results[reference]

    def remote(**given: Any) -> Callable[[Any], Any]:
        options.update(given)
        return lambda task: SimpleNamespace(remote=lambda train, settings, folder: settings["output_dir"])

    errors = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, OutOfMemoryError=OutOfMemoryError)
    return SimpleNamespace(
        exceptions=errors,
        cluster_resources=lambda: {"CPU": 2.0},
        remote=remote,
        wait=lambda waiting, num_returns: (waiting[:1], waiting[1:]),
        get=get,
        shutdown=lambda: None,
    )


def train_on_ray(
    monkeypatch: pytest.MonkeyPatch, results: dict[str, Any]
) -> tuple[dict[str, KmmluError | None], str]:
    """The errors of what came back, by directory, and what ended it."""
    options: dict[str, Any] = {}
    ray = made_ray(results, options)
    monkeypatch.setattr(cluster, "import_ray", lambda address: ray)
    monkeypatch.setattr(cluster, "connect_ray", lambda *_: True)
    done: dict[str, KmmluError | None] = {}
    names, end = list(results), ""
    try:
        for piece in RayWorkers("h:1").train([{"output_dir": name} for name in names]):
            done[names[piece.piece]] = piece.error
    except LostWorkError as error:
        end = str(error)
    assert options["retry_exceptions"] == [LostWorkError]
    return done, end


def test_what_ray_loses_ends_the_command_after_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = (Path("out"), 1.0)
    results = {"a": RayError("node died"), "b": sound, "c": RayTaskError(LostWorkError("ended")), "d": sound}
    done, end = train_on_ray(monkeypatch, results)
    assert done == {"b": None, "d": None}
    assert end == "ended"
    _, end = train_on_ray(monkeypatch, {"a": RayError("no cluster")})
    assert "a training on Ray was lost" in end and "the same command continues" in end


def test_a_recipe_that_takes_all_memory_of_a_machine_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {"a": OutOfMemoryError("too big"), "b": RayTaskError(TrainError("NaN")), "c": (Path("o"), 1.0)}
    done, end = train_on_ray(monkeypatch, results)
    assert "want of memory: too big" in str(done["a"]) and str(done["b"]) == "NaN" and not end


def test_a_training_elsewhere_stands_in_the_commands_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's workers stand where its daemon was started."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)

    def train(settings: dict[str, Any]) -> Path:
        return Path.cwd()

    assert workers._time_training(train, {}, str(tmp_path / "here"))[0] == tmp_path / "here"
    assert workers._time_training(train, {}, str(tmp_path / "absent"))[0] == tmp_path == Path.cwd()


def test_a_training_that_was_left_behind_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_LEFT_BEHIND_SEC", 0.1)
    await_training_end(tmp_path)
    assert not list(tmp_path.iterdir())  # which train would take for another's
    (tmp_path / "checkpoints").mkdir()
    lock = acquire_lock(tmp_path / "checkpoints" / ".lock", TrainError("in use"))
    with lock, pytest.raises(LostWorkError, match="left behind is still training there"):
        await_training_end(tmp_path)
    await_training_end(tmp_path)


def test_how_far_a_training_is(tmp_path: Path) -> None:
    assert newest_step(tmp_path) is None
    for step, is_complete in ((2, True), (10, True), (12, False)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if is_complete:
            (folder / "complete.json").write_text("{}")
    assert newest_step(tmp_path) == tmp_path / "checkpoints" / "checkpoint-10"
