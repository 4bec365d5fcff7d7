"""A call within bounds: endless loops, gigabytes, errors and crashes end the call and not this process."""

from __future__ import annotations

import os
import signal
import time

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kmmlu_fast.machine.bounded_call import BoundedCallError, call_bounded


def render(template: str) -> str:
    return ImmutableSandboxedEnvironment().from_string(template).render()


def test_a_result_comes_back_whole() -> None:
    assert call_bounded(lambda: ["가" * 3_000_000, {"a": 1}]) == ["가" * 3_000_000, {"a": 1}]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "within 1 s"),
        ("{{ 'x' * 10**11 }}", "more than 256 MiB"),
        ("{{ 2 ** (10 ** 10) }}", "within 1 s|more than 256 MiB"),
        ("{% for a in range(9999) %}{% set _ = ('x' * 10**8)|list %}{% endfor %}", "within 1 s|more than"),
        ("{{ nothing.there }}", "UndefinedError"),
    ],
)
def test_templates_that_explode_are_ended(template: str, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(BoundedCallError, match=message):
        call_bounded(lambda: render(template), seconds=1, memory_bytes=256 << 20)
    assert time.monotonic() - start < 30  # far below what the templates ask for


def test_a_crash_is_told_and_nothing_is_left() -> None:
    with pytest.raises(BoundedCallError, match="SIGSEGV"):
        call_bounded(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(ChildProcessError):  # no zombie
        os.waitpid(-1, os.WNOHANG)


def test_what_the_call_changes_stays_in_the_fork() -> None:
    seen: list[int] = []
    call_bounded(lambda: seen.append(1))
    assert seen == []
