"""The help of a verb, its reference page, and shell completion.

In: a config class with its fields, groups and examples. Out: text. ``-h`` shows the flags used most,
``--help`` all flags in groups; ``format_help_markdown`` gives the same text for the documentation. Knows
nothing of what the settings do.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kmmlu_fast.command.help_language import translate_help
from kmmlu_fast.core.console import terminal_width, wrap_text

if TYPE_CHECKING:
    from kmmlu_fast.core.settings import Config

# Each verb's config class; imported only to recognise another verb's settings file, or for the reference.
CONFIGS = {
    "eval": "kmmlu_fast.evaluation.config:EvalConfig",
    "sample": "kmmlu_fast.sampling.config:SampleConfig",
    "train": "kmmlu_fast.training.config:TrainConfig",
    "improve": "kmmlu_fast.improvement.config:ImproveConfig",
    "compare": "kmmlu_fast.reporting.config:CompareConfig",
    "report": "kmmlu_fast.reporting.config:ReportConfig",
    "leakage": "kmmlu_fast.contamination.config:LeakageConfig",
    "export": "kmmlu_fast.shipping.config:ExportConfig",
    "check": "kmmlu_fast.shipping.config:CheckConfig",
    "push": "kmmlu_fast.shipping.config:PushConfig",
    "verify": "kmmlu_fast.shipping.config:VerifyConfig",
    "plan": "kmmlu_fast.reporting.config:PlanConfig",
    "serve-engine": "kmmlu_fast.engines.warm.config:WarmEngineConfig",
}
_COLUMN = 30


def load_config_class(verb: str) -> type[Config]:
    """The config class of a verb of CONFIGS."""
    module, name = CONFIGS[verb].split(":")
    cls: type[Config] = getattr(importlib.import_module(module), name)
    return cls


def invoked_command(prog: str) -> str:
    """``kmmlu-fast eval`` or ``python -m kmmlu_fast eval``, however the user called it; else ``prog``."""
    verb = prog.rpartition(".")[2].replace("_", "-")
    started = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path()
    if started.name in ("kmmlu-fast", "kmmlu-fast.exe"):
        return f"kmmlu-fast {verb}"
    if started.name == "__main__.py" and started.parent.name == "kmmlu_fast":
        return f"python -m kmmlu_fast {verb}"
    return prog


def wrong_verb_faults(values: dict[str, Any], cls: type[Config], where: str) -> list[str]:
    """A fault that names the verb whose settings file this is, if it is another's; else []."""
    unknown = [name for name in values if name not in cls.model_fields]
    if len(unknown) < 2:
        return []
    for verb, place in CONFIGS.items():
        if place.endswith(":" + cls.__name__):
            continue
        other = load_config_class(verb)
        if all(name in other.model_fields for name in values):
            names = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
            return [
                f"{where}: is a file of settings for {verb} ({names}); use it with {verb}, or give one for"
                " this command"
            ]
    return []


def group_fields(cls: type[Config]) -> dict[str, list[str]]:
    """Heading -> fields, every field once."""
    groups = {}
    for heading, names in cls.groups.items():
        groups[heading] = [name for name in names if name in cls.model_fields]
    grouped = {name for names in groups.values() for name in names}
    rest = [name for name in cls.model_fields if name not in grouped and name != cls.positional]
    groups["more" if groups else "settings"] = rest
    return {heading: names for heading, names in groups.items() if names}


def verb_summary(cls: type[Config]) -> str:
    """What the verb does, in a sentence: the class's docstring without the name of the module."""
    text = " ".join((cls.__doc__ or "").split())
    summary = text.partition(": ")[2] or text
    return summary[:1].upper() + summary[1:]


def format_help(cls: type[Config], prog: str, whole: bool, lang: str = "en") -> str:
    """The help: usage, what it does, flags, examples."""
    width = min(100, max(60, terminal_width()))
    bare = f" {cls.positional.upper()} ..." if cls.positional else ""
    usage = translate_help("usage: {command} [--config FILE] [flags]", lang).format(command=prog + bare)
    lines = [usage, "", *wrap_text(translate_help(verb_summary(cls), lang), width)]

    def rows(names: Iterable[str]) -> list[str]:
        described = ((format_flag(cls, name), _describe_field(cls, name, lang)) for name in names)
        return [line for flag, about in described for line in format_help_row(flag, about, width)]

    if cls.positional:
        lines += [
            "",
            *format_help_row(cls.positional.upper(), _describe_field(cls, cls.positional, lang), width),
        ]
    if whole or not cls.first:
        for heading, names in group_fields(cls).items():
            lines += ["", translate_help(heading, lang) + ":", *rows(names)]
        about = translate_help("YAML file with any of these settings; flags take precedence", lang)
        lines += ["", *format_help_row("--config FILE", about, width)]
    else:
        lines += ["", translate_help("most used", lang) + ":", *rows(cls.first)]
    if cls.examples:
        heading = translate_help("examples", lang)
        lines += ["", heading + ":", *[f"  {prog} {example}" for example in cls.examples]]
    if not whole and cls.first:
        more = translate_help("All {count} flags: {command} --help", lang)
        lines += ["", more.format(count=len(cls.model_fields), command=prog)]
    return "\n".join(lines)


