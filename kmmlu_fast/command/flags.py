"""Configuration: defaults < YAML file (``--config``) < flags, one pydantic model per entry point.

In: argv. Out: a validated, frozen config; or ConfigError that names *every* fault at once, with the flag it
came from. pydantic validates, because it collects all faults. argparse only splits the flags, which are
generated from the model. Knows nothing of what the settings do.

Why not a library: cyclopts 5.5 on these models takes 0.3 s of CPU more for ``--help`` (0.65 against 0.35 s),
and an unknown option hides the faults of all values; here one message has both.
"""

from __future__ import annotations

import difflib
import sys
import typing
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from kmmlu_fast.command import help_text
from kmmlu_fast.command.help_language import choose_help_language
from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.reading import expand_path, read_yaml
from kmmlu_fast.core.settings import Config as Config
from kmmlu_fast.core.untrusted_text import bounded_repr, one_line

ConfigT = TypeVar("ConfigT", bound=Config)
SHIPPED = Path(__file__).parents[1] / "configs"  # the package's copy of a clone's configs/


def parse_config(cls: type[ConfigT], argv: list[str] | None, prog: str) -> ConfigT:
    """Config from argv (``None`` = sys.argv[1:]). ConfigError lists all faults; ``-h`` and
    ``--help`` print and exit 0.
    """
    prog = help_text.invoked_command(prog)
    arguments = _normalize_arguments(cls, list(sys.argv[1:] if argv is None else argv))
    arguments, config_file = _take_config_file(arguments)
    from_file = _read_config_file(config_file, cls) if config_file else {}
    faults = help_text.wrong_verb_faults(from_file, cls, str(config_file))
    faults = faults or _describe_unknown_keys(from_file, cls, str(config_file))
    from_flags, flag_faults = _read_flags(cls, arguments, prog)
    faults += flag_faults
    known = {name: value for name, value in {**from_file, **from_flags}.items() if name in cls.model_fields}
    try:
        config = cls(**known)
    except ValidationError as error:
        origin = {name: f"{config_file}: {name}" for name in from_file if name not in from_flags}
        faults += [_describe_fault(detail, origin) for detail in error.errors()]
    if faults:
        raise ConfigError("; ".join(faults) + f" (see {prog} -h)")
    return config


def _normalize_arguments(cls: type[Config], arguments: list[str]) -> list[str]:
    """Rewrite ``--prompt_style`` as ``--prompt-style``, ``--export xlsx csv`` as ``--export xlsx,csv`` and,
    if unambiguous, ``--from A B`` as ``--from A --from B``.
    """
    normalized: list[str] = []
    list_field, has_value = "", False  # the list that bare words go to, and whether it has a value
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            normalized.append(name.replace("_", "-") + equals + value)
            field = name.removeprefix("--").replace("-", "_")
            list_field = field if not equals and _is_list_field(cls, field) else ""
            has_value = False
        elif not list_field or not has_value or argument.startswith("-"):
            normalized.append(argument)
            has_value = True
        elif argument.strip(",").split(",")[0] in cls.words.get(list_field, ()):
            normalized[-1] += "," + argument
        elif list_field in cls.words or cls.positional:
            normalized.append(argument)
            list_field = ""
        else:
            normalized += [f"--{list_field.replace('_', '-')}", argument]
    return normalized


def build_config(cls: type[ConfigT], **values: Any) -> ConfigT:
    """Config from keyword arguments named like the fields. ConfigError lists all faults; prints nothing.

    A single value for a list field becomes a list of one, and paths become text where text is asked for.
    """
    faults = _describe_unknown_keys(values, cls, cls.__name__)
    known = {
        name: _coerce_value(cls, name, value) for name, value in values.items() if name in cls.model_fields
    }
    try:
        config = cls(**known)
    except ValidationError as error:
        names = {name: name for name in cls.model_fields}
        faults += [_describe_fault(detail, names) for detail in error.errors()]
    if faults:
        raise ConfigError("; ".join(faults))
    return config


def _coerce_value(cls: type[Config], name: str, value: Any) -> Any:
    if not _is_list_field(cls, name):
        takes_path = "Path" in str(cls.model_fields[name].annotation)
        return str(value) if isinstance(value, Path) and not takes_path else value
    if isinstance(value, (str, Path)):
        return [str(value)]
    if isinstance(value, (list, tuple)):
        return [str(item) if isinstance(item, Path) else item for item in value]
    return value


def _take_config_file(arguments: list[str]) -> tuple[list[str], Path | None]:
    rest: list[str] = []
    path: Path | None = None
    pending = iter(arguments)
    for argument in pending:
        if argument == "--config":
            value = next(pending, None)
            if value is None:
                raise ConfigError("--config needs the path of a YAML file")
            path = Path(value)
        elif argument.startswith("--config="):
            path = Path(argument.removeprefix("--config="))
        else:
            rest.append(argument)
    return rest, path


