"""The callback that hands a transformers trainer's events to what watches the training.

In: a trainer, and what takes its events. Out: the callback in the trainer. What a look raises ends the
looking, never the training. Knows nothing of questions or models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from kmmlu_fast.core.console import log_note, show_notes_by_default
from kmmlu_fast.core.errors import KmmluError
from kmmlu_fast.core.untrusted_text import one_line


class TrainingEvents(Protocol):
    """What watches a training (``watch.Watch``)."""

    @property
    def exam(self) -> str: ...
    def begin_training(self, step: int, total_steps: int) -> None: ...
    def begin_step(self) -> None: ...
    def look_before_first_update(self) -> None: ...
    def finish_step(self, step: int) -> bool: ...
    def end_early(self, step: int) -> None: ...
    def end_training(self) -> None: ...
    def give_up(self, reason: str) -> None: ...


def add_watch_callback(trainer: Any, watching: TrainingEvents) -> None:
    """Let ``trainer`` hand over its events. A watch of the same exam is replaced, as if a notebook's cell is
    run again.
    """
    for callback in list(getattr(getattr(trainer, "callback_handler", None), "callbacks", ())):
        if (earlier := getattr(callback, "watching", None)) and earlier.exam == watching.exam:
            trainer.remove_callback(callback)
            log_note(f"watch: note: replaces the earlier watch of {watching.exam} on this trainer")
    trainer.add_callback(_make_callback(watching))


def _make_callback(watching: TrainingEvents) -> Any:
    from transformers import TrainerCallback

    class KmmluWatch(TrainerCallback):  # type: ignore[misc]
        """Hands the loop's events to a ``Watch``."""

        def __init__(self) -> None:
            self.watching = watching

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            _guard(watching, watching.begin_training, state.global_step, state.max_steps)

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            _guard(watching, watching.begin_step)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            _guard(watching, watching.look_before_first_update)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            due = control.should_log  # logging a look clears it, and the step's own log would be lost
            if _guard(watching, watching.finish_step, state.global_step):
                control.should_training_stop = True
            control.should_log = due

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            due = control.should_log
            if control.should_training_stop:
                _guard(watching, watching.end_early, state.global_step)
            control.should_log = due

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            _guard(watching, watching.end_training)

    return KmmluWatch()


def _guard(watching: TrainingEvents, event: Callable[..., Any], *arguments: Any) -> Any:
    """Hand over an event. A look that fails ends the looking, never the training."""
    with show_notes_by_default():
        try:
            return event(*arguments)
        except (KmmluError, OSError, RuntimeError, MemoryError) as error:
            watching.give_up(one_line(str(error) or type(error).__name__, 300))
            return None
