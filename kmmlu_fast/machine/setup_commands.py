"""The command that installs a pinned set here: the clone's script, or the installed package's own verb.

In: cpu or gpu. Out: a command as it is typed. Standard library only.
"""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def is_clone() -> bool:
    """Whether the package runs from a clone, which has scripts; after pip install there are none."""
    return (_ROOT / "scripts" / "setup.sh").is_file()


def setup_command(kind: str, *, replace: bool = False) -> str:
    """How to install the set; ``replace``: instead of the other one, as the two do not mix."""
    if is_clone():
        return ("rm -rf .venv && " if replace else "") + f"bash scripts/setup.sh {kind}"
    return f"kmmlu-fast install {kind}" + (", in a new environment" if replace else "")