def format_help_row(name: str, about: str, width: int) -> list[str]:
    """A flag and what it does, in two columns."""
    indent = " " * _COLUMN
    wrapped = wrap_text(about, max(30, width - _COLUMN))
    head = f"  {name}"
    if len(head) >= _COLUMN:
        return [head, *[indent + line for line in wrapped]]
    return [head.ljust(_COLUMN) + wrapped[0], *[indent + line for line in wrapped[1:]]]


def format_flag(cls: type[Config], name: str) -> str:
    """The flag as typed, such as ``--limit N``."""
    field = cls.model_fields[name]
    flag = "--" + name.replace("_", "-")
    if field.annotation is bool:
        return f"{flag}, {negated_flag(name)}"
    several = typing.get_origin(field.annotation) is list and not cls.positional
    return f"{flag} {flag_metavar(field.annotation)}{' ...' if several else ''}"


def negated_flag(name: str) -> str:
    """The flag that turns a switch off, also one that a file turned on: ``--no-resume``, ``--texts``."""
    flag = name.replace("_", "-")
    return "--" + flag.removeprefix("no-") if flag.startswith("no-") else "--no-" + flag


def _describe_field(cls: type[Config], name: str, lang: str = "en") -> str:
    field = cls.model_fields[name]
    english = str(field.description or "")
    description = translate_help(english, lang)
    if choices := _literal_choices(field.annotation):
        description += f" [{', '.join(choices)}]"
    if field.is_required():
        return f"{description} ({translate_help('required', lang)})"
    default = field.get_default(call_default_factory=True)
    if default is None or default == [] or default is False or "default:" in english:
        return description
    return f"{description} ({translate_help('default', lang)}: {_format_default(default, lang)})"


def _format_default(value: Any, lang: str) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return translate_help("on", lang) if value is True else str(value)


def _literal_choices(annotation: Any) -> list[str]:
    """The allowed words of a Literal, anywhere in the annotation."""
    if typing.get_origin(annotation) is Literal:
        return [str(value) for value in typing.get_args(annotation)]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        choices = map(_literal_choices, typing.get_args(annotation))
        return next((words for words in choices if words), [])
    return []


def flag_metavar(annotation: Any) -> str:
    """The placeholder for the value: N, X, PATH, WORD or TEXT."""
    origin = typing.get_origin(annotation)
    if _literal_choices(annotation):
        return "WORD"
    if origin in (typing.Union, types.UnionType):
        return flag_metavar(next(part for part in typing.get_args(annotation) if part is not type(None)))
    if origin is typing.Annotated or origin is list:
        return flag_metavar(typing.get_args(annotation)[0])
    return str({int: "N", float: "X", Path: "PATH"}.get(annotation, "TEXT"))


def format_help_markdown(verb: str) -> str:
    """A verb's flags as a page of the documentation."""
    cls = load_config_class(verb)
    lines = [f"## `kmmlu-fast {verb}`", "", verb_summary(cls)]
    if cls.examples:
        lines += ["", "```bash", *[f"kmmlu-fast {verb} {example}" for example in cls.examples], "```"]
    if cls.positional:
        lines += ["", f"`{cls.positional.upper()}`: {_describe_field(cls, cls.positional)}"]
    for heading, names in group_fields(cls).items():
        lines += ["", f"### {verb}: {heading}", "", "| Flag | What it does |", "|---|---|"]
        for name in names:
            about = _describe_field(cls, name).replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| `{format_flag(cls, name)}` | {about} |")
    return "\n".join(lines) + "\n"


def completion_script(shell: str, verbs: list[str]) -> str:
    """A script that completes verbs and flags; ``eval "$(kmmlu-fast completion bash)"``."""
    flags = {verb: " ".join(_verb_flags(verb)) for verb in CONFIGS}
    names = " ".join(verbs)
    if shell == "fish":
        lines = [f"complete -c kmmlu-fast -n __fish_use_subcommand -f -a '{names}'"]
        lines += [
            f"complete -c kmmlu-fast -n '__fish_seen_subcommand_from {verb}' -a '{words}'"
            for verb, words in flags.items()
        ]
        return "\n".join(lines)
    cases = "\n".join(f'    {verb}) words="{words}" ;;' for verb, words in flags.items())
    body = f"""_kmmlu_fast() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if [ "$COMP_CWORD" = 1 ]; then words="{names}"; else
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [ "${{#COMPREPLY[@]}}" = 0 ]; then COMPREPLY=($(compgen -f -- "$word")); fi
}}
complete -o filenames -F _kmmlu_fast kmmlu-fast"""
    return ("autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "") + body


def _verb_flags(verb: str) -> list[str]:
    cls = load_config_class(verb)
    names = [name for name in cls.model_fields if name != cls.positional]
    flags = ["--" + name.replace("_", "-") for name in names]
    negated = [negated_flag(name) for name in names if cls.model_fields[name].annotation is bool]
    return ["--config", "--help", *flags, *negated]


def shell_name() -> str:
    """The user's shell if completion supports it, else bash."""
    name = Path(os.environ.get("SHELL", "bash")).name
    return name if name in ("bash", "zsh", "fish") else "bash"
