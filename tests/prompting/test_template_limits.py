"""Templates that would not end, or grow without bounds, are stopped; long conversations are not."""

from __future__ import annotations

import time

import pytest

from kmmlu_fast.prompting.template_limits import (
    MAX_CHARS,
    TemplateRenderingError,
    _Budget,
    check_product,
    count_items,
    spend_step,
)
from kmmlu_fast.prompting.template_sandbox import compile_template

ASK = {"role": "user", "content": "질문"}
GROWING = "{% set ns = namespace(x=%s) %}{% for i in range(60) %}{% set ns.x = %s %}{% endfor %}{{ ns.x }}"


def growing(start: str, step: str) -> str:
    return GROWING.replace("%s", start, 1).replace("%s", step, 1)


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f(n) %}{{ f(n - 1) }}{% endmacro %}{{ f(1) }}",
    "calls": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "joined": growing("'a'", "ns.x ~ ns.x"),
    "added": growing("'a'", "ns.x + ns.x"),
    "nested": growing("[1]", "[ns.x, ns.x]"),
    "nested_json": growing("[1]", "[ns.x, ns.x]").replace("{{ ns.x }}", "{{ ns.x | tojson }}"),
    "block": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}"
    "{% endset %}{% set ns.x = y %}{% endfor %}",
    "repeated": "{% set n = 10000000000 %}{{ 'a' * n }}",
    "power": "{% set n = 10000000000 %}{{ n ** n }}",
    "percent": "{% set n = 1 %}{{ '%9999999999d' % n }}",
    "format": "{{ '{:>9999999999}'.format(messages | length) }}",
    "centred": "{{ messages[0].content | center(9999999999) }}",
    "replaced": "{% set x = 'a' * 9000000 %}{{ x | replace('a', 'bbbbbbbb') }}",
    "summed": "{% set r = range(99999) | list %}{% for i in range(99999) %}{{ r | sum }}{% endfor %}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_would_not_end_is_stopped(name: str) -> None:
    with pytest.raises(TemplateRenderingError):
        compile_template(ENDLESS[name]).render([ASK], {})


def test_nothing_is_counted_outside_of_a_rendering() -> None:
    spend_step()


def test_items_are_counted_through_all_levels_up_to_the_limit() -> None:
    assert count_items([1, {"a": [2, 3]}, "x" * 500], 1000) == 12
    endless = [1]
    for _ in range(60):
        endless = [endless, endless]  # type: ignore[list-item]
    assert count_items(endless, 1000) > 1000


def test_products_within_the_limit_are_computed() -> None:
    for left, right in (("ab", 3), (3, "ab"), ([1, 2], 4), ("ab", -1), ("", 10**9), ("a", MAX_CHARS), (2, 3)):
        check_product(left, right)
    for left, right in (("a", MAX_CHARS + 1), (MAX_CHARS + 1, "a"), ([1], 10**9)):
        with pytest.raises(TemplateRenderingError, match="too often"):
            check_product(left, right)


def test_the_clock_is_looked_at_now_and_then() -> None:
    late = _Budget(until_sec=time.monotonic() - 1)
    with pytest.raises(TemplateRenderingError, match="seconds"):
        for _ in range(10_000):
            late.spend_steps()
    on_time = _Budget(until_sec=time.monotonic() + 3600)
    for _ in range(10_000):
        on_time.spend_steps()
