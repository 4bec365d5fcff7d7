"""What a trainer's events do: a look that fails, one that clears the step's log, a cell that is run again."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.integrations.watch_callback import add_watch_callback


class Events:
    """Takes events; ``finish_step`` does what the test wants."""

    def __init__(self, exam: str = "kmmlu", finish: Any = lambda: False) -> None:
        self.exam, self._finish = exam, finish
        self.seen: list[str] = []

    def begin_training(self, step: int, total_steps: int) -> None:
        self.seen.append(f"begin {step} of {total_steps}")

    def begin_step(self) -> None:
        self.seen.append("step")

    def look_before_first_update(self) -> None:
        self.seen.append("update")

    def finish_step(self, step: int) -> bool:
        self.seen.append(f"finish {step}")
        return bool(self._finish())

    def end_early(self, step: int) -> None:
        self.seen.append(f"early {step}")

    def end_training(self) -> None:
        self.seen.append("end")

    def give_up(self, reason: str) -> None:
        self.seen.append(f"gave up: {reason}")


class Trainer:
    def __init__(self) -> None:
        self.callback_handler = SimpleNamespace(callbacks=[object()])

    def add_callback(self, callback: Any) -> None:
        self.callback_handler.callbacks.append(callback)

    def remove_callback(self, callback: Any) -> None:
        self.callback_handler.callbacks.remove(callback)


def control(**flags: bool) -> SimpleNamespace:
    return SimpleNamespace(**{"should_log": True, "should_training_stop": False, **flags})


STATE = SimpleNamespace(global_step=3, max_steps=9)


def callback_of(events: Events) -> Any:
    trainer = Trainer()
    add_watch_callback(trainer, events)
    return trainer.callback_handler.callbacks[-1]


def test_events_are_handed_over_in_order() -> None:
    events = Events()
    callback, now = callback_of(events), control()
    for name in ("on_train_begin", "on_step_begin", "on_pre_optimizer_step", "on_step_end", "on_epoch_end"):
        getattr(callback, name)(None, STATE, now)
    assert events.seen == ["begin 3 of 9", "step", "update", "finish 3"]
    callback.on_epoch_end(None, STATE, control(should_training_stop=True))
    callback.on_train_end(None, STATE, now)
    assert events.seen[4:] == ["early 3", "end"]


def test_the_steps_own_log_is_still_due_after_a_look() -> None:
    now = control()

    def look() -> bool:
        now.should_log = False  # as ``Trainer.log`` does
        return True

    callback_of(Events(finish=look)).on_step_end(None, STATE, now)
    assert now.should_log and now.should_training_stop


@pytest.mark.parametrize("error", [RunError("locked"), OSError("disk full"), RuntimeError("out of memory")])
def test_a_look_that_fails_does_not_end_the_training(error: Exception) -> None:
    def fail() -> bool:
        raise error

    events, now = Events(finish=fail), control()
    callback_of(events).on_step_end(None, STATE, now)
    assert events.seen == ["finish 3", f"gave up: {error}"] and not now.should_training_stop


def test_an_interrupt_passes() -> None:
    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        callback_of(Events(finish=interrupt)).on_step_end(None, STATE, control())


def test_a_second_watch_of_the_same_exam_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer()
    other, first, second = Events("own"), Events(), Events()
    for events in (other, first, second):
        add_watch_callback(trainer, events)
    watching = [getattr(each, "watching", None) for each in trainer.callback_handler.callbacks]
    assert watching == [None, other, second]


def test_a_script_is_told_what_a_watch_notes(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("kmmlu_fast")

    def note() -> bool:
        logger.info("watch: kmmlu at step 3")
        return False

    callback = callback_of(Events(finish=note))
    callback.on_step_end(None, STATE, control())
    assert capsys.readouterr().err == "watch: kmmlu at step 3\n"
    assert not logger.isEnabledFor(logging.INFO)  # as it was
