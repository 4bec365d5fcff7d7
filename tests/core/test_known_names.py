"""Names from a list, and what a wrong one is answered."""

from __future__ import annotations

import re

import pytest

from kmmlu_fast.core.known_names import check_known_name, is_module_installed


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("line", "did you mean linear?"),
        ("Cosine", "did you mean cosine?"),
        ("zzz", "give one of linear, cosine"),
        ("greedy", "needs a metric; give one of"),
    ],
)
def test_the_nearest_or_all(name: str, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        check_known_name(name, ("linear", "cosine"), {"greedy": "needs a metric"})
    assert check_known_name("linear", ("linear",), {}) == "linear"


def test_one_of_two_modules_is_enough() -> None:
    assert is_module_installed("no_such_module|json") and not is_module_installed("no_such_module")
