"""The performance table of README.md, made from recorded results: ``python -m bench.table``.

In: bench/results/*.json (the newest entry of each benchmark counts; ``--kind`` picks a kind of machine). Out:
the lines between the two markers in README.md, replaced; ``--check`` only says whether they are what the
records give. A line stands only where its record does: nothing is typed by hand. Knows nothing of how
anything is measured.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bench.common import RESULTS, ROOT
from kmmlu_fast.core.console import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import write_bytes_atomically
from kmmlu_fast.core.flags import Config, parse

BEGIN, END = "<!-- python -m bench.table: begin -->", "<!-- python -m bench.table: end -->"
Entry = dict[str, Any]


class TableConfig(Config):
    """python -m bench.table: README's performance table from the records."""

    positional: ClassVar[str | None] = "files"

    files: list[str] = Field([], description="result files; default: all of bench/results")
    kind: str = Field(
        "",
        description=(
            "records of machines whose file name holds this, such as avx512-bf16 or h100; default: all"
        ),
    )
    readme: Path = Field(ROOT / "README.md", description="the file with the markers")
    check: bool = Field(
        False, description="change nothing; exit code 2 if the table is not what the records give"
    )


def read_entries(files: list[Path]) -> dict[str, Entry]:
    """The newest entry of each benchmark; peers by number of exemplars. ConfigError for a file
    that is no record.
    """
    newest: dict[str, Entry] = {}
    for path in files:
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: is no file of results ({error})") from error
        for entry in entries:
            for name in _names(entry):
                if name not in newest or entry["time_utc"] >= newest[name]["time_utc"]:
                    newest[name] = entry
    return newest


def _names(entry: Entry) -> list[str]:
    if entry["bench"] == "peers":
        return [f"peers-{found['num_fewshot']}" for found in entry["rounds"] if len(found["rows"]) > 1]
    if entry["bench"] == "adapters":
        return [f"adapters-{mode}" for mode in {row["mode"] for row in entry["rows"]} - {"base"}]
    return [str(entry["bench"])]


def _peers(shots: int) -> Callable[[Entry], str]:
    def line(entry: Entry) -> str:
        found = next(each for each in entry["rounds"] if each["num_fewshot"] == shots)
        others = [row for row in found["rows"] if row["peer"] != "kmmlu_fast"]
        times = " / ".join(f"{row['times_slower']:.1f}x" for row in others)
        differing = sum(row.get("different") or 0 for row in others)
        same = (
            "the same letters but for near ties"
            if not differing
            else f"{differing} letters differ beyond near ties"
        )
        return f"{times} faster than {' / '.join(row['peer'] for row in others)}; {same}"

    return line


def _start(entry: Entry) -> str:
    rows = {(row["tree"], row["what"]): row for row in entry["rows"]}
    first, again = rows["now", "first answers"], rows["now", "shown again"]
    ratio = first.get("cpu_sec_of_before")
    told = f", {ratio:.2f} of the CPU time before" if ratio else ""
    return (
        f"{first['sec']['median']:.1f} s{told}; a finished run shown again in {again['sec']['median']:.1f} s"
    )


def _swap(entry: Entry) -> str:
    rows = [row for row in entry["rows"] if row["mode"] == "swap" and row["state"] != "base"]
    swap, passed = max(row["swap_sec"] for row in rows), max(row["times_base_cpu"] for row in rows)
    return f"{swap:.1f} s a swap at most, a pass {passed:.2f}x the base's CPU time at most"


def _training(entry: Entry) -> str:
    rows = {(row["way"], row["length"], row["batch"]): row for row in entry["rows"]}
    told = []
    for length, batch in sorted({key[1:] for key in rows}):
        mine = rows.get(("train", length, batch)) or rows.get(("unsloth", length, batch))
        if mine is None:
            continue
        for other in ("unsloth", "peft"):
            found = rows.get((other, length, batch))
            if found and found is not mine:
                unit = "cpu_sec" if "cpu_sec" in mine and "cpu_sec" in found else "step_sec"
                ratio = found[unit]["median"] / mine[unit]["median"]
                peaks = f"{mine['peak_gib']:.1f} against {found['peak_gib']:.1f} GiB"
                told.append(f"{batch} x {length}: {ratio:.2f}x {other} ({peaks})")
    return "; ".join(told)


def _throughput(entry: Entry) -> str:
    return f"{entry['share_of_matmul_rate']:.0%}"


def _scale(entry: Entry) -> str:
    two = max(entry["replicas"], key=lambda row: row["replicas"])
    return f"{two['efficiency']:.0%} efficiency, {two['same_letters']:.0%} the same letters"


LINES: tuple[tuple[str, str, Callable[[Entry], str]], ...] = (
    ("peers-0", "zero-shot, the same questions", _peers(0)),
    ("peers-5", "five-shot, the same questions", _peers(5)),
    ("start", "from the command to the first answers", _start),
    ("adapters-swap", "another adapter in the same engine", _swap),
    ("throughput", "share of the device's matmul rate", _throughput),
    ("scale", "replicas on Ray, a core each", _scale),
    ("training", "QLoRA step, rows x tokens", _training),
)


def render(entries: dict[str, Entry]) -> str:
    """The table, with the machine and day of each record."""
    lines = ["| What | Measured | On | Command |", "|---|---|---|---|"]
    for name, what, told in LINES:
        if entry := entries.get(name):
            device = entry["device"]
            kind = device["name"] if device["kind"] == "gpu" else f"{device['name']}, {device['cores']} cores"
            kind += f" ({device['cpu_kind'].partition(':')[0]})" if device.get("cpu_kind") else ""
            lines.append(
                f"| {what} | {told(entry)} | {kind}, {entry['time_utc'][:10]} | `{entry['command']}` |"
            )
    return "\n".join(lines)


def replaced(text: str, table: str) -> str:
    """README with the lines between the markers replaced. ConfigError where the markers are missing."""
    found = re.search(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", text, re.DOTALL)
    if found is None:
        raise ConfigError(f"the file has no lines {BEGIN} and {END}; put them around the table")
    return f"{text[: found.start()]}{BEGIN}\n{table}\n{END}{text[found.end() :]}"


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse(TableConfig, argv, "python -m bench.table")
        files = [Path(name) for name in config.files] or sorted(RESULTS.glob("*.json"))
        entries = read_entries([path for path in files if config.kind in path.name])
        if not entries:
            raise ConfigError(
                f"no recorded results of {config.kind!r} in {RESULTS.name}; measure with --record first"
            )
        text = config.readme.read_text(encoding="utf-8")
        fresh = replaced(text, render(entries))
        if config.check:
            if fresh != text:
                raise ConfigError(
                    f"{config.readme.name}: the table is not what the records give; run python -m bench.table"
                )
            return 0
        write_bytes_atomically(config.readme, fresh.encode("utf-8"))
        print(render(entries))
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