def _read_config_file(path: Path, cls: type[Config]) -> dict[str, Any]:
    loaded = read_yaml(find_shipped_file(path, "--config"), f"--config {path}")
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"--config {path}: must be a mapping of settings such as 'model: demo', not a"
            f" {type(loaded).__name__}"
        )
    settings = {}
    for key, value in loaded.items():
        name = str(key).replace("-", "_")
        settings[name] = [value] if _is_list_field(cls, name) and isinstance(value, str) else value
    return settings


def find_shipped_file(path: Path, flag: str) -> Path:
    """The file; if a clone's ``configs/NAME`` is absent (as after pip install), the package's own."""
    expanded = expand_path(path, flag)
    inside = path.relative_to("configs") if path.parts[:1] == ("configs",) else path
    shipped = SHIPPED / inside
    if expanded.exists() or path.is_absolute() or ".." in path.parts or not shipped.is_file():
        return expanded
    log_note(f"{flag} {path}: not found; using the one shipped with kmmlu_fast ({shipped})")
    return shipped


def _is_list_field(cls: type[Config], name: str) -> bool:
    field = cls.model_fields.get(name)
    return field is not None and typing.get_origin(field.annotation) is list


def _describe_unknown_keys(values: dict[str, Any], cls: type[Config], where: str) -> list[str]:
    return [
        f"{where}: unknown key {bounded_repr(name)}{_suggest_similar_name(name, cls)}"
        for name in values
        if name not in cls.model_fields
    ]


def _suggest_similar_name(name: str, cls: type[Config], before: str = "") -> str:
    if name.replace("-", "_") == cls.positional:
        return ", which is given without a flag"
    flags = [field for field in cls.model_fields if field != cls.positional]
    near = difflib.get_close_matches(name.replace("-", "_"), flags, n=1)
    return f", did you mean {before}{near[0].replace('_', '-')}?" if near else ""


def _suggest_model_flag(bare: str, cls: type[Config]) -> str:
    """A bare word is most often a model: ``eval demo``."""
    return f", did you mean --model {one_line(bare, 60)}?" if "model" in cls.model_fields else ""


def _read_flags(cls: type[ConfigT], arguments: list[str], prog: str) -> tuple[dict[str, Any], list[str]]:
    """The flags in ``arguments`` as raw values for pydantic, and the faults.

    argparse's flags are generated from the model's fields, all optional and untyped: pydantic alone validates
    values, so that one message lists every fault.
    """
    import argparse

    for flag in ("-h", "--help"):
        if flag in arguments:
            lang = choose_help_language(arguments)
            print(help_text.format_help(cls, prog, whole=flag == "--help", lang=lang))
            raise SystemExit(0)
    parser = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, field in cls.model_fields.items():
        if name == cls.positional:
            parser.add_argument(name, nargs="*", default=argparse.SUPPRESS)
            continue
        flag = "--" + name.replace("_", "-")
        options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
        if field.annotation is bool:
            parser.add_argument(flag, action="store_true", **options)
            parser.add_argument(help_text.negated_flag(name), action="store_false", **options)
        else:
            parser.add_argument(flag, action="append" if _is_list_field(cls, name) else "store", **options)
    try:
        values, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        return {}, [str(error).removeprefix("argument ")]
    flags = {name: value for name, value in vars(values).items() if name in cls.model_fields}
    for name in flags:
        if not _is_list_field(cls, name) or name in ("adapter", "data", "from", cls.positional):
            continue
        # argparse takes "--" for a separator even as a flag's value, and gives a list.
        texts = [value if isinstance(value, str) else "--" for value in flags[name]]
        flags[name] = [part for part in ",".join(texts).split(",") if part]
    if cls.positional and flags.get(cls.positional) == []:
        del flags[cls.positional]
    faults = [
        f"unknown argument {flag}{_suggest_similar_name(flag.lstrip('-').split('=')[0], cls, '--')}"
        for flag in unknown
        if flag.startswith("-")
    ]
    faults += [
        f"unknown argument {bounded_repr(bare)}" + _suggest_model_flag(bare, cls)
        for previous, bare in zip(["", *unknown], unknown, strict=False)
        if not bare.startswith("-") and not previous.startswith("-")
    ]
    return flags, faults


def _describe_fault(detail: Any, origin: dict[str, str]) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        return str(message)
    name = str(detail["loc"][0])
    where = origin.get(name, "--" + name.replace("_", "-"))
    if detail["type"] == "missing":
        return f"{where} is required"
    value = detail["input"]
    if isinstance(value, list) and where.startswith("--"):  # as it was typed
        value = ",".join(map(str, value))
    return f"{where} {bounded_repr(value)}: {message[0].lower()}{message[1:]}"
