"""Which environment variables this process was given, and which a library set in it since.

In: blocks in which libraries start. Out: the environment as it was given. A variable that is changed again
after such a block counts as given. Standard library only. Knows no names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_set_by_libraries: dict[str, tuple[str | None, str | None]] = {}  # name -> value before, value set


@contextlib.contextmanager
def record_library_variables() -> Iterator[None]:
    """Whatever the environment changes by in this block, a library set: the next start would set it again."""
    given, before = read_given_variables(), dict(os.environ)
    try:
        yield
    finally:
        after = dict(os.environ)
        for name in {*before, *after}:
            if before.get(name) != after.get(name):
                _set_by_libraries[name] = (given.get(name), after.get(name))


def read_given_variables() -> dict[str, str]:
    """The environment without what libraries set in it."""
    variables: dict[str, str | None] = dict(os.environ)
    for name, (before, now) in _set_by_libraries.items():
        if variables.get(name) == now:
            variables[name] = before
    return {name: value for name, value in variables.items() if value is not None}
