"""``watch(trainer)``: the KMMLU curve while a transformers, TRL or Unsloth trainer trains.

In: a trainer that has not started. Out: a callback in it, which asks the model in memory a fixed set of
questions between steps, and logs what it finds to wherever the trainer reports. Nothing is trained on, the
model is left as it was, and the test split is asked only if that is requested and counted.

transformers gives callbacks no trainer, and runs reporters before other callbacks, so the callback holds the
trainer and logs through ``trainer.log``. It does so in evaluation mode: in training mode TRL's ``log`` would
take its own averages along and start them again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmmlu_fast.analysis.error_spending import next_level
from kmmlu_fast.analysis.training_look import AnsweredQuestion, Look, StopRule, compare_with_start
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.console import log_note, show_notes_by_default
from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.errors import ConfigError, KmmluError
from kmmlu_fast.data.default_exam import DEFAULT_DATASET, DEFAULT_EXAM
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.integrations.asked_questions import AskedQuestions, choose_asked_questions
from kmmlu_fast.integrations.curve_record import (
    CurveRecord,
    curve_record_path,
    find_differences,
    keep_curve_record,
    model_label,
    read_curve_record,
    write_curve_record,
)
from kmmlu_fast.integrations.kept_weights import KeptWeights, keep_trained_weights
from kmmlu_fast.integrations.live_model import LiveModel
from kmmlu_fast.integrations.look_schedule import FEWEST_QUESTIONS, LookSchedule
from kmmlu_fast.integrations.text_loss import text_loss_requests, text_losses
from kmmlu_fast.integrations.watch_callback import add_watch_callback
from kmmlu_fast.integrations.watch_settings import changes_weights_in_backward, check_watch_settings
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.prompting.predictions import prediction_letter_mass
from kmmlu_fast.runs.comparison_log import LoggedComparison, log_comparisons

_TIMED_QUESTIONS, _TIMED_STEPS = 16, 3


class Watch:
    """What ``watch`` returns: ``looks`` so far, ``notes``, and ``stopped`` (why it stopped the training)."""

    def __init__(
        self,
        trainer: Any,
        asked: AskedQuestions,
        *,
        exam: str,
        share_of_time: float | None,
        every: int | None,
        stop_when: StopRule | None,
        base_run: Path | None,
    ) -> None:
        self._trainer, self._asked, self._exam = trainer, asked, exam
        self._stop_when, self._base_run = stop_when, base_run
        self._model = LiveModel(trainer)
        self._texts = text_loss_requests(_text_tokenizer(trainer))
        self._share, self._every = share_of_time, every
        self._schedule: LookSchedule | None = None
        self._start: dict[str, AnsweredQuestion] | None = None
        self._start_asked: dict[str, Any] = {}
        self._restored_looks = 0  # of the training that is resumed
        self._training = self._name_training()
        self._kept: KeptWeights | None = None  # of step 0, until a step's time is known
        self._step_ends: dict[int, float] = {}  # until then; seconds of the clock by step
        self._has_begun = self._is_start_due = False
        self._has_ended = False
        self.looks: list[Look] = []
        self.notes: list[str] = list(asked.notes)
        self.stopped: str | None = None

    @property
    def _record_path(self) -> Path:
        return curve_record_path(Path(self._trainer.args.output_dir), self._exam)

    @property
    def exam(self) -> str:
        """The exam's name."""
        return self._exam

    @property
    def share_of_time(self) -> float:
        """The share of the training's time that looking has taken."""
        return self._schedule.share_so_far(time.monotonic()) if self._schedule else 0.0

    def _name_training(self) -> str:
        return compute_fingerprint({"started": time.time_ns(), "exam": self._exam}, 32)

    def begin_training(self, step: int, total_steps: int) -> None:
        """Call before the first step of a training, or of the part that is resumed at ``step``."""
        self._schedule = LookSchedule(
            share=self._share,
            every=self._every,
            total_steps=total_steps,
            first_step=step,
            started_sec=time.monotonic(),
        )
        self._kept, self._step_ends = None, {}
        self._has_begun = self._is_start_due = False
        if step > 0:
            self._restore_start(step)
        elif self._has_ended:  # another training of the same trainer
            self._start, self._start_asked, self._restored_looks = None, {}, 0
            self._training = self._name_training()
        self._has_ended, self.stopped = False, None

    def begin_step(self) -> None:
        """Call before a step. Before the first one the model is asked, or its weights are kept until the time
        of a step is known; if they are too many, it is asked before the first update.
        """
        schedule = self._schedule
        if schedule is None or self._has_begun:
            return
        self._has_begun = True
        schedule.started_sec = time.monotonic()  # what came before is no step: an evaluation, skipped rows
        if self._share is None:
            self._look_at_start(schedule, None)
            return
        self._kept = keep_trained_weights(self._trainer.model)
        self._is_start_due = self._kept is not None
        if not self._is_start_due and changes_weights_in_backward(self._trainer):
            self._add_note(
                "the optimiser changes weights in the backward pass, before a step is timed; give every"
            )
            self._schedule = None

    def look_before_first_update(self) -> None:
        """Call when the first step's gradients are known and no weight has changed."""
        schedule = self._schedule
        if schedule is None or schedule.looks or self._is_start_due:
            return
        self._look_at_start(schedule, time.monotonic() - schedule.started_sec, is_first_step=True)

    def _look_when_step_is_timed(self, schedule: LookSchedule, step: int) -> None:
        """After a few steps, for the first is often slower than the others: look at the weights of step 0."""
        self._step_ends.setdefault(step, time.monotonic())
        if len(self._step_ends) < _TIMED_STEPS and step < schedule.total_steps:
            return
        self._is_start_due = False
        ends = list(self._step_ends.values())
        times = [after - before for before, after in itertools.pairwise(ends)]
        kept, self._kept = self._kept, None
        if kept is not None:
            with kept.in_place():
                self._look_at_start(schedule, min(times, default=ends[0] - schedule.started_sec))

    def _look_at_start(
        self, schedule: LookSchedule, step_sec: float | None, *, is_first_step: bool = False
    ) -> None:
        """``step_sec``: what a step takes; None: that does not matter."""
        began_sec = time.monotonic()
        timed = self._ask(0, min(_TIMED_QUESTIONS, len(self._asked.items)))
        question_sec = (time.monotonic() - began_sec) / len(timed)
        timing = {"sec_per_question": question_sec, "step_sec": step_sec or 0.0}
        count = schedule.question_count(len(self._asked.items), **timing, is_first_step=is_first_step)
        if count == 0:
            needed = schedule.needed_share(**timing, is_first_step=is_first_step)
            self._add_note(
                f"this training is too short to be watched in {self._share:.0%} of its time: asking"
                f" {FEWEST_QUESTIONS} questions twice needs about {needed:.0%}; give share_of_time or every"
            )
            self._schedule = None
            return
        if self._start is not None:  # of the training that is resumed
            schedule.add_look(time.monotonic() - began_sec, len(timed))
            schedule.questions = len(self._start)
            return
        self._start = timed | self._ask(len(timed), max(count, len(timed)))
        self._start_asked = self._how_asked(len(self._start))
        losses = text_losses(self._model.ask(self._texts))
        schedule.add_look(time.monotonic() - began_sec, len(self._start))
        self._report(compare_with_start(schedule.first_step, 0, self._start, None, losses))
        self._write_start(schedule.first_step)

    def end_training(self) -> None:
        """Call after the last step."""
        self._kept, self._has_ended = None, True
        if self._schedule is not None and self._schedule.looks == 1 and self._start is not None:
            self._add_note(
                f"no later look fitted into {self._share:.0%} of this training's time, so there is no curve;"
                " give share_of_time or every"
                if self._share is not None
                else "the training ended before a look was due"
            )

    def end_early(self, step: int) -> None:
        """Call if the training stops before its planned end: the last look is due now."""
        if self._schedule is not None and not (self.looks and self.looks[-1].step == step):
            self._schedule.total_steps = step
            self.finish_step(step)

    def give_up(self, reason: str) -> None:
        """Look no more at this training."""
        self._schedule, self._kept, self._is_start_due = None, None, False
        self._add_note(f"no more looks at this training: {reason}")

    def finish_step(self, step: int) -> bool:
        """Call after a step. True: stop training now."""
        if self._schedule is not None and self._is_start_due:
            self._look_when_step_is_timed(self._schedule, step)
        schedule, start = self._schedule, self._start
        if schedule is None or start is None or not schedule.looks:
            return False
        count = min(schedule.questions_due(step, time.monotonic()), len(start))
        if count == 0:
            return False
        began_sec = time.monotonic()
        now = {name: answer for name, answer in self._ask(0, count).items() if name in start}
        losses = text_losses(self._model.ask(self._texts))
        look = compare_with_start(step, self._looks_done() + 1, now, start, losses)
        schedule.add_look(time.monotonic() - began_sec, count)
        self._count_look_at_test(look)
        self._report(look)
        self._write_start(step)
        self.stopped = look.stop_reason(self._stop_when)
        if self.stopped:
            log_note(f"watch: stopped at step {step}: {self.stopped}")
        return self.stopped is not None

    def _looks_done(self) -> int:
        return self.looks[-1].number if self.looks else self._restored_looks

    def _ask(self, start: int, stop: int) -> dict[str, AnsweredQuestion]:
        """The model's letters for some questions, in their order."""
        predictions = self._asked.read(self._model.ask(self._asked.requests(start, stop)))
        return {
            name: AnsweredQuestion(
                predictions[name].answer,
                predictions[name].prediction,
                prediction_letter_mass(predictions[name]),
            )
            for name in self._asked.question_ids[start:stop]
        }

    def _report(self, look: Look) -> None:
        self.looks.append(look)
        log_note(f"watch: {self._exam} at {look}")
        entry = look.log_entry(self._exam)
        entry[f"{self._exam}/share_of_time"] = self.share_of_time
        if getattr(self._trainer.args, "log_completions", False):  # TRL prints them at every log
            from transformers import Trainer

            Trainer.log(self._trainer, entry)
            return
        model = self._trainer.model
        training = model.training
        model.training = False  # this flag alone tells TRL which of its averages to log
        try:
            self._trainer.log(entry)
        finally:
            model.training = training

    def _add_note(self, text: str) -> None:
        self.notes.append(text)
        log_note(f"watch: note: {text}")

    def _count_look_at_test(self, look: Look) -> None:
        """A look at test is a comparison with the base like any other: it is logged beside the base's run."""
        if self._base_run is None or look.difference is None:
            return
        digest = compute_fingerprint({"watch": self._training, "step": look.step}, 64)
        logged = LoggedComparison(
            adapter=digest,
            name=f"watch at step {look.step}",
            time_utc="",
            questions=look.questions,
            p_value=look.p_value,
            difference=look.difference.value,
        )
        log_comparisons(self._base_run, [logged], next_level)

    def _how_asked(self, count: int) -> dict[str, Any]:
        """What identifies the first ``count`` answers; others are not compared with them."""
        name = str(getattr(self._trainer.model.config, "name_or_path", None) or "")
        return {
            **self._asked.settings,
            "model": model_label(name, Path(self._trainer.args.output_dir)),
            "prompts": self._asked.prompts_digest(count),
        }

    def _write_start(self, step: int) -> None:
        """Keep the answers of step 0, so that a resumed training is still compared with them."""
        start = self._start or {}
        record = CurveRecord(
            training=self._training,
            looks=self._looks_done(),
            step=step,
            start={name: answer.prediction for name, answer in start.items()},
            asked=self._start_asked,
        )
        write_curve_record(self._record_path, record)

    def _restore_start(self, step: int) -> None:
        """Continue the curve of the training that is resumed, or say why a new one begins."""
        self._start = None
        try:
            record = read_curve_record(self._record_path)
        except KmmluError:
            self._add_note(
                f"the training was resumed at step {step}, and the answers from before its first step are not"
                f" known: differences are to step {step}"
            )
            return
        asked = self._how_asked(len(record.start))
        differing = find_differences(record, asked, self._asked.question_ids)
        if differing:
            self._add_note(
                f"the training was resumed at step {step}, and its earlier looks asked differently"
                f" ({', '.join(differing)}): a new curve begins, whose differences are to step {step}; the"
                f" start of the earlier one is kept in {keep_curve_record(self._record_path, record)}"
            )
            return
        keys = {item.question.question_id: item.question.answer for item in self._asked.items}
        self._start = {name: AnsweredQuestion(keys[name], letter) for name, letter in record.start.items()}
        known = {name: value for name, value in asked.items() if value is not None}
        self._start_asked = {**record.asked, **known}
        self._restored_looks, self._training = record.looks, record.training


