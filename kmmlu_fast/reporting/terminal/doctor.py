"""A diagnosis as lines for the terminal: what is here, what works for the model, what to type.

In: ``Diagnosis`` and ``TrainingOutlook``'s words. Out: text on stdout, coloured where rich is installed
and stdout is a terminal; plain otherwise, so that it also runs before set-up. Knows nothing of how
anything was found out.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from kmmlu_fast.machine import host, packages
from kmmlu_fast.machine.diagnosis import Diagnosis, describe_adapter_support
from kmmlu_fast.machine.memory_fit import GIB, MemoryOption

_STYLES = {"title": "bold", "bad": "bold red", "good": "green", "dim": "dim"}
_DAY_MIN = 24 * 60
Line = tuple[str, str]  # style (or nothing), text


def diagnosis_lines(found: Diagnosis, training: str, train_command: str) -> list[Line]:
    """Everything that is shown. ``training``: one line; ``train_command``: empty where it does not fit."""
    shown: list[Line] = [("title", "This machine"), *_labelled_lines(_machine_rows(found))]
    if found.model is not None:
        works = "would work" if found.obstacles else "works"
        size = f"{found.model.parameters / 1e9:.2f} B parameters, {found.model.source}"
        shown += [
            ("", ""),
            ("title", f"What {works} for {found.model_name} ({size}) on {_device_name(found)}"),
        ]
        shown += _memory_option_lines(found)
        shown += _labelled_lines([("adapters", describe_adapter_support(found)), ("training", training)])
        shown += [("dim", "  Computed from counts, data sheets and a CPU's product rate, not measured.")]
    shown += [line for note in found.notes for line in (("", ""), ("", _wrap_text("note: ", note)))]
    if found.obstacles:
        shown += [("", ""), ("bad", "In the way:")]
        shown += [("bad", _wrap_text("  ", obstacle)) for obstacle in found.obstacles]
        return shown
    commands = [found.setup, found.command, train_command]
    shown += [("", ""), ("title", "To type"), *(("good", f"  {command}") for command in commands if command)]
    return shown


def print_diagnosis(found: Diagnosis, training: str, train_command: str) -> None:
    """Print it."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        print("\n".join(text for _, text in diagnosis_lines(found, training, train_command)))
        return
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for style, text in diagnosis_lines(found, training, train_command):
        console.print(Text(text, style=_STYLES.get(style, "")))


def _machine_rows(found: Diagnosis) -> list[tuple[str, str]]:
    here, pins, hub = found.machine, found.pins, found.hub
    cores = f"{here.cores} core{'s' if here.cores != 1 else ''}"
    free, total = here.memory_free_bytes / GIB, here.memory_total_bytes / GIB
    rows = [
        ("CPU", f"{here.cpu.name}, {cores}; {host.cpu_kind(here.cpu.flags)}"),
        ("memory", f"{total:.1f} GiB, {free:.1f} free"),
        ("disk", f"{here.disk_free_bytes / 1e9:.0f} GB free"),
        ("Python", ".".join(map(str, here.python))),
    ]
    rows += [("card", str(card) + f", {card.free_bytes / GIB:.1f} GiB free") for card in found.cards.cards]
    rows += [] if found.cards.cards else [("card", found.cards.problem or "none")]
    if found.cards.driver:
        bad = packages.driver_problem(found.cards.driver, found.cuda)
        rows.append(("driver", bad or f"{found.cards.driver}, new enough for CUDA {found.cuda}"))
    tools = found.toolchain
    compilers = [path.rsplit("/", 1)[-1] for path in (tools.c_compiler, tools.cxx_compiler) if path]
    have = [*compilers, *(["Python.h"] if tools.python_header else [])]
    rows.append(("compiler", ", ".join(have) + (f"; missing: {tools.missing}" if tools.missing else "")))
    token = "a token is at hand" if hub.token else "no token"
    rows.append(("hub", f"{hub.problem or 'reachable'}; {token}"))
    rows.append(("packages", _describe_packages(found, pins.pinned)))
    return rows


def _describe_packages(found: Diagnosis, pinned: int) -> str:
    if not found.installed:
        return f"not installed yet: {found.setup}"
    named = ", ".join(f"{name} {version}" for name, version in found.pins.named.items())
    if not pinned:
        return f"{found.installed} set ({named}); the pins are not at hand"
    same = pinned - len(found.pins.missing) - len(found.pins.differing)
    away = [f"{name} is missing" for name in found.pins.missing]
    away += [f"{name} {have} instead of {want}" for name, have, want in found.pins.differing]
    more = f" and {len(away) - 4} more" if len(away) > 4 else ""
    tail = f"; {', '.join(away[:4])}{more}" if away else f" ({named})"
    return f"{found.installed} set, {same} of {pinned} as pinned{tail}"


def _device_name(found: Diagnosis) -> str:
    return found.card.name if found.card else f"the CPU, in {found.dtype}"


def _memory_option_lines(found: Diagnosis) -> list[Line]:
    head = ("", "way", "needs", "of", "fits", "full pass, estimated", "")
    rows = [head, *(_memory_option_row(found, way) for way in found.memory_options)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    text = [
        "  ".join([*(f"{c:<{w}}" for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    styles = ["dim", *("good" if way == found.best_option else "" for way in found.memory_options)]
    way = found.best_option or next(iter(found.memory_options), None)
    shown: list[Line] = list(zip(styles, text, strict=True))
    if way:
        batch = way.batch
        step = f"{batch.max_num_batched_tokens} tokens and {batch.max_num_seqs} sequences a step"
        shown += _labelled_lines([("batch", step)])
    return shown


def _memory_option_row(found: Diagnosis, way: MemoryOption) -> tuple[str, ...]:
    minutes = found.option_minutes(way)
    mark = "  >" if way == found.best_option else "   "
    need, room = f"{way.total_bytes / GIB:.1f} GiB", f"{way.room_bytes / GIB:.1f} GiB"
    return (mark, way.name, need, room, "yes" if way.fits else "no", _format_minutes(minutes), way.note)


def _format_minutes(minutes: tuple[float, float] | None) -> str:
    if minutes is None:
        return "-"
    low, high = minutes
    if high > 2 * _DAY_MIN:
        return f"{low / _DAY_MIN:.0f} to {high / _DAY_MIN:.0f} days"
    if high > 180:
        return f"{low / 60:.0f} to {high / 60:.0f} hours"
    return f"{low:.1f} to {high:.1f} min" if high < 10 else f"{low:.0f} to {high:.0f} min"


def _labelled_lines(rows: Sequence[tuple[str, str]]) -> list[Line]:
    return [("", _wrap_text(f"  {name:<10}", text)) for name, text in rows]


def _wrap_text(head: str, text: str) -> str:
    return textwrap.fill(
        text,
        110,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
