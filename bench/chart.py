"""The chart of docs/performance.md, drawn from recorded results: ``python -m bench.chart
bench/results/FILE.json``.

In: results files with a ``peers`` entry (which counts: ``table``). Out: docs/performance.svg: a panel for
each number of exemplars, a bar a peer, its time beside kmmlu_fast's. Plain SVG with a title and a
description; readable on light and dark pages. Knows nothing else.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from bench.common import ROOT
from bench.table import read_entries
from kmmlu_fast.command.flags import Config, parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import write_bytes_atomically

_LABEL, _BAR, _RIGHT, _ROW, _HEAD = 150, 430, 150, 30, 46  # pixels
_STYLE = """
text{font:14px system-ui,sans-serif;fill:#24292f}.head{font-weight:600}.soft{fill:#57606a}.ours{fill:#0969da}.other{fill:#8c959f}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}.ours{fill:#4493f8}.other{fill:#6e7681}}
"""  # noqa: E501


class ChartConfig(Config):
    """python -m bench.chart: docs/performance.svg from recorded results."""

    positional: ClassVar[str | None] = "files"

    files: list[str] = Field(description="result files (bench/results/*.json)")
    output: Path = Field(ROOT / "docs" / "performance.svg", description="the SVG file")


def draw(entry: dict[str, Any]) -> str:
    """The SVG of one ``peers`` entry."""
    parts, y = [], 0.0
    gpu = (
        entry["device"]["kind"] == "gpu"
    )  # seconds are stated for a named GPU; elsewhere only the ratios carry over
    what = "seconds for 100 questions" if gpu else "time for the same questions, kmmlu_fast = 1"
    for found in entry["rounds"]:
        rows = [
            {"peer": r["peer"], "sec": 100 * r["seconds"] / r["questions"], "times": r["times_slower"]}
            for r in found["rows"]
        ]
        longest = max(row["sec"] for row in rows)
        size = f"{found['rows'][0]['questions']} questions of {found['subjects']} subjects"
        y += _HEAD
        parts.append(
            f'<text x="0" y="{y - 16:.0f}" class="head">{found["num_fewshot"]}-shot: {what} ({size})</text>'
        )
        for row in sorted(rows, key=lambda r: r["sec"]):
            width = max(2.0, _BAR * row["sec"] / longest)
            ours = row["peer"] == "kmmlu_fast"
            note = " ".join(
                [*([f"{row['sec']:,.1f} s"] if gpu else []), *([] if ours else [f"{row['times']:.1f}x"])]
            )
            parts.append(
                f'<text x="{_LABEL - 10}" y="{y + 19:.0f}" text-anchor="end">{escape(row["peer"])}</text>'
            )
            kind = "ours" if ours else "other"
            parts.append(
                f'<rect x="{_LABEL}" y="{y + 4:.0f}" width="{width:.1f}" height="21" rx="2" class="{kind}"/>'
            )
            parts.append(f'<text x="{_LABEL + width + 8:.1f}" y="{y + 19:.0f}" class="soft">{note}</text>')
            y += _ROW
    device, total = entry["device"], _LABEL + _BAR + _RIGHT
    where = f"{device['name']}, {device.get('cores')} cores" if device["kind"] == "cpu" else device["name"]
    y += 28
    about = f"{where}, {entry['model']} model, {entry['dtype']}, engine start apart"
    parts.append(f'<text x="0" y="{y - 8:.0f}" class="soft">{escape(about)}</text>')
    title = (
        "<title>Time for the same questions by tool</title><desc>Bars, shorter is faster; the table beside"
        " has the numbers.</desc>"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {y:.0f}" width="{total}"'
        f' height="{y:.0f}" role="img">'
    )
    return f"{head}{title}<style>{_STYLE}</style>{''.join(parts)}</svg>\n"


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(ChartConfig, argv, "python -m bench.chart")
        newest = read_entries([Path(name) for name in config.files])
        # of a model, not of random weights in another's shape
        chosen = {shots: newest[f"peers-{shots}"] for shots in range(6) if f"peers-{shots}" in newest}
        if not chosen:
            raise ConfigError(
                f"{', '.join(config.files)}: no entry of bench.peers; record one: python -m bench.peers"
                " --record"
            )
        rounds = [
            next(found for found in entry["rounds"] if found["num_fewshot"] == shots)
            for shots, entry in chosen.items()
        ]
        svg = draw({**max(chosen.values(), key=lambda entry: str(entry["time_utc"])), "rounds": rounds})
        write_bytes_atomically(config.output, svg.encode())
        print(config.output.name)
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
