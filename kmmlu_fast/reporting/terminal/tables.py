"""Runs and comparisons as Rich tables.

In: headlines, ``Comparison``s, words. Out: Rich tables, for the terminal and for Markdown. Prints nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from rich.table import Table
from rich.text import Text

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.headline import Headline
from kmmlu_fast.analysis.letter_bias.letter_prior import Decomposition
from kmmlu_fast.analysis.paired import ALPHA, PairedDifference
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import strip_control_characters
from kmmlu_fast.reporting.html.tables import supercategory_columns
from kmmlu_fast.reporting.wording.language import (
    Translator,
    format_p_value,
    format_percent,
    format_points,
    format_points_range,
)

TOP = 4  # subjects shown at either end


def leaderboard_table(rows: Sequence[Headline], pairs: Sequence[PairComparison], t: Translator) -> Table:
    """All runs, best micro first, with the difference to the base."""
    some_clean = any(row.clean is not None for row in rows)
    groups = supercategory_columns(rows)
    table = _new_table(
        t("all_runs") + ", %",
        t("short_micro"),
        t("interval"),
        t("short_macro"),
        *([t("short_clean")] if some_clean else []),
        t("short_balanced"),
        t("unparsed"),
        *([t("against", name=pairs[0].first), t("p"), t("letter_prior")] if pairs else []),
        *[t.supercategory(name) for name in groups],
        t("tokens"),
    )
    by_name = {pair.second: pair for pair in pairs}
    for row in sorted(rows, key=lambda row: -row.micro):
        pair = by_name.get(row.name)
        change = (
            [
                _change_text(pair.micro.difference, pair.significant),
                Text(format_p_value(pair.micro.p_value)),
                Text(_letter_prior_text(pair)),
            ]
            if pair
            else text_cells("", "", "")
        )
        tokens = row.tokens_per_question
        table.add_row(
            *text_cells(
                row.name,
                format_percent(row.micro),
                f"{format_percent(row.low)}–{format_percent(row.high)}",
                format_percent(row.macro),
            ),
            *(text_cells(format_percent(row.clean)) if some_clean else []),
            *text_cells(format_percent(row.balanced), "–" if row.unparsed is None else f"{row.unparsed:,}"),
            *(change if pairs else []),
            *text_cells(*[format_percent(row.supercategories.get(name), 1) for name in groups]),
            *text_cells("–" if tokens is None else f"{tokens:.0f}"),
        )
    return table


def _letter_prior_text(pair: PairComparison) -> str:
    return format_points_range(pair.letters.prior_range, unit=False) if pair.letters else ""


def pair_tables(pair: PairComparison, t: Translator, by_subject: bool) -> list[Table]:
    """All tables of one comparison."""
    letters = [] if pair.letters is None else [letters_table(pair, pair.letters, t)]
    return [
        headlines_table(pair, t),
        *letters,
        supercategories_table(pair, t),
        subject_changes_table(pair, t, by_subject),
    ]


def headlines_table(pair: PairComparison, t: Translator) -> Table:
    table = _new_table(
        t("accuracy") + ", %",
        t("first"),
        t("second"),
        t("difference"),
        t("interval"),
        t("p"),
        t("discordant"),
    )

    def row(label: str, found: PairedDifference | None) -> None:
        if found is not None:
            counts = f"{found.b:,} / {found.c:,}" if found.p_value is not None else ""
            interval = f"{format_points(found.low, unit=False)} … {format_points(found.high, unit=False)}"
            table.add_row(
                *text_cells(label, format_percent(found.first), format_percent(found.second)),
                _change_text(found.difference, found.significant),
                *text_cells(
                    interval, format_p_value(found.p_value) if found.p_value is not None else "", counts
                ),
            )

    row(t("micro"), pair.micro)
    row(t("macro"), pair.macro)
    row(t("clean_row", count=f"{pair.overlapping:,}"), pair.clean)
    row(t("debiased_row"), pair.debiased)
    if pair.letters is None:
        return table
    one, other = pair.letters.first, pair.letters.second
    for label, first, second in (
        (t("balanced"), one.balanced_accuracy, other.balanced_accuracy),
        (t("expected"), one.expected_accuracy, other.expected_accuracy),
        (t("matched"), one.matched_accuracy, other.matched_accuracy),
    ):
        if first is not None and second is not None:
            table.add_row(
                *text_cells(
                    label,
                    format_percent(first),
                    format_percent(second),
                    format_points(second - first, unit=False),
                    "",
                    "",
                    "",
                )
            )
    return table


def letters_table(pair: PairComparison, split: Decomposition, t: Translator) -> Table:
    one, other = split.first, split.second
    columns = [
        f"{t('share')}: {t('key')}",
        *[f"{t(what)}: {t(which)}" for what in ("share", "recall") for which in ("first", "second")],
    ]
    table = _new_table(t("letters_title") + ", %", *columns)
    for code, letter in enumerate(OPTION_LETTERS[: len(split.key_shares)]):
        values = (
            split.key_shares[code],
            one.shares[code],
            other.shares[code],
            one.recall[code],
            other.recall[code],
        )
        table.add_row(*text_cells(letter, *[format_percent(value, 1) for value in values]))
    table.add_row(
        *text_cells(
            t("unparsed"), "", format_percent(one.unparsed, 1), format_percent(other.unparsed, 1), "", ""
        )
    )
    return table


def supercategories_table(pair: PairComparison, t: Translator) -> Table:
    table = _new_table(
        t("supercategory") + ", %",
        t("questions"),
        t("first"),
        t("second"),
        t("difference"),
        t("interval"),
        t("holm"),
        t("bh"),
    )
    for row in pair.supercategories.iter_rows(named=True):
        table.add_row(*_group_row(row, t.supercategory(row["supercategory"])))
    return table


def subject_changes_table(pair: PairComparison, t: Translator, all_of_them: bool) -> Table:
    title = t("all_subjects" if all_of_them else "most_changed")
    table = _new_table(
        title + ", %",
        t("questions"),
        t("first"),
        t("second"),
        t("difference"),
        t("interval"),
        t("holm"),
        t("bh"),
        t("mde"),
    )
    frame = pair.subjects.sort("difference", "subject", descending=[True, False])
    if not all_of_them and len(frame) > 2 * TOP:
        frame = pl.concat([frame.head(TOP), frame.tail(TOP)])
    for number, row in enumerate(frame.iter_rows(named=True)):
        if not all_of_them and len(frame) == 2 * TOP and number == TOP:
            table.add_row(*text_cells("…", *[""] * 8))
        table.add_row(
            *_group_row(row, t.subject(row["subject"])),
            *text_cells("±" + format_percent(row["minimum_detectable_effect"], 1)),
        )
    return table


def _group_row(row: dict[str, Any], label: str) -> list[Text]:
    significant = row["p_holm"] < ALPHA
    return [
        *text_cells(
            label, f"{row['n']:,}", format_percent(row["first"], 1), format_percent(row["second"], 1)
        ),
        _change_text(row["difference"], significant, significant),
        *text_cells(
            f"{format_points(row['low'], 1, False)} … {format_points(row['high'], 1, False)}",
            format_p_value(row["p_holm"]),
            format_p_value(row["p_bh"]),
        ),
    ]


def _change_text(value: float, significant: bool, marked: bool = False) -> Text:
    style = ("green" if value > 0 else "red") if significant else "dim"
    return Text(format_points(value, unit=False) + ("*" if marked else ""), style=style)


def _new_table(title: str, *columns: str, left: int = 1) -> Table:
    """``title`` heads the label column, so that a table costs no line more than its rows and one heading."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title=Text())
    for number, name in enumerate([title, *columns]):
        label = number < left
        table.add_column(
            Text(strip_control_characters(name)),
            justify="left" if label else "right",
            no_wrap=True,
            max_width=36 if label else None,
        )
    return table


def text_cells(*values: str) -> list[Text]:
    """Words, never markup nor terminal escapes: names come from files."""
    return [Text(strip_control_characters(value)) for value in values]
