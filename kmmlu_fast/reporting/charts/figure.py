"""One chart of the report, titled and captioned, not yet drawn.

In: frames, names. Out: ``Figure``, its legend, tooltips. Knows nothing of what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from kmmlu_fast.reporting.charts.drawing import Palette
from kmmlu_fast.reporting.wording.language import format_percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """``draw`` takes a palette: the page's or a file's."""

    id: str
    title: str
    note: str
    draw: Callable[[Palette], Any]
    # (name, key of the palette or its n-th run colour as "0".."5"); "|key" = drawn as a tick
    legend: tuple[tuple[str, str], ...] = ()
    size: str = ""


def run_legend(names: Sequence[str], start: int = 0) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(start + place)) for place, name in enumerate(names))


def add_tooltips(frame: pl.DataFrame, label: Callable[[dict[str, Any]], str]) -> pl.DataFrame:
    tips = [
        f"{label(row)}: {format_percent(row['accuracy'], 1)} % [{format_percent(row['low'], 1)},"
        f" {format_percent(row['high'], 1)}], n = {row['total']:,}"
        for row in frame.iter_rows(named=True)
    ]
    return frame.with_columns(pl.Series("tip", tips, dtype=pl.String))
