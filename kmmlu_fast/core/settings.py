"""The base of every verb's config: a frozen pydantic model that refuses unknown keys.

Knows nothing of how values come in (``flags``) or how they are explained (``helping``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.reading import expand_path


class Config(BaseModel):
    """Base of every entry point's config: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    positional: ClassVar[str | None] = None  # name of the field that takes bare arguments, if any
    groups: ClassVar[
        dict[str, tuple[str, ...]]
    ] = {}  # heading of --help -> its fields; what stands in none comes under "more"
    first: ClassVar[tuple[str, ...]] = ()  # the fields of -h
    examples: ClassVar[tuple[str, ...]] = ()  # arguments after the command, each a line of --help
    words: ClassVar[
        dict[str, tuple[str, ...]]
    ] = {}  # lists that may be given with spaces too, and what they may hold

    @field_validator("*")
    @classmethod
    def _expand_paths(cls, value: Any) -> Any:
        """``~`` and ``~user`` in every path, from whichever side it came; a shell expands flags
        only, and not all of them.
        """
        try:
            if isinstance(value, Path):
                return expand_path(value)
            if isinstance(value, list) and any(isinstance(item, Path) for item in value):
                return [expand_path(item) if isinstance(item, Path) else item for item in value]
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("path ")) from error
        return value
