"""Runs and comparisons as Rich tables for the terminal, one screen a pair.

In: headlines and ``Comparison``s. Out: Rich renderables, printed by ``compare`` and ``report``. Knows nothing
of files.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import polars as pl
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kmmlu_fast.analysis.comparison import Comparison, Settings
from kmmlu_fast.analysis.exams import ExamRow
from kmmlu_fast.analysis.headline import headline
from kmmlu_fast.analysis.letter_prior import Decomposition
from kmmlu_fast.analysis.paired import ALPHA, Difference
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.foreign import clean, one_line, shown
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.data.subjects import group_order
from kmmlu_fast.reporting.inputs import CompareConfig
from kmmlu_fast.reporting.language import (
    Texts,
    p_text,
    percent,
    points,
    points_range,
    subject_name,
    supercategory_name,
)
from kmmlu_fast.reporting.sections import MOST_GROUPS
from kmmlu_fast.reporting.verdict import verdict
from kmmlu_fast.runs.run import Run

TOP = 4  # subjects shown at either end


def wide_console() -> Console:
    """stdout as wide as the terminal (or COLUMNS); a file or a pipe is as wide as its longest
    line, so nothing is cut there.
    """
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, soft_wrap=False, width=None if narrow else 1_000)


def print_fitted(console: Console, table: Table, *keep: int) -> None:
    """The table with as many columns as there is room for: the first, then ``keep`` in that
    order, then the others from the left.
    """
    order = [0, *keep, *[place for place in range(1, len(table.columns)) if place not in keep]]
    columns = list(table.columns)
    for count in range(len(columns), 1, -1):
        table.columns = [columns[place] for place in sorted(order[:count])]
        if Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width:
            break
    console.print(table)


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """``title`` heads the label column, so that a table costs no line more than its rows and one heading."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title=Text())
    for number, name in enumerate([title, *columns]):
        label = number < left
        table.add_column(
            Text(clean(name)),
            justify="left" if label else "right",
            no_wrap=True,
            max_width=36 if label else None,
        )
    return table


def _cells(*values: str) -> list[Text]:
    """Texts, never markup nor terminal escapes: names come from files."""
    return [Text(clean(value)) for value in values]


def _change(value: float, significant: bool, marked: bool = False) -> Text:
    style = ("green" if value > 0 else "red") if significant else "dim"
    return Text(points(value, unit=False) + ("*" if marked else ""), style=style)


def runs_table(rows: list[dict[str, Any]], pairs: list[Comparison], t: Texts, lang: str) -> Table:
    """All runs, best micro first, with the difference to the base."""
    clean = any(row["clean"] is not None for row in rows)
    groups = group_order({name for row in rows for name in row["supercategories"]})[:MOST_GROUPS]
    table = _table(
        t("all_runs") + ", %",
        t("short_micro"),
        t("interval"),
        t("short_macro"),
        *([t("short_clean")] if clean else []),
        t("short_balanced"),
        t("unparsed"),
        *([t("against", name=pairs[0].first), t("p"), t("letter_prior")] if pairs else []),
        *[supercategory_name(name, lang) for name in groups],
        t("tokens"),
    )
    by_name = {pair.second: pair for pair in pairs}
    for row in sorted(rows, key=lambda row: -row["micro"]):
        pair = by_name.get(row["name"])
        change = (
            [
                _change(pair.micro.difference, pair.significant),
                Text(p_text(pair.micro.p_value)),
                Text(_prior(pair)),
            ]
            if pair
            else _cells("", "", "")
        )
        tokens = row["prompt_tokens"]
        table.add_row(
            *_cells(
                row["name"],
                percent(row["micro"]),
                f"{percent(row['low'])}–{percent(row['high'])}",
                percent(row["macro"]),
            ),
            *(_cells(percent(row["clean"])) if clean else []),
            *_cells(percent(row["balanced"]), "–" if row["unparsed"] is None else f"{row['unparsed']:,}"),
            *(change if pairs else []),
            *_cells(*[percent(row["supercategories"].get(name), 1) for name in groups]),
            *_cells("–" if not tokens else f"{(tokens + row['output_tokens']) / row['questions']:.0f}"),
        )
    return table


