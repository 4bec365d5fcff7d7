"""What an attack is, and the good inputs that it bends: made once, copied for every attack.

In: a folder with one good file of every kind (``bending``), a tiny model, an adapter. Out: fresh copies.
Knows nothing of what is done to them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Attack:
    """``wrong``: an answer to this input could only be a wrong number, so that it must be refused.
    ``own``: the folder whose unfinished run the command is to go on with, and may therefore change.
    ``around``: what is wrong around the command, as fields of ``killing.Job``.
    """

    name: str
    verb: str
    argv: list[str]
    wrong: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    own: str | None = None
    around: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Inputs:
    """Good inputs, made once; every attack bends a copy in ``folder``."""

    good: Path
    folder: Path
    model: Path
    adapter: Path

    def copy(self, name: str) -> Path:
        """A fresh copy of a good input."""
        source, target = self.good / name, self.folder / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        return target
