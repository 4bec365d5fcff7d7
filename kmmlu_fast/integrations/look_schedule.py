"""When to look at a training, and at how many questions, so that looking takes a fixed share of the time.

In: seconds, as they pass. Out: a number of questions, and whether to look after a step. Pure: the caller has
the clock. Knows nothing of models.

The first look is at the untrained model. How many questions it may ask follows from the time of a step, which
the caller has measured: the first step is often slower than the others, so not from that one if there is a
choice. Otherwise a look takes a sixth of what may be spent: a first step that took five times as long as the
others then leaves the share intact.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOKS = 6  # wanted: the untrained model, four on the way, the end
FEWEST_QUESTIONS = 32


@dataclass(slots=True, kw_only=True)
class LookSchedule:
    """``share`` of the whole training's time; None: look every ``every`` steps, whatever it takes."""

    share: float | None
    every: int | None
    total_steps: int
    first_step: int = 0
    started_sec: float = 0.0
    looking_sec: float = 0.0  # in all looks so far
    questions: int = 0  # asked each time
    question_sec: float = 0.0  # the slowest look's
    looks: int = 0

    def question_count(
        self, wanted: int, sec_per_question: float, step_sec: float, *, is_first_step: bool = False
    ) -> int:
        """How many of ``wanted`` questions may be asked each time; 0: too few to say anything.
        ``is_first_step``: whose time ``step_sec`` is.
        """
        if self.share is None:
            return wanted
        budget_sec = self.share * step_sec * (self.total_steps - self.first_step)
        for looks in (LOOKS,) if is_first_step else (LOOKS, 3, 2):
            count = int(budget_sec / looks / max(sec_per_question, 1e-9))
            if count >= FEWEST_QUESTIONS:
                return min(wanted, count)
        return 0

    def needed_share(self, sec_per_question: float, step_sec: float, *, is_first_step: bool = False) -> float:
        """The share of time at which the fewest questions could be asked twice, or after the first step alone
        as often as is wanted.
        """
        total_sec = step_sec * (self.total_steps - self.first_step)
        looks = LOOKS if is_first_step else 2
        return looks * FEWEST_QUESTIONS * sec_per_question / max(total_sec, 1e-9)

    def add_look(self, seconds: float, questions: int) -> None:
        """Count a look that asked so many questions; the first one decides how many are asked each time."""
        self.questions = self.questions or questions
        self.looking_sec += seconds
        self.question_sec = max(self.question_sec, seconds / max(questions, 1))
        self.looks += 1

    def questions_due(self, step: int, now_sec: float) -> int:
        """How many questions to ask after ``step``; 0: do not look.

        Looks are spread evenly, and one is saved up for the end. If less is left by then, because the first
        step was slow, the last look asks fewer questions.
        """
        if self.share is None:
            due = step >= self.total_steps or (self.every is not None and step % self.every == 0)
            return self.questions if due else 0
        elapsed_sec = now_sec - self.started_sec
        training_sec = max(elapsed_sec - self.looking_sec, 1e-9)
        done = max(step - self.first_step, 1)
        if step >= self.total_steps:
            left_sec = (self.share * elapsed_sec - self.looking_sec) / (1 - self.share)
            count = min(self.questions, int(left_sec / max(self.question_sec, 1e-9)))
            return count if count >= min(FEWEST_QUESTIONS, self.questions) else 0
        whole_sec = elapsed_sec + training_sec / done * (self.total_steps - step)
        look_sec = self.question_sec * self.questions
        affordable = self.looking_sec + 2 * look_sec <= self.share * whole_sec
        progress = done / max(self.total_steps - self.first_step, 1)
        due = affordable and self.looking_sec + look_sec <= self.share * whole_sec * progress
        return self.questions if due else 0

    def share_so_far(self, now_sec: float) -> float:
        """The share of the time until now that looking took."""
        return self.looking_sec / max(now_sec - self.started_sec, 1e-9)
