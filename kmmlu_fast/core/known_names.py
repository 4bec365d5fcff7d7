"""Names from a list: the name, or what is near it.

In: a name and the names that are known. Out: the name, or ValueError. Knows nothing of what they name.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence


def is_module_installed(module: str) -> bool:
    """Whether it, or with ``a|b`` one of them, can be imported."""
    return any(importlib.util.find_spec(name) is not None for name in module.split("|"))


def check_known_name(name: str, allowed: Sequence[str], unusable: Mapping[str, str]) -> str:
    """The name; ValueError with the nearest ones, or with the reason why it cannot be used."""
    if name in allowed:
        return name
    if name in unusable:
        raise ValueError(f"{unusable[name]}; {offer_names(allowed)}")
    word = name.lower().replace("-", "_")
    begun = [known for known in allowed if known.startswith(word)]
    near = begun[:3] or difflib.get_close_matches(word, allowed, n=3, cutoff=0.6)
    raise ValueError(f"is not known; did you mean {' or '.join(near)}?" if near else offer_names(allowed))


def offer_names(allowed: Iterable[str]) -> str:
    """What may be given, in words."""
    return f"give one of {', '.join(allowed)}"
