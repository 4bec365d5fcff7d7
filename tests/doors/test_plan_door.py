"""The planner as it is called: from a finished base run, from a share, and with faulty input."""

from __future__ import annotations

from pathlib import Path

import made_runs
import polars as pl
import pytest

from kmmlu_fast import cli, plan


def call(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str, str]:
    code = plan.run_plan_command(list(flags))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_without_a_base_it_plans_kmmlu(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys)
    assert code == 0 and "35,030 questions; an adapter changes about 10.0%" in out
    assert "7,847" in out and "6,838" in out and "minutes" not in out.splitlines()[2]
    assert cli.dispatch_command(["plan", "--difference", "2"]) == 0
    assert "2,003" in capsys.readouterr().out


def test_a_base_run_gives_size_share_and_minutes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = made_runs.run_directory(tmp_path / "base", "base", made_runs.predictions(0))
    code, out, _ = call(capsys, str(path), "--difference", "2")
    assert code == 0 and "200 questions" in out and "by the base's margins" in out
    frame = made_runs.predictions(0).with_columns(pl.lit(None, pl.Float64).alias("margin"))
    letters = made_runs.run_directory(tmp_path / "letters", "letters", frame)
    code, out, _ = call(capsys, str(letters), "--difference", "2", "--questions", "5000")
    assert code == 0 and "no log-probabilities" in out and "5,000 questions" in out


def test_what_cannot_be_planned_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        ("--difference", "40"): "give a smaller one",
        ("a", "b"): "give one run",
        ("runs/none",): "does not exist",
        ("published:*",): "holds 8 runs",  # not the first of them
        ("--difference", "0"): "--difference",
        ("--questions", "0"): "--questions",
    }
    for flags, message in cases.items():
        code, _, err = call(capsys, *flags)
        assert code == 2 and message in err and len(err.strip().splitlines()) == 1