def watch(
    trainer: Any,
    exam: str = DEFAULT_EXAM,
    *,
    dataset: str = DEFAULT_DATASET,
    split: str = "train",
    subjects: Sequence[str] = (),
    questions: int = 450,
    prompt_style: str | None = None,
    share_of_time: float | None = 0.05,
    every: int | None = None,
    stop_when: StopRule | None = None,
    base_run: str | Path | None = None,
    seed: int = 42,
) -> Watch:
    """Follow ``trainer`` on a fixed set of exam questions. Call before ``trainer.train()``.

    Works with transformers' ``Trainer``, TRL's trainers and Unsloth models. The model in memory is asked for
    letters between steps: the first ``questions`` of a random order of the split, without those that occur
    in the training rows. Logged through the trainer: ``<exam>/accuracy``, ``difference`` to step 0 with
    ``difference_low`` and ``difference_high`` (a 95 % band that is valid over all looks together, whenever
    you stop), ``share_A`` to ``share_D`` of the predictions, ``letter_mass`` (the probability that the next
    token is a letter, " A" or "A"), ``forgetting/loss_en`` and ``loss_ko`` (nats per token of plain text).

    ``share_of_time``: looking takes at most this share of the training's time; fewer questions are asked if
    need be. ``every``: look every so many steps instead, whatever it takes. ``stop_when="worse"`` stops when
    the band is below zero, or predictions collapse onto one letter; ``"collapsed"`` for the latter alone.
    ``split="test"`` needs ``base_run``, the run directory of the base on test, where each look is counted as
    a comparison.

    Raises ``ConfigError`` for settings that do not go together, ``DataError`` if the exam cannot be read.
    """
    require_modules("watch", "torch", "transformers", "accelerate")
    check_watch_settings(trainer, split, questions, share_of_time, every, stop_when, base_run)
    config = build_config(
        EvalConfig,
        exam=[exam],
        dataset=dataset,
        split=split,
        subjects=list(subjects),
        prompt_style=prompt_style,
        seed=seed,
    )
    tokenizer = _text_tokenizer(trainer)
    context = int(getattr(trainer.model.config.get_text_config(), "max_position_embeddings", 0) or 2048)
    asked = choose_asked_questions(
        config, tokenizer, questions, getattr(trainer, "train_dataset", None), context
    )
    watching = Watch(
        trainer,
        asked,
        exam=str(asked.settings["exam"]),
        share_of_time=None if every else share_of_time,
        every=every,
        stop_when=stop_when,
        base_run=None if base_run is None else Path(base_run),
    )
    with show_notes_by_default():
        for text in asked.notes:
            log_note(f"watch: note: {text}")
        add_watch_callback(trainer, watching)
    return watching


def _text_tokenizer(trainer: Any) -> Any:
    """The trainer's tokenizer; a processor of several kinds of input holds one."""
    processing = getattr(trainer, "processing_class", None)
    if processing is None:
        raise ConfigError("watch: the trainer has no tokenizer; give it one as processing_class")
    is_processor = any(kind.__name__ == "ProcessorMixin" for kind in type(processing).__mro__)
    return processing.tokenizer if is_processor else processing  # a tokenizer may hold another one, too
