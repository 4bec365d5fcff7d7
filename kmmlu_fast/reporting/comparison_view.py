"""A comparison as a program or a notebook holds it: the numbers, and what they mean in words.

In: two runs. Out: ``Comparison``, which wraps ``analysis.comparison`` and words it. Prints nothing.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from kmmlu_fast.analysis import comparison as analysis
from kmmlu_fast.analysis.comparison import Settings, compare_pair
from kmmlu_fast.analysis.paired import Difference
from kmmlu_fast.reporting.files.frames import as_json
from kmmlu_fast.reporting.pairs import counted
from kmmlu_fast.reporting.report_data import findings_of
from kmmlu_fast.reporting.wording.language import percent, points, texts
from kmmlu_fast.reporting.wording.verdict import verdict
from kmmlu_fast.runs.run import Run

Lang = Literal["en", "ko"]


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """``second`` against ``first``, question by question. Differences are second minus first, 0-1."""

    first: Run
    second: Run
    pair: analysis.Comparison
    settings: Settings

    @property
    def micro(self) -> Difference:
        """Change of accuracy over questions, with interval and McNemar's mid-p."""
        return self.pair.micro

    @property
    def macro(self) -> Difference:
        """Change of the mean of subject accuracies, with interval and p."""
        return self.pair.macro

    @property
    def subjects(self) -> pl.DataFrame:
        """A row a subject: n, both accuracies, difference, p by McNemar, corrected by Holm and
        by Benjamini-Hochberg.
        """
        return self.pair.subjects

    def verdict(self, lang: Lang = "en") -> str:
        """The finding in sentences, one a line: better or not, by how much, where, and whether
        it is letter habit.
        """
        return "\n".join(verdict(self.pair, texts(lang)))

    def to_dict(self, lang: Lang = "en") -> dict[str, Any]:
        """All numbers and sentences, JSON-able: what ``compare --json-file`` writes of this pair."""
        document = as_json(findings_of([self.first, self.second], self.settings, [self.pair]), texts(lang))
        return {"runs": document["runs"], **document["comparisons"][0]}

    def __repr__(self) -> str:
        return f"Comparison({self.first.name!r}, {self.second.name!r}, micro {points(self.micro.difference)})"

    def __rich__(self) -> Any:
        """Accuracies and the verdict, in a terminal."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("", "micro", "macro")
        for row in self._rows():
            table.add_row(Text(row[0]), *row[1:])
        return Group(table, Text(self.verdict()))

    def _repr_html_(self) -> str:
        """Accuracies and the verdict, in a notebook."""
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        words = "".join(f"<p>{html.escape(line)}</p>" for line in self.verdict().splitlines())
        return f"<table><tr><th></th><th>micro</th><th>macro</th></tr>{rows}</table>{words}"

    def _rows(self) -> list[tuple[str, str, str]]:
        runs = [
            (run.name, f"{percent(run.micro)} %", f"{percent(run.macro)} %")
            for run in (self.first, self.second)
        ]
        change = tuple(
            f"{points(found.difference)} ({points(found.low, unit=False)} to"
            f" {points(found.high, unit=False)})"
            for found in (self.micro, self.macro)
        )
        return [*runs, ("change", change[0], change[1])]


def compare_runs(first: Run, second: Run, settings: Settings) -> Comparison:
    """Compare; RunError where questions, keys or prompts differ and the settings do not allow it."""
    [pair] = counted([first, second], [compare_pair(first, second, settings)])
    return Comparison(first, second, pair, settings)
