"""What a library sets in the environment does not count as given; what the user sets does, at any time."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kmmlu_fast.machine import variables
from kmmlu_fast.machine.variables import read_given_variables, record_library_variables


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(variables, "_set_by_libraries", {})
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def start_library() -> None:
    """As vLLM on a CPU: one variable is set, one completed, one taken away."""
    os.environ["LIBRARY_THREADS"] = "1"
    if "own.so" not in os.environ.get("LD_PRELOAD", ""):
        os.environ["LD_PRELOAD"] = ":".join(filter(None, [os.environ.get("LD_PRELOAD"), "own.so"]))
    os.environ.pop("LIBRARY_OLD", None)


@pytest.mark.parametrize("preload", [None, "users.so"])
def test_what_a_library_sets_is_not_given_also_at_its_second_start(preload: str | None) -> None:
    os.environ["LIBRARY_OLD"] = "yes"
    os.environ.pop("LD_PRELOAD", None)
    if preload:
        os.environ["LD_PRELOAD"] = preload
    given = dict(os.environ)
    for _ in range(2):
        with record_library_variables():
            start_library()
        assert read_given_variables() == given
    assert os.environ["LIBRARY_THREADS"] == "1"  # it is left alone


def test_what_the_user_sets_after_it_counts() -> None:
    with record_library_variables():
        start_library()
    os.environ["LIBRARY_THREADS"] = "2"
    os.environ["LIBRARY_MORE"] = "x"
    assert read_given_variables()["LIBRARY_THREADS"] == "2"
    assert read_given_variables()["LIBRARY_MORE"] == "x"
    with record_library_variables():
        start_library()  # and once more by the library
    assert read_given_variables()["LIBRARY_THREADS"] == "2"


def test_a_start_that_fails_is_recorded_too() -> None:
    given = dict(os.environ)
    with pytest.raises(RuntimeError), record_library_variables():
        start_library()
        raise RuntimeError
    assert read_given_variables() == given
