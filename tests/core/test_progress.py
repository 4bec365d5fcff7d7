"""A wait that is long enough is said, line by line, and no other."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kmmlu_fast.core import progress
from kmmlu_fast.core.console import log_note, show_notes
from kmmlu_fast.core.progress import report_wait


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "WAIT_SEC", 0.05)


def until(said: Any, capsys: pytest.CaptureFixture[str], count: int = 1) -> str:
    """What was said until ``said`` stood in it ``count`` times; gives up after a minute."""
    text, deadline = "", time.monotonic() + 60
    while text.count(said) < count:
        assert time.monotonic() < deadline, text
        time.sleep(0.01)
        text += capsys.readouterr().err
    return text


def test_a_long_wait_says_what_phase_and_how_long(soon: None, capsys: pytest.CaptureFixture[str]) -> None:
    with show_notes():
        with report_wait("engine: starting", lambda: "reading weights", lambda: "reading weights 3"):
            text = until("engine: starting: reading weights, 0 s\n", capsys, count=2)
        assert capsys.readouterr().err.endswith("engine: starting: done in 0 s (reading weights 3)\n")
    assert "\r" not in text  # no terminal: lines


def test_a_short_wait_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show_notes(), report_wait("merging"):
        pass
    assert capsys.readouterr().err == ""


def test_nothing_is_said_where_others_speak(soon: None, capsys: pytest.CaptureFixture[str]) -> None:
    with show_notes(), report_wait("training"):
        for _ in range(30):
            log_note("a step")
            time.sleep(0.005)
        assert "training" not in capsys.readouterr().err


def test_the_innermost_wait_speaks(soon: None, capsys: pytest.CaptureFixture[str]) -> None:
    with show_notes(), report_wait("outer"):
        with report_wait("inner"):
            time.sleep(0.05)
            capsys.readouterr()  # what the outer one may have said before the inner one began
            assert "outer" not in until("inner", capsys)
        capsys.readouterr()
        assert "inner" not in until("outer", capsys)


def test_a_library_is_silent(soon: None, capsys: pytest.CaptureFixture[str]) -> None:
    with report_wait("engine"):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_an_error_is_not_said_to_be_done(soon: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), show_notes(), report_wait("loading"):
        until("loading", capsys)
        raise KeyError
    assert "done" not in capsys.readouterr().err


def test_on_a_terminal_one_line_moves_and_is_gone(
    soon: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with show_notes():
        with report_wait("engine"):
            text = until("engine: 1 s", capsys)
            log_note("another line")
        text += capsys.readouterr().err
    assert "\r\x1b[Kengine: 1 s" in text and "\r\x1b[Kanother line\n" in text


def test_time_left_is_not_guessed_from_the_first_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first answer waits for the engine: 9 s for one of 450 questions is not 4,000 s for all."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(progress, "LINE_SEC", 0.0)
    with show_notes():
        meter = progress.Meter(450, "base")
        now += 9
        meter.update(1)
        now += 1
        meter.update(5)
        assert "left" not in capsys.readouterr().err
        now += 9
        meter.update(101)
        assert capsys.readouterr().err == "base: 101/450 questions, 10.0/s, 35 s left\n"
        now += 35
        meter.close(450)
        assert capsys.readouterr().err == "base: 450/450 questions, 8.3/s\n"
