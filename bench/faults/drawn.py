"""Attacks from grammars that the readers' authors did not write: Hypothesis draws JSON, a mutator bytes.

In: bytes or a document, a random generator. Out: the same, bent; equal for equal generators. Knows nothing of
what the files mean.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

_DRAWS = 6  # Hypothesis begins with the simplest values; the last of a few is not one of them
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)


def draw_value(strategy: st.SearchStrategy[Any], chance: random.Random) -> Any:
    """A value of the strategy; the generator alone decides it."""
    values: list[Any] = []

    @seed(chance.randrange(2**32))
    @settings(
        max_examples=_DRAWS,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        values.append(value)

    collect()
    return values[-1]


def json_like(document: Any) -> st.SearchStrategy[Any]:
    """Values of the document's shape: its keys, kinds and numbers, and now and then something else."""
    if isinstance(document, dict):
        fields = {key: json_like(value) for key, value in list(document.items())[:30]}
        return st.one_of(st.fixed_dictionaries({}, optional=fields), any_json())
    if isinstance(document, list):
        element = json_like(document[0]) if document else any_json()
        return st.one_of(st.lists(element, max_size=6), any_json())
    same: st.SearchStrategy[Any] = st.just(document)
    if isinstance(document, bool) or document is None:
        same = st.sampled_from([None, True, False])
    elif isinstance(document, int):
        same = st.integers()
    elif isinstance(document, float):
        same = st.floats()
    elif isinstance(document, str):
        same = st.text(max_size=40)
    return st.one_of(st.just(document), same, any_json())


def any_json() -> st.SearchStrategy[Any]:
    """Any JSON value."""
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=8,
    )


def mutate_json(document: Any, chance: random.Random) -> str:
    """The document with one to three of its nodes drawn anew."""
    holder = {"": copy.deepcopy(document)}
    for _ in range(chance.randrange(1, 4)):
        parent, key = chance.choice(list(_nodes(holder)))
        parent[key] = draw_value(json_like(parent[key]), chance)
    return json.dumps(holder[""], ensure_ascii=chance.random() < 0.5)


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in list(entries):
        yield value, key
        yield from _nodes(inner)


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """A few of a fuzzer's steps in turn: bits, arithmetic, boundary values, blocks removed or moved."""
    mutated = bytearray(data or b"\0")
    for _ in range(1 << chance.randrange(5)):
        at, kind = chance.randrange(len(mutated)), chance.randrange(6)
        size = min(1 << chance.randrange(7), len(mutated) - at)
        block = bytes(mutated[at : at + size])
        if kind == 0:
            mutated[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            mutated[at] = (mutated[at] + chance.randrange(-35, 36)) % 256
        elif kind == 2:
            width = chance.choice([1, 2, 4, 8])
            number = chance.choice(_INTERESTING) % (1 << 8 * width)
            mutated[at : at + width] = number.to_bytes(width, "little")[:: chance.choice([1, -1])]
        elif kind == 3 and len(mutated) > size:
            del mutated[at : at + size]
        elif kind == 4:
            mutated[at:at] = block
        else:
            to = chance.randrange(len(mutated))
            mutated[to : to + size] = block
    return bytes(mutated)