def _prior(pair: Comparison) -> str:
    return points_range(pair.letters.prior_range, unit=False) if pair.letters else ""


def print_pair(
    console: Console, pair: Comparison, t: Texts, lang: str, brief: bool, by_subject: bool
) -> None:
    """The verdict, then the tables; ``brief``: the verdict alone."""
    console.print(Text(clean(f"{t('first')}: {pair.first}   {t('second')}: {pair.second}"), style="bold"))
    for line in verdict(pair, t, lang):
        console.print(Text(clean("  " + line)), soft_wrap=not console.is_terminal)
    if not brief:
        print_fitted(console, _headlines(pair, t), 3, 5, 1, 2)
        if pair.letters is not None:
            print_fitted(console, _letters(pair, pair.letters, t))
        print_fitted(console, _groups(pair, t, lang), 4, 6, 5)
    if by_subject or not brief:
        print_fitted(console, _subjects(pair, t, lang, by_subject), 4, 6, 5)
        console.print(Text(t("significant_note"), style="dim"), soft_wrap=not console.is_terminal)


def pair_tables(pair: Comparison, t: Texts, lang: str, by_subject: bool) -> list[Table]:
    """All tables of one comparison."""
    letters = [] if pair.letters is None else [_letters(pair, pair.letters, t)]
    return [_headlines(pair, t), *letters, _groups(pair, t, lang), _subjects(pair, t, lang, by_subject)]


def _headlines(pair: Comparison, t: Texts) -> Table:
    table = _table(
        t("accuracy") + ", %",
        t("first"),
        t("second"),
        t("difference"),
        t("interval"),
        t("p"),
        t("discordant"),
    )

    def row(label: str, found: Difference | None) -> None:
        if found is not None:
            counts = f"{found.b:,} / {found.c:,}" if found.p_value is not None else ""
            interval = f"{points(found.low, unit=False)} … {points(found.high, unit=False)}"
            table.add_row(
                *_cells(label, percent(found.first), percent(found.second)),
                _change(found.difference, found.significant),
                *_cells(interval, p_text(found.p_value) if found.p_value is not None else "", counts),
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
                *_cells(
                    label, percent(first), percent(second), points(second - first, unit=False), "", "", ""
                )
            )
    return table


def _letters(pair: Comparison, split: Decomposition, t: Texts) -> Table:
    one, other = split.first, split.second
    columns = [
        f"{t('share')}: {t('key')}",
        *[f"{t(what)}: {t(which)}" for what in ("share", "recall") for which in ("first", "second")],
    ]
    table = _table(t("letters_title") + ", %", *columns)
    for code, letter in enumerate(OPTION_LETTERS[: len(split.key_shares)]):
        values = (
            split.key_shares[code],
            one.shares[code],
            other.shares[code],
            one.recall[code],
            other.recall[code],
        )
        table.add_row(*_cells(letter, *[percent(value, 1) for value in values]))
    table.add_row(*_cells(t("unparsed"), "", percent(one.unparsed, 1), percent(other.unparsed, 1), "", ""))
    return table


