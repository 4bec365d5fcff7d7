"""A comparison for programs and notebooks: the numbers, and what they mean in words.

In: two runs. Out: ``Comparison``, which wraps ``analysis.comparison`` with sentences. Prints nothing.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from kmmlu_fast.analysis import comparison as analysis
from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.paired import Outcome, PairedDifference
from kmmlu_fast.reporting.files.frames import report_data_json
from kmmlu_fast.reporting.pairs import log_and_correct_pairs
from kmmlu_fast.reporting.report_data import report_data_from_pairs
from kmmlu_fast.reporting.wording.language import format_percent, format_points, get_translator
from kmmlu_fast.reporting.wording.verdict import verdict_lines
from kmmlu_fast.runs.run import Run

Lang = Literal["en", "ko"]


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """``second`` against ``first``, question by question. Differences are second minus first, 0-1."""

    first: Run
    second: Run
    pair: analysis.PairComparison
    settings: ComparisonSettings

    @property
    def micro(self) -> PairedDifference:
        """Change of accuracy over questions, with interval and McNemar's mid-p."""
        return self.pair.micro

    @property
    def macro(self) -> PairedDifference:
        """Change of the mean of subject accuracies, with interval and p."""
        return self.pair.macro

    @property
    def subjects(self) -> pl.DataFrame:
        """A row per subject: n, both accuracies, difference, McNemar's p, also corrected by Holm and by
        Benjamini-Hochberg.
        """
        return self.pair.subjects

    @property
    def significant(self) -> bool:
        """Whether accuracy over questions changed, by the corrected p and by the interval."""
        return self.pair.significant

    @property
    def equal(self) -> bool:
        """Whether the difference is shown to lie within the margin."""
        return self.pair.equal

    @property
    def undecided(self) -> bool:
        """Whether neither a change nor equality is shown: ask more questions."""
        return self.pair.undecided

    @property
    def outcome(self) -> Outcome:
        """What is shown, in one word: better, worse, equal, undecided, or opposed (micro and macro go
        opposite ways).
        """
        return self.pair.outcome

    def verdict(self, lang: Lang = "en") -> str:
        """The result in sentences, one per line: better or not, by how much, in which subjects, and whether
        it is letter habit.
        """
        return "\n".join(verdict_lines(self.pair, get_translator(lang)))

    def to_dict(self, lang: Lang = "en") -> dict[str, Any]:
        """All numbers and sentences as JSON-able data, as ``compare --json-file`` writes them."""
        data = report_data_from_pairs([self.first, self.second], self.settings, [self.pair])
        document = report_data_json(data, get_translator(lang))
        return {"runs": document["runs"], **document["comparisons"][0]}

    def __repr__(self) -> str:
        change = format_points(self.micro.difference)
        return f"Comparison({self.first.name!r}, {self.second.name!r}, micro {change})"

    def __rich__(self) -> Any:
        """Accuracies and the verdict, in a terminal."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("", "micro", "macro")
        for row in self._table_rows():
            table.add_row(Text(row[0]), *row[1:])
        return Group(table, Text(self.verdict()))

    def _repr_html_(self) -> str:
        """Accuracies and the verdict, in a notebook."""
        rows = ""
        for row in self._table_rows():
            rows += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        words = "".join(f"<p>{html.escape(line)}</p>" for line in self.verdict().splitlines())
        return f"<table><tr><th></th><th>micro</th><th>macro</th></tr>{rows}</table>{words}"

    def _table_rows(self) -> list[tuple[str, str, str]]:
        runs = [
            (run.name, f"{format_percent(run.micro)} %", f"{format_percent(run.macro)} %")
            for run in (self.first, self.second)
        ]
        return [*runs, ("change", _change_text(self.micro), _change_text(self.macro))]


def _change_text(change: PairedDifference) -> str:
    low, high = format_points(change.low, unit=False), format_points(change.high, unit=False)
    return f"{format_points(change.difference)} ({low} to {high})"


def build_comparison(first: Run, second: Run, settings: ComparisonSettings) -> Comparison:
    """Compare; RunError if questions, keys or prompts differ and the settings do not allow it."""
    [pair] = log_and_correct_pairs([first, second], [compare_pair(first, second, settings)])
    return Comparison(first, second, pair, settings)
