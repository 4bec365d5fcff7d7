"""What bench.watch_share reckons from its trainings."""

from __future__ import annotations

import pytest

from bench.watch_share import WatchShareConfig, compare_trainings, make_rows


def test_the_share_is_what_a_watched_training_takes_longer() -> None:
    def row(training: str, sec: float, own_share: float | None) -> dict[str, object]:
        return {"training": training, "sec": sec, "cpu_sec": 2 * sec, "own_share": own_share}

    rows = [
        row("plain", 95.0, None),
        row("watched", 100.0, 0.04),
        row("watched", 102.0, 0.05),
        row("plain", 97.0, None),
    ]
    shares = compare_trainings(rows)
    assert shares["own_share"] == pytest.approx(0.045)
    assert shares["clock_share"] == shares["cpu_share"] == pytest.approx(1 - 96 / 101, abs=1e-4)


def test_rows_suffice_for_the_steps_and_are_the_same_each_time() -> None:
    config = WatchShareConfig(steps=3, batch=2, row_words=5)
    rows = make_rows(config)
    assert len(rows) == 6 and rows == make_rows(config)
    assert all(len(row["prompt"].split()) == 5 for row in rows)
