"""train_monitor: letter statistics by hand, collapse warnings, the best kept, early stop, NaN,
and a log that can be rewound.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.models.adapters import read_training_log
from kmmlu_fast.training.held_out import (
    HeldOutMeasurement,
    accuracy_change_p_value,
    collapse_warnings,
    is_better,
    selection_notes,
    summarise_held_out,
)
from kmmlu_fast.training.monitor import Monitor
from kmmlu_fast.training.trainer import publish_measurement


def held(step: int, loss: float, predictions: str = "ABCD", answers: str = "ABCD") -> HeldOutMeasurement:
    return summarise_held_out(step, loss, list(answers), list(predictions))


def test_accuracy_and_balanced_accuracy_differ_by_hand() -> None:
    # key: 4 A, 1 B, 1 C; always A: accuracy 4/6, recalls 1, 0, 0 -> balanced 1/3; D does not occur and does
    # not count
    found = held(7, 1.5, "AAAAAA", "AAAABC")
    assert found.accuracy == pytest.approx(4 / 6) and found.balanced_accuracy == pytest.approx(1 / 3)
    assert found.letter_share == {"A": 1, "B": 0, "C": 0, "D": 0} and found.answer_share[
        "A"
    ] == pytest.approx(4 / 6)
    with pytest.raises(ValueError, match="no held-out rows"):
        summarise_held_out(0, 1.0, [], [])


def test_collapse_is_a_warning_above_sixty_percent() -> None:
    base = held(0, 2.0, "AABC", "ABCD")
    at_sixty = held(5, 1.0, "AAABCAAABC", "AAABCAAABC")
    assert at_sixty.letter_share["A"] == 0.6 and collapse_warnings(base, at_sixty) == []
    [warning] = collapse_warnings(base, held(5, 1.0, "DDDDDABC", "DDDDDABC"))  # 62 % D, all of them right
    assert "letter collapse: 62% of the 8 held-out predictions are D" in warning


def test_collapse_and_a_fall_are_both_said() -> None:
    base = held(0, 2.0, "ABCC" * 12, "ABCD" * 12)
    warnings = collapse_warnings(base, held(5, 1.0, "DDDD" * 12, "ABCD" * 12))
    assert len(warnings) == 2
    assert "letter collapse: 100% of the 48 held-out predictions are D (base: 0%, key: 25%)" in warnings[0]
    assert "fell from the base's 0.750 to 0.250 (paired p 0.001)" in warnings[1]


def test_a_fall_that_chance_gives_is_not_said() -> None:
    """48 rows, two states of the same skill: a fall was said in half of such runs."""
    chance, said = random.Random(0), 0
    key = "ABCD" * 12
    for _ in range(400):
        one, other = (
            "".join(k if chance.random() < 0.5 else chance.choice("ABCD") for k in key) for _ in range(2)
        )
        said += any(
            "fell from" in warning
            for warning in collapse_warnings(held(0, 1.0, one, key), held(5, 1.0, other, key))
        )
    assert said <= 400 * 0.05


def test_the_fall_is_tested_row_by_row() -> None:
    # 4 rows a letter; 6 rows change, all to wrong, on two letters: change -6/16, variance 6/16^2 -> z =
    # -sqrt(6)
    key = "AAAABBBBCCCCDDDD"
    p = accuracy_change_p_value(held(0, 1.0, key, key), held(1, 1.0, "BBBABBBBCCCCAAAD", key))
    assert p == pytest.approx(2 * 0.5 * math.erfc(6**0.5 / 2**0.5))
    assert accuracy_change_p_value(held(0, 1.0, key, key), held(1, 1.0, key, key)) == 1.0
    before = HeldOutMeasurement(
        step=0, loss=1.0, num_rows=4, accuracy=1.0, balanced_accuracy=1.0, letter_share={}, answer_share={}
    )
    assert (
        accuracy_change_p_value(before, held(1, 1.0, "ABCD", "ABCD")) is None
    )  # a log of before has no rows


def test_the_base_can_win_and_a_maximum_is_called_optimistic() -> None:
    base, worse, better = held(0, 1.0, "ABCA"), held(4, 1.5, "ABAA"), held(4, 0.5, "ABCD")
    [note] = selection_notes(base, worse, 10, "best-loss")
    assert note.startswith("the base wins: none of 10 measurements on the 4 held-out rows")
    [note] = selection_notes(base, better, 10, "best-accuracy")
    assert "accuracy 1.000 is that of the best of 10 measurements" in note and "optimistic" in note
    assert selection_notes(base, better, 1, "best-loss") == []


def test_better_by_loss_or_by_accuracy() -> None:
    low_loss, high_accuracy = held(1, 0.5, "AAAA"), held(2, 0.9, "ABCA")
    assert is_better(high_accuracy, None, "best-loss")
    assert not is_better(high_accuracy, low_loss, "best-loss") and is_better(
        high_accuracy, low_loss, "best-accuracy"
    )
    assert is_better(held(3, 0.8, "ABCA"), high_accuracy, "best-accuracy")  # a tie goes to the lower loss


def monitor(path: Path, losses: dict[int, float], **settings: object) -> tuple[Monitor, list[int]]:
    saved: list[int] = []
    values: dict[str, object] = {"keep": "best-loss", "measure_every": 2, "early_stopping": None, **settings}
    made = Monitor(
        path,
        total_steps=10,
        tokens_by_step=[100] * 10,
        measure=lambda step: held(step, losses[step]),
        save_best=lambda h: saved.append(h.step),
        **values,  # type: ignore[arg-type]
    )
    return made, saved


def test_base_is_measured_before_step_one_and_the_best_is_saved(tmp_path: Path) -> None:
    made, saved = monitor(tmp_path / "log", {0: 3.0, 2: 2.0, 4: 1.0, 6: 1.5, 8: 1.2, 10: 0.9})
    made.start(0)
    assert made.base is not None and made.base.step == 0 and saved == []
    for step in range(1, 11):
        made.record_step(step, {"loss": "1.25", "learning_rate": "0.1", "grad_norm": "0.5"})
        assert made.finish_step(step) is False
    assert saved == [2, 4, 10] and made.best is not None and made.best.step == 10
    records = read_training_log(tmp_path / "log")
    assert [r["step"] for r in records if r["kind"] == "held_out"] == [0, 2, 4, 6, 8, 10]
    fourth = next(r for r in records if r["kind"] == "step" and r["step"] == 4)
    assert fourth["loss"] == 1.25 and fourth["tokens"] == 400 and fourth["eta_sec"] >= 0


def test_early_stop_counts_measurements_without_a_gain(tmp_path: Path) -> None:
    made, saved = monitor(tmp_path / "log", {0: 3.0, 2: 2.0, 4: 2.5, 6: 2.4}, early_stopping=2)
    made.start(0)
    assert [step for step in range(1, 7) if made.finish_step(step)] == [6]
    assert made.stopped_early and saved == [2]


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_a_loss_that_is_no_number_stops(tmp_path: Path, loss: float, norm: float) -> None:
    made, _ = monitor(tmp_path / "log", {0: 1.0})
    made.start(0)
    with pytest.raises(TrainError, match=r"step 3: .*diverged.*--learning-rate"):
        made.record_step(3, {"loss": loss, "grad_norm": norm})


def test_float16_survives_the_overflows_that_find_its_loss_scale_and_no_more(tmp_path: Path) -> None:
    made, _ = monitor(tmp_path / "log", {0: 3.0}, scaled=True, measure_every=100)
    made.start(0)
    norms = [math.inf] * 16 + [0.5] + [math.nan] * 20
    for number, norm in enumerate(norms):
        made.record_step(number % 10 + 1, {"loss": 1.5, "grad_norm": norm})
    with pytest.raises(TrainError, match="diverged"):
        made.record_step(9, {"loss": 1.5, "grad_norm": math.inf})
    steps = [record for record in read_training_log(tmp_path / "log") if record["kind"] == "step"]
    assert len(steps) == len(norms) and steps[0]["grad_norm"] is None and steps[16]["grad_norm"] == 0.5
    with pytest.raises(TrainError, match="diverged"):  # a loss that is none is never the scale's doing
        monitor(tmp_path / "other", {0: 3.0}, scaled=True)[0].record_step(
            1, {"loss": math.nan, "grad_norm": 0.5}
        )


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log"
    first, _ = monitor(path, {0: 3.0, 2: 2.0, 4: 1.0, 6: 5.0})
    first.start(0)
    for step in range(1, 7):
        first.record_step(step, {"loss": 1.0, "grad_norm": 1.0})
        first.finish_step(step)
    with path.open("a") as file:
        file.write('{"kind": "step", "st')  # a kill in the middle of a line
    again, saved = monitor(path, {6: 5.0, 8: 0.5, 10: 4.0})
    again.start(5)
    assert again.base is not None and again.base.loss == 3.0  # read back, not measured again
    assert again.best is not None and again.best.step == 4
    for step in range(6, 11):
        again.record_step(step, {"loss": 1.0, "grad_norm": 1.0})
        again.finish_step(step)
    assert [r["step"] for r in read_training_log(path) if r["kind"] == "step"] == list(range(1, 11))
    assert saved == [8]


def test_every_measurement_is_published_once_also_after_a_resume(tmp_path: Path) -> None:
    published: list[int] = []
    losses = {0: 3.0, 2: 2.0, 4: 1.0}
    made, _ = monitor(tmp_path / "log", losses, publish=lambda h: published.append(h.step))
    made.start(0)
    for step in range(1, 3):
        made.record_step(step, {"loss": 1.0, "grad_norm": 0.5})
        made.finish_step(step)
    assert published == [0, 2]
    resumed, _ = monitor(tmp_path / "log", losses, publish=lambda h: published.append(h.step))
    resumed.start(2)
    for step in (3, 4):
        resumed.finish_step(step)
    assert published == [0, 2, 4]


def test_trackers_get_the_held_out_numbers_and_nothing_of_the_running_means() -> None:
    logged: list[dict[str, float]] = []

    class Handler:
        def on_log(self, arguments: object, state: object, control: Any, logs: dict[str, float]) -> None:
            control.should_log = False  # as transformers' own
            logged.append(logs)

    control = SimpleNamespace(should_log=True)
    trainer = SimpleNamespace(callback_handler=Handler(), args=None, state=None, control=control)
    publish_measurement(trainer, held(2, 0.5, "ABCA", "ABCD"))
    (logs,) = logged
    assert control.should_log  # the step's own log comes after its measurement
    assert logs == {"eval_loss": 0.5, "eval_accuracy": 0.75, "eval_balanced_accuracy": 0.75}
