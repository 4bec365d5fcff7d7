"""train_monitor: letter statistics by hand, collapse warnings, the best kept, early stop, NaN,
and a log that can be rewound.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.analysis.exact_band import ChangeInterval
from kmmlu_fast.analysis.training_look import AnsweredQuestion, compare_with_start
from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.models.adapters import read_training_log
from kmmlu_fast.training.held_out import (
    HeldOutMeasurement,
    collapse_warnings,
    describe_measurement,
    format_change,
    format_letters,
    is_better,
    look_at_held_out,
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


def change_of(base: HeldOutMeasurement, kept: HeldOutMeasurement, number: int = 1) -> HeldOutMeasurement:
    return look_at_held_out(base, kept, number)[0]


def test_collapse_is_a_warning_above_sixty_percent() -> None:
    base = held(0, 2.0, "ABCAD" * 8, "ABCDD" * 8)
    at_sixty = change_of(base, held(5, 1.0, "ABDDD" * 8, "ABCDD" * 8))
    assert at_sixty.letter_share["D"] == 0.6 and collapse_warnings(base, at_sixty) == []
    [warning] = collapse_warnings(base, change_of(base, held(5, 1.0, "ADDDD" * 8, "ABCDD" * 8)))
    assert "letter collapse: 80% of the 40 held-out predictions are D (base: 20%, key: 40%)" in warning


def test_collapse_and_a_fall_are_both_said() -> None:
    base = held(0, 2.0, "ABCC" * 12, "ABCD" * 12)
    kept = change_of(base, held(5, 1.0, "DDDD" * 12, "ABCD" * 12))
    assert kept.collapsed == "D" and kept.difference == -0.5
    warnings = collapse_warnings(base, kept)
    assert len(warnings) == 2
    assert "letter collapse: 100% of the 48 held-out predictions are D (base: 0%, key: 25%)" in warnings[0]
    assert "fell from the base's 0.750 to 0.250: -0.500 (-0." in warnings[1]
    assert "valid over all measurements" in warnings[1]


def test_a_base_that_answers_one_letter_has_not_collapsed() -> None:
    base = held(0, 2.0, "A" * 48, "ABCD" * 12)
    kept = change_of(base, held(5, 1.0, "A" * 40 + "ABCD" * 2, "ABCD" * 12))
    assert kept.letter_share["A"] > 0.8 and kept.collapsed is None and collapse_warnings(base, kept) == []


def test_the_change_is_that_of_a_look_of_watch() -> None:
    """The same rows, the same numbers: one mechanism."""
    key, before, after = "ABCD" * 12, "ABCC" * 12, "ABDD" * 10 + "AAAAAAAA"

    def answers(predictions: str) -> dict[str, AnsweredQuestion]:
        rows = zip(key, predictions, strict=True)
        return {f"q{place}": AnsweredQuestion(answer, letter) for place, (answer, letter) in enumerate(rows)}

    look = compare_with_start(9, 3, answers(after), answers(before), {})
    found = change_of(held(0, 2.0, before, key), held(9, 1.0, after, key), number=3)
    assert look.difference == ChangeInterval(found.difference, found.difference_low, found.difference_high)
    assert (found.accuracy, found.letter_share) == (look.accuracy, look.letter_share)


def test_a_fall_that_chance_gives_is_hardly_ever_said_over_ten_measurements() -> None:
    """48 rows, a skill that never changes, ten measurements: any of them says a fall in under 5 %."""
    chance, said = random.Random(0), 0
    key = "ABCD" * 12

    def draw() -> str:
        return "".join(k if chance.random() < 0.5 else chance.choice("ABCD") for k in key)

    for _ in range(60):
        base = held(0, 1.0, draw(), key)
        kept = [change_of(base, held(number, 1.0, draw(), key), number) for number in range(1, 11)]
        said += any("fell from" in text for each in kept for text in collapse_warnings(base, each))
    assert said <= 3


def test_rows_whose_letters_are_not_known_have_no_change() -> None:
    before = HeldOutMeasurement(
        step=0, loss=1.0, num_rows=4, accuracy=1.0, balanced_accuracy=1.0, letter_share={}, answer_share={}
    )
    kept, look = look_at_held_out(before, held(1, 1.0, "ABCD", "ABCD"), 1)
    assert look is None and kept.difference is None and format_change(asdict(kept)) == ""
    assert collapse_warnings(before, kept) == []


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


KEY = "ABCD" * 25
STATES = {0: KEY, 2: "ABCA" * 25, 4: "A" * 100, 6: "BCDA" * 25, 8: KEY, 10: KEY}


def lettered_monitor(path: Path, **settings: Any) -> Monitor:
    """Measures letters that are right, then fall, collapse and are all wrong; the loss always falls."""
    values: dict[str, Any] = {"keep": "last", "measure_every": 2, "early_stopping": None, **settings}
    return Monitor(
        path,
        total_steps=10,
        tokens_by_step=[100] * 10,
        measure=lambda step: held(step, 10.0 - step, STATES[step], KEY),
        save_best=lambda measurement: None,
        **values,
    )


@pytest.mark.parametrize(
    ("rule", "stop", "reason"),
    [
        (None, None, None),
        ("worse", 2, "accuracy is worse than before training by 25.0%"),
        ("collapsed", 4, "100% of the predictions are A"),
    ],
)
def test_stop_when(tmp_path: Path, rule: Any, stop: int | None, reason: str | None) -> None:
    made = lettered_monitor(tmp_path / "log", stop_when=rule)
    made.start(0)
    stopped = next((step for step in range(1, 11) if made.finish_step(step)), None)
    assert stopped == stop and made.stopped_early == (stop is not None)
    if reason is not None:
        assert made.warnings()[0].startswith(f"stopped at step {stop} of 10: {reason}")


def test_every_measurement_after_the_base_holds_its_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = lettered_monitor(tmp_path / "log")
    with caplog.at_level("INFO", "kmmlu_fast"):
        made.start(0)
        for step in range(1, 11):
            made.finish_step(step)
    base, *others = read_training_log(tmp_path / "log")
    assert base["difference"] is None and base["collapsed"] is None
    assert [record["difference"] for record in others] == [-0.25, -0.75, -1.0, 0.0, 0.0]
    assert all(
        record["difference_low"] <= record["difference"] <= record["difference_high"] for record in others
    )
    assert [record["collapsed"] for record in others] == [None, "A", None, None, None]
    assert "change -0.750 (-0." in caplog.text and "(collapsed onto A)" in caplog.text
    # the later look pays for those before it
    width = [record["difference_high"] - record["difference_low"] for record in others]
    assert width[4] > width[3]


def test_a_log_from_before_there_were_changes_is_continued(tmp_path: Path) -> None:
    """A resumed training counts the measurements before its checkpoint, whoever wrote them."""
    whole = lettered_monitor(tmp_path / "whole")
    whole.start(0)
    for step in range(1, 11):
        whole.finish_step(step)
    records = [record for record in read_training_log(tmp_path / "whole") if record["step"] <= 4]
    for record in records:
        for name in ("difference", "difference_low", "difference_high", "collapsed"):
            del record[name]
    old = tmp_path / "old"
    old.write_text("".join(json.dumps(record) + "\n" for record in records))
    made = lettered_monitor(old)
    made.start(4)
    assert made.last is not None and made.last.collapsed == "A"
    for step in range(5, 11):
        made.finish_step(step)
    assert made.last == whole.last


@pytest.mark.parametrize(("name", "value"), [("predictions", "AB"), ("predictions", 7), ("loss", None)])
def test_a_damaged_measurement_is_named(tmp_path: Path, name: str, value: Any) -> None:
    first = lettered_monitor(tmp_path / "log")
    first.start(0)
    for step in range(1, 5):
        first.finish_step(step)
    records = read_training_log(tmp_path / "log")
    del records[-1][name]
    if value is not None:
        records[-1][name] = value
    (tmp_path / "log").write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(TrainError, match="measurement of step 4 is damaged"):
        lettered_monitor(tmp_path / "log").start(4)


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
    publish_measurement(trainer, change_of(held(0, 1.0, "ABCC", "ABCD"), held(2, 0.5, "ABCD", "ABCD")))
    assert logged[1]["eval_difference"] == 0.25
    assert logged[1]["eval_difference_low"] < 0.25 < logged[1]["eval_difference_high"]
    publish_measurement(trainer, replace(held(2, 0.5), letter_mass=0.9))
    assert logged[2]["eval_letter_mass"] == 0.9 and "eval_letter_mass" not in logged[1]


@pytest.mark.parametrize("mass", [0.25, None])
def test_the_mass_on_the_letters_stands_beside_their_shares(mass: float | None) -> None:
    measured = replace(held(2, 0.5, "ABCA", "ABCD"), letter_mass=mass)
    text = "predicted A 50% B 25% C 25% D 0%" + ("" if mass is None else "  mass on the letters 25%")
    assert format_letters(asdict(measured)) == text
    assert text in describe_measurement(measured, best=False)
    old = asdict(measured)
    del old["letter_mass"]
    assert format_letters(old) == "predicted A 50% B 25% C 25% D 0%"  # of a card from before there was one
    look = look_at_held_out(held(0, 1.0, "ABCA", "ABCD"), measured, 1)[1]
    assert look is not None and look.letter_mass == mass
