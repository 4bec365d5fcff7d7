"""The base of every verb's config: a frozen pydantic model that refuses unknown keys.

Knows nothing of how values are read (``command.flags``) or explained (``command.help_text``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.reading import expand_path


class Config(BaseModel):
    """Base of every entry point's config: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    positional: ClassVar[str | None] = None  # name of the field that takes bare arguments, if any
    # Heading in --help -> its fields; fields in no group come under "more".
    groups: ClassVar[dict[str, tuple[str, ...]]] = {}
    first: ClassVar[tuple[str, ...]] = ()  # the fields shown by -h
    examples: ClassVar[tuple[str, ...]] = ()  # arguments after the command, one line of --help each
    # List fields whose values may also be separated by spaces -> their allowed values.
    words: ClassVar[dict[str, tuple[str, ...]]] = {}

    @field_validator("*")
    @classmethod
    def _expand_paths(cls, value: Any) -> Any:
        """Expand ``~`` and ``~user`` in every path: a shell does so only in some flags."""
        try:
            if isinstance(value, Path):
                return expand_path(value)
            if isinstance(value, list) and any(isinstance(item, Path) for item in value):
                return [expand_path(item) if isinstance(item, Path) else item for item in value]
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("path ")) from error
        return value