def _groups(pair: Comparison, t: Texts, lang: str) -> Table:
    table = _table(
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
        table.add_row(*_row(row, supercategory_name(row["supercategory"], lang)))
    return table


def _subjects(pair: Comparison, t: Texts, lang: str, all_of_them: bool) -> Table:
    title = t("all_subjects" if all_of_them else "most_changed")
    table = _table(
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
            table.add_row(*_cells("…", *[""] * 8))
        table.add_row(
            *_row(row, subject_name(row["subject"], lang)),
            *_cells("±" + percent(row["minimum_detectable_effect"], 1)),
        )
    return table


def _row(row: dict[str, Any], label: str) -> list[Text]:
    significant = row["p_holm"] < ALPHA
    return [
        *_cells(label, f"{row['n']:,}", percent(row["first"], 1), percent(row["second"], 1)),
        _change(row["difference"], significant, significant),
        *_cells(
            f"{points(row['low'], 1, False)} … {points(row['high'], 1, False)}",
            p_text(row["p_holm"]),
            p_text(row["p_bh"]),
        ),
    ]


def print_question(
    console: Console, question_id: str, item: dict[str, Any] | None, rows: list[tuple[str, dict[str, Any]]]
) -> None:
    """One question: texts where the dataset is known, the key, and each run's answer,
    probabilities and generated text.
    """
    answer = rows[0][1]["answer"]
    console.print(Text(clean(question_id), style="bold"))
    if item is not None:
        console.print(Text(clean(item["question"])))
        for letter in [name for name in OPTION_LETTERS if item.get(name) is not None]:
            console.print(
                Text(clean(f"  {letter}. {item[letter]}"), style="green" if letter == answer else "")
            )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(
        Text(f"key {answer}"), overflow="fold", max_width=36
    )  # a long run name takes lines, never the figures' room
    count = max(row["num_options"] or 4 for _, row in rows)
    for heading in ("answer", *[f"P({letter})" for letter in OPTION_LETTERS[:count]], "read by"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for name, row in rows:
        four = [row[f"logprob_{letter}"] for letter in LETTERS]
        logprobs = row["option_logprobs"] or [value for value in four if value is not None]
        known = len(logprobs) == count
        weights = [math.exp(value - max(logprobs)) for value in logprobs] if known else []
        shares = [f"{weight / sum(weights):.3f}" for weight in weights] or ["–"] * count
        table.add_row(*_cells(name, row["prediction"] or "unparsed", *shares, row["read_by"] or "–"))
    console.print(table)
    for name, row in rows:
        for text in row["texts"] or []:
            console.print(Text(clean(f"{name}:"), style="bold"))
            console.print(Text(clean(text or "")))


def print_comparison(
    runs: list[Run],
    pairs: list[Comparison],
    refused: list[str],
    config: CompareConfig,
    settings: Settings,
    t: Texts,
) -> None:
    """Print it all, best seen at 100 columns or more."""
    console = wide_console()
    many = len(pairs) > 1
    if len(runs) > 2 or refused:
        board = runs_table(
            [headline(run, settings.overlap, settings.sizes) for run in runs], pairs, t, config.lang
        )
        against = next(
            (place for place, column in enumerate(board.columns) if str(column.header) == t("p")), 2
        )
        print_fitted(console, board, 1, 2, *((against - 1, against) if pairs else ()))
    for pair in pairs:
        print_pair(console, pair, t, config.lang, brief=many, by_subject=config.by_subject)
    for line in refused:
        console.print(Text(one_line(line)), style="yellow", markup=False, soft_wrap=not console.is_terminal)


def print_exams(rows: list[ExamRow], t: Texts) -> None:
    """Exams x model states, and the sentence about each state."""
    from kmmlu_fast.reporting.exams import sentences, terminal_table

    console = wide_console()
    for line in sentences(rows, t):
        console.print(Text(line, style="bold"))
    console.print(terminal_table(rows, t))


def print_questions(runs: list[Run], questions: pl.DataFrame | None, wanted: list[str]) -> None:
    """Print single questions: texts (with a dataset), key, and what each run answered."""
    from rich.console import Console

    console = Console(highlight=False)
    for question_id in wanted:
        found = [
            (run.name, run.frame.filter(pl.col("question_id") == question_id))
            for run in runs
            if run.predictions is not None
        ]
        rows = [(name, frame.row(0, named=True)) for name, frame in found if len(frame)]
        if not rows:
            raise ConfigError(
                f"--show {shown(question_id)}: is in none of the runs; ids look like"
                f" {runs[0].frame['question_id'][0]}"
            )
        item = (
            None
            if questions is None
            else next(questions.filter(pl.col("question_id") == question_id).iter_rows(named=True), None)
        )
        print_question(console, question_id, item, rows)
