"""Runs and comparisons as Rich tables.

In: headlines, ``PairComparison``s, a translator. Out: Rich tables, for the terminal and for Markdown. Prints
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.table import Table
from rich.text import Text

from kmmlu_fast.analysis.paired import ALPHA, PairedDifference
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import strip_control_characters
from kmmlu_fast.reporting.wording.form_text import FORM_COLUMN_KEYS, form_table_rows
from kmmlu_fast.reporting.wording.language import (
    Translator,
    format_p_value,
    format_percent,
    format_points,
    format_points_range,
    format_rank,
)
from kmmlu_fast.runs.run import Run

if TYPE_CHECKING:  # eval's summary, which needs one of these tables, starts without comparisons
    from kmmlu_fast.analysis.comparison import PairComparison
    from kmmlu_fast.analysis.headline import Headline
    from kmmlu_fast.analysis.letter_bias.letter_prior import Decomposition
    from kmmlu_fast.analysis.protocol_effects import ProtocolRow
    from kmmlu_fast.analysis.ranking import RankInterval

MOST_CHANGED = 8  # subjects shown, by the size of their change
_GROUP_COLUMNS = ("questions", "first", "second", "difference", "interval", "holm", "bh")


def leaderboard_table(
    rows: Sequence[Headline],
    pairs: Sequence[PairComparison],
    t: Translator,
    ranks: Sequence[RankInterval] = (),
) -> Table:
    """All runs, best micro first, with the difference from the base and the ranks they may have."""
    some_clean = any(row.clean is not None for row in rows)
    from kmmlu_fast.reporting.html.tables import supercategory_columns

    groups = supercategory_columns(rows)
    columns = [t("short_micro"), t("interval"), t("short_macro")]
    possible = {rank.name: format_rank(rank) for rank in ranks}
    if possible:
        columns.append(t("rank"))
    if some_clean:
        columns.append(t("short_clean"))
    columns += [t("short_balanced"), t("unparsed")]
    if pairs:
        columns += [t("against", name=pairs[0].first), t("p"), t("letter_prior")]
    columns += [*(t.supercategory(name) for name in groups), t("tokens")]
    table = _new_table(t("all_runs") + ", %", *columns)
    by_name = {pair.second: pair for pair in pairs}
    for row in sorted(rows, key=lambda row: -row.micro):
        interval = f"{format_percent(row.low)}–{format_percent(row.high)}"
        cells = text_cells(row.name, format_percent(row.micro), interval, format_percent(row.macro))
        if possible:
            cells += text_cells(possible.get(row.name, "–"))
        if some_clean:
            cells += text_cells(format_percent(row.clean))
        unparsed = "–" if row.unparsed is None else f"{row.unparsed:,}"
        cells += text_cells(format_percent(row.balanced), unparsed)
        pair = by_name.get(row.name)
        if pair:
            cells.append(_change_text(pair.micro.difference, pair.significant))
            cells += text_cells(format_p_value(pair.micro.p_value), _letter_prior_text(pair))
        elif pairs:
            cells += text_cells("", "", "")
        tokens = row.tokens_per_question
        cells += text_cells(*(format_percent(row.supercategories.get(name), 1) for name in groups))
        cells += text_cells("–" if tokens is None else f"{tokens:.0f}")
        table.add_row(*cells)
    return table


def _letter_prior_text(pair: PairComparison) -> str:
    return format_points_range(pair.letters.prior_range, unit=False) if pair.letters else ""


def pair_tables(pair: PairComparison, t: Translator, by_subject: bool) -> list[Table]:
    """All tables of one comparison."""
    tables = [headlines_table(pair, t)]
    if pair.letters is not None:
        tables.append(letters_table(pair, pair.letters, t))
    return [*tables, supercategories_table(pair, t), subject_changes_table(pair, t, by_subject)]


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

    def add_row(label: str, change: PairedDifference | None) -> None:
        if change is None:
            return
        interval = f"{format_points(change.low, unit=False)} … {format_points(change.high, unit=False)}"
        p, counts = "", ""
        if change.p_value is not None:
            p, counts = format_p_value(change.p_value), f"{change.b:,} / {change.c:,}"
        table.add_row(
            *text_cells(label, format_percent(change.first), format_percent(change.second)),
            _change_text(change.difference, change.significant),
            *text_cells(interval, p, counts),
        )

    add_row(t("micro"), pair.micro)
    add_row(t("macro"), pair.macro)
    add_row(t("clean_row", count=f"{pair.overlapping:,}"), pair.clean)
    add_row(t("debiased_row"), pair.debiased)
    if pair.letters is None:
        return table
    one, other = pair.letters.first, pair.letters.second
    for label, first, second in (
        (t("balanced"), one.balanced_accuracy, other.balanced_accuracy),
        (t("expected"), one.expected_accuracy, other.expected_accuracy),
        (t("matched"), one.matched_accuracy, other.matched_accuracy),
    ):
        if first is not None and second is not None:
            change = format_points(second - first, unit=False)
            table.add_row(*text_cells(label, format_percent(first), format_percent(second), change))
    return table


def letters_table(pair: PairComparison, split: Decomposition, t: Translator) -> Table:
    one, other = split.first, split.second
    columns = [f"{t('share')}: {t('key')}"]
    columns += [f"{t(what)}: {t(which)}" for what in ("share", "recall") for which in ("first", "second")]
    table = _new_table(t("letters_title") + ", %", *columns)
    for code, letter in enumerate(OPTION_LETTERS[: len(split.key_shares)]):
        columns_of_shares = (split.key_shares, one.shares, other.shares, one.recall, other.recall)
        values = (format_percent(shares[code], 1) for shares in columns_of_shares)
        table.add_row(*text_cells(letter, *values))
    unparsed = (format_percent(habit.unparsed, 1) for habit in (one, other))
    table.add_row(*text_cells(t("unparsed"), "", *unparsed))
    return table


def protocols_table(rows: Sequence[ProtocolRow], t: Translator) -> Table:
    """One model under several protocols."""
    from kmmlu_fast.reporting.wording.protocol_text import PROTOCOL_COLUMN_KEYS, protocol_table_rows

    table = _new_table(t("protocol") + ", %", *(t(name) for name in PROTOCOL_COLUMN_KEYS[1:]))
    for row in protocol_table_rows(rows, t):
        table.add_row(*text_cells(*row))
    return table


def forms_table(runs: Sequence[Run], t: Translator, names: Sequence[str] = ()) -> Table | None:
    """Mass and accuracy by the written form of the letters; None if no run has both forms."""
    rows = form_table_rows(runs, t, names)
    if not rows:
        return None
    table = _new_table(t("forms") + ", %", *(t(name) for name in FORM_COLUMN_KEYS[1:]))
    for row in rows:
        table.add_row(*text_cells(*row))
    return table


def supercategories_table(pair: PairComparison, t: Translator) -> Table:
    table = _new_table(t("supercategory") + ", %", *(t(name) for name in _GROUP_COLUMNS))
    for row in pair.supercategories.iter_rows(named=True):
        table.add_row(*_group_row(row, t.supercategory(row["supercategory"])))
    return table


def subject_changes_table(pair: PairComparison, t: Translator, all_of_them: bool) -> Table:
    title = t("all_subjects" if all_of_them else "most_changed")
    table = _new_table(title + ", %", *(t(name) for name in (*_GROUP_COLUMNS, "mde")))
    frame = pair.subjects
    if not all_of_them:
        size = pl.col("difference").abs()
        frame = frame.sort(size, "subject", descending=[True, False]).head(MOST_CHANGED)
    frame = frame.sort("difference", "subject", descending=[True, False])
    for row in frame.iter_rows(named=True):
        table.add_row(
            *_group_row(row, t.subject(row["subject"])),
            *text_cells("±" + format_percent(row["minimum_detectable_effect"], 1)),
        )
    return table


def subject_scores_table(runs: Sequence[Run], t: Translator) -> Table:
    """Subjects x runs: accuracy, %, and below it over all questions and over all subjects."""
    table = _new_table(t("all_subjects") + ", %", t("questions"), *(run.name for run in runs))
    scores = [dict(zip(run.scores["subject"], run.scores.iter_rows(named=True), strict=True)) for run in runs]
    for subject in dict.fromkeys(name for each in scores for name in each):
        totals = [each[subject]["total"] for each in scores if subject in each]
        cells = [t.subject(subject), f"{max(totals):,}"]
        for each in scores:
            row = each.get(subject)
            cells.append("–" if row is None else format_percent(row["correct"] / row["total"], 1))
        table.add_row(*text_cells(*cells))
    questions = f"{max(run.total for run in runs):,}"
    table.add_row(*text_cells(t("micro"), questions, *(format_percent(run.micro, 1) for run in runs)))
    table.add_row(*text_cells(t("macro"), "", *(format_percent(run.macro, 1) for run in runs)))
    return table


def _group_row(row: dict[str, Any], label: str) -> list[Text]:
    significant = row["p_holm"] < ALPHA
    accuracies = (format_percent(row[name], 1) for name in ("first", "second"))
    interval = f"{format_points(row['low'], 1, False)} … {format_points(row['high'], 1, False)}"
    return [
        *text_cells(label, f"{row['n']:,}", *accuracies),
        _change_text(row["difference"], significant, significant),
        *text_cells(interval, format_p_value(row["p_holm"]), format_p_value(row["p_bh"])),
    ]


def _change_text(value: float, significant: bool, marked: bool = False) -> Text:
    style = ("green" if value > 0 else "red") if significant else "dim"
    return Text(format_points(value, unit=False) + ("*" if marked else ""), style=style)


def _new_table(title: str, *columns: str, left: int = 1) -> Table:
    """``title`` heads the label column, so a table takes no more lines than its rows and one heading."""
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
    """Plain text without markup or terminal escapes: names come from files."""
    return [Text(strip_control_characters(value)) for value in values]
