"""pip's configuration as flags of uv, which does not read it:
``python -m pip config list | python -m kmmlu_fast.machine.uv_flags FILE``.

In: what pip says of its configuration, the requirements to install. Out: uv's flags, one a line; exit code 1
and the reason if uv could not do as pip would, so that set-up stays with pip. Standard library only. Knows
nothing of what is installed.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path

# pip's setting -> uv's flag
_SOURCES = {
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
}
# Settings that change nothing about what is installed. TLS: uv reads SSL_CERT_FILE, which set-up passes on.
_HARMLESS = (
    "cert",
    "default-timeout",
    "timeout",
    "retries",
    "disable-pip-version-check",
    "cache-dir",
    "no-cache-dir",
    "progress-bar",
    "quiet",
    "no-input",
    "root-user-action",
)


class NotForUvError(ValueError):
    """uv could not install as pip would."""


def parse_pip_settings(lines: Iterable[str]) -> dict[str, str]:
    """Setting -> value, of ``pip config list``; the environment's values before those of files."""
    settings: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.strip().partition("=")
        section, _, key = name.strip(":").rpartition(".")
        if not equals or section not in ("global", "install", "env", ":env:", "env:"):
            continue
        if key not in settings or "env" in section:
            settings[key] = str(ast.literal_eval(value))
    return settings


def uv_flags(settings: dict[str, str], requirements: str) -> list[str]:
    """The flags; NotForUvError if a setting has no counterpart, or a constraint is about these packages."""
    flags = ["--index-strategy", "unsafe-best-match"]  # as pip: all sources are searched
    for key, value in settings.items():
        if key in _SOURCES:
            flags += [word for source in value.split() for word in (_SOURCES[key], source)]
        elif key == "no-index":
            flags += [] if value.lower() in ("0", "false", "no", "off") else ["--no-index"]
        elif key == "constraint":
            _refuse_constraints(value.split(), requirements)
        elif key not in _HARMLESS:
            raise NotForUvError(f"pip's setting {key} has no counterpart")
    return flags


def _refuse_constraints(files: list[str], requirements: str) -> None:
    """uv takes no constraints beside hashes: fine as long as they are about other packages."""
    wanted = _package_names(requirements)
    for file in files:
        try:
            named = _package_names(Path(file).read_text(encoding="utf-8")) & wanted
        except OSError as error:
            raise NotForUvError(f"{file}: {error.strerror}") from error
        if named:
            raise NotForUvError(f"{file} constrains {', '.join(sorted(named))}")


def _package_names(text: str) -> set[str]:
    names = re.findall(r"^([A-Za-z0-9][\w.-]*)", text, flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


def main(argv: list[str] | None = None) -> int:
    """Flags on stdout, or the reason on stderr."""
    (requirements,) = sys.argv[1:] if argv is None else argv
    try:
        flags = uv_flags(parse_pip_settings(sys.stdin), Path(requirements).read_text(encoding="utf-8"))
    except NotForUvError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(flags))
    return 0


if __name__ == "__main__":
    sys.exit(main())
