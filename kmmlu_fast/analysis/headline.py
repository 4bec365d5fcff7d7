"""One run in one row: accuracy over questions and over subjects, letter habits, constant-answer baselines.

In: a loaded run, the ids of questions that overlap training data. Out: a ``Headline``, numbers only. Knows
nothing of languages or layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from kmmlu_fast.analysis.accuracy import letters_of_frame, wilson_interval
from kmmlu_fast.analysis.letter_bias.letter_prior import LetterHabit, RunLetters, letter_codes, letter_habit
from kmmlu_fast.analysis.paired import subject_size_weights
from kmmlu_fast.runs.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A run's numbers; shares and accuracies 0-1; None = not known (a score file has only counts)."""

    name: str
    kind: str  # Run.kind
    questions: int
    subjects: int
    correct: int
    micro: float
    weighted: bool  # micro weights each subject by its full size, as the sample has other proportions
    low: float  # Wilson interval of micro, 95 %
    high: float
    macro: float
    clean: float | None  # micro without the questions that overlap training data
    overlapping: int  # of this run's questions
    balanced: float | None  # mean recall over the key's letters
    expected: float | None  # accuracy from letter habit alone
    shares: tuple[float, ...] | None  # each letter's share of all answers
    constant: tuple[str, float] | None  # the best constant answer and its accuracy
    unparsed: int | None
    forced: int | None
    prompt_tokens: int | None
    output_tokens: int | None
    seconds: float | None  # if all of its questions were asked in one pass
    supercategories: dict[str, float]

    @property
    def tokens_per_question(self) -> float | None:
        """Prompt and output together."""
        if not self.prompt_tokens:
            return None
        return (self.prompt_tokens + (self.output_tokens or 0)) / self.questions


def compute_headline(
    run: Run, overlap: frozenset[str] = frozenset(), sizes: dict[str, int] | None = None
) -> Headline:
    """One run's row of the multi-run table.

    ``sizes``: the subjects' full numbers of questions. If the run's subjects have other proportions
    (``--limit``), micro weights each subject by its size (``weighted``); else it would equal macro.
    """
    correct, total = run.correct, run.total
    micro, size, weighted = correct / total, float(total), False
    weights = subject_size_weights(run.scores.rename({"total": "n"}), sizes)
    if weights is not None:
        n = run.scores["total"].to_numpy()
        micro, weighted = float(weights @ (run.scores["correct"].to_numpy() / n)), True
        size = 1.0 / float((weights**2 / n).sum())  # effective sample size
    low, high = wilson_interval(micro * size, size)
    groups = (
        run.scores.group_by("supercategory")
        .agg(pl.col("correct").sum() / pl.col("total").sum())
        .sort("supercategory")
    )
    frame = run.predictions
    ids = frame["question_id"] if frame is not None else pl.Series([], dtype=pl.String)
    on_list = ids.is_in(overlap)
    alike = frame is not None and frame["num_options"].n_unique() == 1
    habit = letter_habit_of_frame(frame) if alike and frame is not None else None
    tokens = None if frame is None else int(frame["prompt_tokens"].sum()) or None
    speed = run.metrics.speed
    return Headline(
        name=run.name,
        kind=run.kind,
        questions=total,
        subjects=len(run.scores),
        correct=correct,
        micro=micro,
        weighted=weighted,
        low=low,
        high=high,
        macro=run.macro,
        clean=frame.filter(~on_list)["correct"].mean() if frame is not None and overlap else None,  # type: ignore[arg-type]
        overlapping=int(on_list.sum()) if overlap else 0,
        balanced=habit.balanced_accuracy if habit else run.metrics.balanced_accuracy,
        expected=habit.expected_accuracy if habit else None,
        shares=habit.shares if habit else None,
        constant=_best_constant_answer(frame),
        unparsed=None if frame is None else frame["prediction"].null_count(),
        forced=None if frame is None else int(frame["forced"].sum()),
        prompt_tokens=tokens,
        output_tokens=None if frame is None or tokens is None else int(frame["output_tokens"].sum()),
        seconds=speed.seconds if speed is not None and speed.questions == total else None,
        supercategories=dict(groups.iter_rows()),
    )


def _best_constant_answer(frame: pl.DataFrame | None) -> tuple[str, float] | None:
    """The key's most frequent letter (the earlier on a tie), and its share."""
    if frame is None or frame.is_empty():
        return None
    counts = frame["answer"].value_counts().sort("count", "answer", descending=[True, False])
    letter, count = counts.row(0)
    return str(letter), count / len(frame)


def letter_habit_of_frame(frame: pl.DataFrame) -> LetterHabit:
    """A single run's letters against its key's; every question has the same number of options."""
    letters = letters_of_frame(frame)
    key, predicted = (letter_codes(frame[name], letters) for name in ("answer", "prediction"))
    return letter_habit(key, RunLetters(predicted), len(letters))
