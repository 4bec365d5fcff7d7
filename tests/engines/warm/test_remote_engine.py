"""A command that asks a warm engine gets what its own would give, and goes on by itself if that one ends."""

from __future__ import annotations

import itertools
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from warm_cases import (
    ADAPTER,
    LoggingEngine,
    connect,
    letters,
    no_follow_up,
    text_after,
    warm_process,
    warm_thread,
)

from kmmlu_fast.core.errors import AdapterError, DataError
from kmmlu_fast.core.schema import Adapter, Request
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.engines.warm import remote_engine
from kmmlu_fast.engines.warm.messages import PULLED_AT_ONCE
from kmmlu_fast.engines.warm.running import list_warm_engines


def all_of(engine: Any, count: int = 200, follow_up: Any = text_after) -> list[Any]:
    return [
        (each.request, each.logprobs, each.completions, each.followed_by)
        for each in engine.generate(letters(count), follow_up)
    ]


@pytest.mark.parametrize("follow_up", [None, no_follow_up, text_after])
def test_answers_and_their_order_are_those_of_an_engine_here(tmp_path: Path, follow_up: Any) -> None:
    here = LoggingEngine()
    with warm_thread(tmp_path):
        there = connect(tmp_path)
        assert all_of(there, follow_up=follow_up) == all_of(here, follow_up=follow_up)
        there.swap(ADAPTER)
        here.swap(ADAPTER)
        assert all_of(there, 9, follow_up) == all_of(here, 9, follow_up)
        assert all_of(there, 0, follow_up) == []


def test_requests_are_pulled_as_they_are_needed(tmp_path: Path) -> None:
    pulled = itertools.count()

    def endless() -> Any:
        for request in letters(100_000):
            next(pulled)
            yield request

    with warm_thread(tmp_path):
        running: Any = connect(tmp_path).generate(endless(), no_follow_up)
        next(running)
        assert next(pulled) <= 2 * PULLED_AT_ONCE
        running.close()


def test_a_pass_that_is_left_early_is_dropped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    engine = LoggingEngine()

    def broken_source() -> Any:
        yield from letters(3)
        raise DataError("row 4 is broken")

    def broken_follow_up(response: Any) -> list[Request]:
        raise DataError("cannot follow")

    with warm_thread(tmp_path, engine):
        command = connect(tmp_path)
        for follow_up in (None, text_after):
            running: Any = command.generate(letters(50), follow_up)
            next(running)
            running.close()
            with pytest.raises(DataError, match="row 4"):
                list(command.generate(broken_source(), follow_up))
        with pytest.raises(DataError, match="cannot follow"):
            list(command.generate(letters(5), broken_follow_up))
        assert engine.open_passes == 0
        assert all_of(command) == all_of(FakeEngine(max_in_flight=4))


def test_an_adapter_that_does_not_fit_is_the_same_error_and_the_base_answers(tmp_path: Path) -> None:
    misfit = Adapter(name="misfit", path=Path("/a/misfit"), adapter_id=2, rank=4, digest="d2")
    with warm_thread(tmp_path):
        command = connect(tmp_path)
        with pytest.raises(AdapterError, match="misfit: does not fit"):
            command.swap(misfit)
        assert all_of(command, 4) == all_of(FakeEngine(), 4)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("follow_up", [None, text_after])
def test_if_the_worker_is_killed_the_rest_is_answered_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int, follow_up: Any
) -> None:
    caplog.set_level(logging.INFO, "kmmlu_fast")
    here = LoggingEngine()
    with warm_process(tmp_path, delay_sec=0.02) as process:
        command = connect(tmp_path, here=here)
        command.swap(ADAPTER)
        answers = []
        for response in command.generate(letters(60), follow_up):
            answers.append((response.request, response.logprobs, response.completions, response.followed_by))
            if len(answers) == 10:
                os.kill(list_warm_engines(tmp_path)[0]["pid"], number)
        process.wait(30)
        counted = command.stats()
    expected_engine = FakeEngine(max_in_flight=4)
    expected_engine.swap(ADAPTER)
    expected = all_of(expected_engine, 60, follow_up)
    assert sorted(map(repr, answers)) == sorted(map(repr, expected))  # all, each once, with the adapter
    assert here.log[0] == "swap lora"
    assert counted["requests"] == len(expected)
    assert "is gone" in caplog.text and "starts its own and continues" in caplog.text


def test_if_the_worker_is_killed_between_passes_a_swap_is_done_here(tmp_path: Path) -> None:
    here = LoggingEngine()
    with warm_process(tmp_path) as process:
        command = connect(tmp_path, here=here)
        assert all_of(command, 2)
        os.kill(list_warm_engines(tmp_path)[0]["pid"], signal.SIGKILL)
        process.wait(30)
        command.swap(ADAPTER)
        assert all_of(command, 2) and here.log == ["swap lora"]
        command.close()
    assert here.log[-1] == "closed"


def test_a_worker_that_stands_still_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_engine, "SILENT_SEC", 0.3)
    monkeypatch.setattr(remote_engine, "ALIVE_SEC", 0.3)
    here = LoggingEngine()
    with warm_process(tmp_path, delay_sec=0.01):
        monkeypatch.setattr(remote_engine, "ALIVE_SEC", 10.0)
        command = connect(tmp_path, here=here)
        monkeypatch.setattr(remote_engine, "ALIVE_SEC", 0.3)
        running = command.generate(letters(300), no_follow_up)
        answers = [next(running)]
        os.kill(list_warm_engines(tmp_path)[0]["pid"], signal.SIGSTOP)
        answers += list(running)
    assert len(answers) == 300


def test_a_slow_engine_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warm_thread(tmp_path, LoggingEngine(delay_sec=0.5)):
        command = connect(tmp_path)
        monkeypatch.setattr(remote_engine, "SILENT_SEC", 0.1)
        assert len(all_of(command, 3, no_follow_up)) == 3  # no engine here: it would fail
