"""A diagnosis for the terminal: the machine, what works for the model, what to type.

In: ``Diagnosis`` and a line on training. Out: text on stdout, coloured if rich is installed and stdout is a
terminal; plain otherwise, so that it also runs before set-up. Knows nothing of how anything was detected.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from kmmlu_fast.core.console import terminal_width
from kmmlu_fast.machine import host, packages
from kmmlu_fast.machine.diagnosis import Diagnosis, describe_adapter_support
from kmmlu_fast.machine.memory_fit import GIB, MemoryOption

_STYLES = {"title": "bold", "bad": "bold red", "good": "green", "dim": "dim"}
_DAY_MIN = 24 * 60
Line = tuple[str, str]  # style (or nothing), text


def diagnosis_lines(diagnosis: Diagnosis, training: str, train_command: str) -> list[Line]:
    """All lines. ``training``: one line; ``train_command``: empty if training does not fit."""
    title = "A machine that is not here" if diagnosis.assumed else "This machine"
    rows = _assumed_rows(diagnosis) if diagnosis.assumed else _machine_rows(diagnosis)
    shown: list[Line] = [("title", title), *_labelled_lines(rows)]
    if diagnosis.model is not None:
        works = "would work" if diagnosis.obstacles else "works"
        size = f"{diagnosis.model.parameters / 1e9:.2f} B parameters, {diagnosis.model.source}"
        shown += [
            ("", ""),
            ("title", f"What {works} for {diagnosis.model_name} ({size}) on {_device_name(diagnosis)}"),
        ]
        shown += _memory_option_lines(diagnosis)
        shown += _labelled_lines([("adapters", describe_adapter_support(diagnosis)), ("training", training)])
        shown += [("dim", "  Computed from counts, data sheets and a CPU's product rate, not measured.")]
    for note in diagnosis.notes:
        shown += [("", ""), ("", _wrap_text("note: ", note))]
    if diagnosis.obstacles:
        shown += [("", ""), ("bad", "In the way:")]
        shown += [("bad", _wrap_text("  ", obstacle)) for obstacle in diagnosis.obstacles]
        return shown
    commands = [diagnosis.setup, diagnosis.command, train_command]
    shown += [("", ""), ("title", "To type"), *(("good", f"  {command}") for command in commands if command)]
    return shown


def print_diagnosis(diagnosis: Diagnosis, training: str, train_command: str) -> None:
    """Print ``diagnosis_lines``."""
    lines = diagnosis_lines(diagnosis, training, train_command)
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        print("\n".join(text for _, text in lines))
        return
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for style, text in lines:
        console.print(Text(text, style=_STYLES.get(style, "")))


def _assumed_rows(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    return [("card", f"{card.name}, all of it free") for card in diagnosis.cards.cards]


def _machine_rows(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    here, pins, hub = diagnosis.machine, diagnosis.pins, diagnosis.hub
    cores = f"{here.cores} core{'s' if here.cores != 1 else ''}"
    free, total = here.memory_free_bytes / GIB, here.memory_total_bytes / GIB
    rows = [
        ("CPU", f"{here.cpu.name}, {cores}; {host.cpu_kind(here.cpu.flags)}"),
        ("memory", f"{total:.1f} GiB, {free:.1f} free"),
        ("disk", f"{here.disk_free_bytes / 1e9:.0f} GB free"),
        ("Python", ".".join(map(str, here.python))),
    ]
    rows += [
        ("card", str(card) + f", {card.free_bytes / GIB:.1f} GiB free") for card in diagnosis.cards.cards
    ]
    if not diagnosis.cards.cards:
        rows.append(("card", diagnosis.cards.problem or "none"))
    if diagnosis.cards.driver:
        problem = packages.driver_problem(diagnosis.cards.driver, diagnosis.cuda)
        rows.append(("driver", problem or f"{diagnosis.cards.driver}, new enough for CUDA {diagnosis.cuda}"))
    tools = diagnosis.toolchain
    present = [path.rsplit("/", 1)[-1] for path in (tools.c_compiler, tools.cxx_compiler) if path]
    if tools.python_header:
        present.append("Python.h")
    rows.append(("compiler", ", ".join(present) + (f"; missing: {tools.missing}" if tools.missing else "")))
    token = "a token is set" if hub.token else "no token"
    rows.append(("hub", f"{hub.problem or 'reachable'}; {token}"))
    rows.append(("packages", _describe_packages(diagnosis, pins.pinned)))
    return rows


def _describe_packages(diagnosis: Diagnosis, pinned: int) -> str:
    if not diagnosis.installed:
        return f"not installed yet: {diagnosis.setup}"
    named = ", ".join(f"{name} {version}" for name, version in diagnosis.pins.named.items())
    if not pinned:
        return f"{diagnosis.installed} set ({named}); the pins are not available here"
    same = pinned - len(diagnosis.pins.missing) - len(diagnosis.pins.differing)
    deviations = [f"{name} is missing" for name in diagnosis.pins.missing]
    deviations += [f"{name} {have} instead of {want}" for name, have, want in diagnosis.pins.differing]
    more = f" and {len(deviations) - 4} more" if len(deviations) > 4 else ""
    tail = f"; {', '.join(deviations[:4])}{more}" if deviations else f" ({named})"
    return f"{diagnosis.installed} set, {same} of {pinned} as pinned{tail}"


def _device_name(diagnosis: Diagnosis) -> str:
    return diagnosis.card.name if diagnosis.card else f"the CPU, in {diagnosis.dtype}"


def _memory_option_lines(diagnosis: Diagnosis) -> list[Line]:
    head = ("", "option", "needs", "of", "fits", "full pass, estimated", "")
    rows = [head, *(_memory_option_row(diagnosis, option) for option in diagnosis.memory_options)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    styles = [
        "dim",
        *("good" if option == diagnosis.best_option else "" for option in diagnosis.memory_options),
    ]
    shown: list[Line] = []
    for style, row in zip(styles, rows, strict=True):
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        line = "  ".join([*cells, row[-1]]).rstrip()
        if len(line) <= _line_width():
            shown.append((style, line))
        else:
            shown += [(style, "  ".join(cells).rstrip()), (style, _wrap_text(" " * 7, row[-1]))]
    option = diagnosis.best_option or next(iter(diagnosis.memory_options), None)
    if option:
        batch = option.batch
        step = f"{batch.max_num_batched_tokens} tokens and {batch.max_num_seqs} sequences per step"
        shown += _labelled_lines([("batch", step)])
    return shown


def _memory_option_row(diagnosis: Diagnosis, option: MemoryOption) -> tuple[str, ...]:
    minutes = _format_minutes(diagnosis.option_minutes(option))
    mark = "  >" if option == diagnosis.best_option else "   "
    need, room = f"{option.total_bytes / GIB:.1f} GiB", f"{option.room_bytes / GIB:.1f} GiB"
    return (mark, option.name, need, room, "yes" if option.fits else "no", minutes, option.note)


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


def _line_width() -> int:
    return min(110, max(60, terminal_width(110)))


def _wrap_text(head: str, text: str) -> str:
    return textwrap.fill(
        text,
        _line_width(),
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
