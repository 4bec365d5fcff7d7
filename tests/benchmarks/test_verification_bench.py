"""bench.verification: tampering is what it says, and runs of other questions are refused."""

from __future__ import annotations

from pathlib import Path

import made_runs
import numpy as np
import pytest

from bench.verification import make_world, read_world, tamper
from kmmlu_fast.core.errors import ConfigError


def test_tampered_answers_are_right_and_no_others_change() -> None:
    world = make_world("weak", 0.4, seed=0)
    changed = tamper(world.one, world.keys, 40, np.random.default_rng(0))
    apart = (changed != world.one).any(1)
    assert apart.sum() == 40
    assert (changed[apart].argmax(1) == world.keys[apart]).all()
    assert (world.one[apart].argmax(1) != world.keys[apart]).all()


def test_two_runs_of_the_same_questions(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        made_runs.run_directory(tmp_path / name, name, made_runs.predictions(seed))
    world = read_world([tmp_path / "one", tmp_path / "two"])
    assert world.one.shape == (200, 4) and (world.one == world.other).all()
    with pytest.raises(ConfigError, match="give two run directories"):
        read_world([tmp_path / "one"])
