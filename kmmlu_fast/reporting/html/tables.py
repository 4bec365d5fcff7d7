"""The report's tables as plain data: all runs, verdicts, subjects by run, a pair's subjects.

In: headlines, comparisons, runs, a translator. Out: dicts and lists of strings and numbers. Knows nothing of
HTML.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.headline import Headline
from kmmlu_fast.analysis.paired import ALPHA
from kmmlu_fast.analysis.ranking import RankInterval
from kmmlu_fast.data.subjects import group_order, subject_order
from kmmlu_fast.reporting.html.sections import change_tone
from kmmlu_fast.reporting.wording.language import (
    Translator,
    format_p_value,
    format_percent,
    format_points,
    format_points_range,
    format_rank,
)
from kmmlu_fast.reporting.wording.verdict import word_verdict
from kmmlu_fast.runs.run import Run

Row = dict[str, Any]
MOST_GROUPS = 8  # columns of supercategories


def supercategory_columns(rows: Sequence[Headline]) -> list[str]:
    """The supercategories that tables have columns for."""
    return group_order({name for row in rows for name in row.supercategories})[:MOST_GROUPS]


def leaderboard_data(
    rows: Sequence[Headline],
    pairs: Sequence[PairComparison],
    t: Translator,
    ranks: Sequence[RankInterval] = (),
) -> Row:
    """All runs (the first row is the base), best first, with bars on a common scale."""
    low = max(0, math.floor(min(row.low for row in rows) * 20) * 5)
    high = min(100, math.ceil(max(row.high for row in rows) * 20) * 5)
    names = supercategory_columns(rows)
    by_name = {pair.second: pair for pair in pairs}
    possible = {rank.name: format_rank(rank) for rank in ranks}

    def place(value: float) -> float:
        return float(round((100 * value - low) / (high - low) * 100, 2))

    runs = []
    for row in sorted(rows, key=lambda row: -row.micro):
        tokens = row.tokens_per_question
        pair = by_name.get(row.name)
        difference = tone = prior = ""
        if pair:
            difference = format_points(pair.micro.difference, unit=False)
            tone = change_tone(pair.micro.difference, pair.significant)
            if pair.letters:
                prior = format_points_range(pair.letters.prior_range, unit=False)
        runs.append(
            {
                "name": row.name,
                "base": row is rows[0],
                "micro": format_percent(row.micro),
                "macro": format_percent(row.macro),
                "rank": possible.get(row.name, "–"),
                "clean": format_percent(row.clean),
                "balanced": format_percent(row.balanced),
                "bar": {"low": place(row.low), "high": place(row.high), "at": place(row.micro)},
                "groups": [format_percent(row.supercategories.get(name), 1) for name in names],
                "difference": difference,
                "tone": tone,
                "prior": prior,
                "unparsed": "–" if row.unparsed is None else f"{row.unparsed:,}",
                "tokens": "–" if tokens is None else f"{tokens:,.0f}",
                "seconds": "–" if row.seconds is None else f"{row.seconds:,.0f}",
            }
        )
    return {
        "runs": runs,
        "scale": {"low": low, "high": high},
        "groups": [{"name": t.supercategory(name)} for name in names],
        "any_rank": bool(possible),
        "any_clean": any(row.clean is not None for row in rows),
        "any_tokens": any(row.prompt_tokens for row in rows),
        "any_seconds": any(row.seconds is not None for row in rows),
    }


def verdict_rows(pairs: Sequence[PairComparison], board: Sequence[Row], t: Translator) -> list[Row]:
    """A row per pair: the change and the sentences, with the numbers of the leaderboard."""
    board_rows = {row["name"]: row for row in board}
    rows = []
    for pair in pairs:
        verdict = word_verdict(pair, t)
        low, high = (format_points(end, unit=False) for end in (pair.micro.low, pair.micro.high))
        rows.append(
            {
                "second": pair.second,
                **{name: board_rows[pair.second][name] for name in ("difference", "tone", "prior")},
                "interval": f"{low} … {high}",
                "p": format_p_value(pair.micro.p_value),
                "cautions": list(verdict.cautions),
                "lines": [verdict.headline, *verdict.sentences],
                "details": list(verdict.details),
            }
        )
    return rows


def subject_matrix(runs: Sequence[Run], t: Translator) -> Row | None:
    """Subjects x runs, for three runs or more: the base, then the others by accuracy; the base's weakest
    subjects first.
    """
    if len(runs) < 3:
        return None
    runs = [runs[0], *sorted(runs[1:], key=lambda run: -run.micro)]
    accuracy = pl.col("correct") / pl.col("total")
    tables = [dict(run.scores.select("subject", accuracy).iter_rows()) for run in runs]
    names = subject_order({name for table in tables for name in table})
    names.sort(key=lambda name: tables[0].get(name, 2.0))

    def cell(value: float | None) -> Row:
        return {
            "text": format_percent(value, 0),
            "heat": 0 if value is None else round(max(0.0, (value - 0.2) / 0.8), 3),
        }

    return {
        "runs": [run.name for run in runs],
        "rows": [
            {"name": t.subject(name), "cells": [cell(table.get(name)) for table in tables]} for name in names
        ],
    }


def subject_change_rows(pair: PairComparison, t: Translator) -> tuple[list[str], list[list[Row]]]:
    """Headings and rows of the pair's subjects, by change."""
    columns = [t("subject"), t("supercategory"), t("questions"), pair.first, pair.second, t("difference")]
    columns += [t("interval"), "b", "c", t("p"), t("holm"), t("bh"), t("mde")]
    rows = []
    for row in pair.subjects.sort("difference", "subject", descending=[True, False]).iter_rows(named=True):
        mark = change_tone(row["difference"], row["p_holm"] < ALPHA)
        low, high = (format_points(row[end], 1, False) for end in ("low", "high"))
        cells: list[tuple[str, float | None, str]] = [
            (t.subject(row["subject"]), None, ""),
            (t.supercategory(row["supercategory"]), None, ""),
            (f"{row['n']:,}", row["n"], ""),
            (format_percent(row["first"], 1), row["first"], ""),
            (format_percent(row["second"], 1), row["second"], ""),
            (format_points(row["difference"], 1, False), row["difference"], mark),
            (f"{low} … {high}", row["low"], ""),
            (str(row["b"]), row["b"], ""),
            (str(row["c"]), row["c"], ""),
            (format_p_value(row["p_value"]), row["p_value"], ""),
            (format_p_value(row["p_holm"]), row["p_holm"], mark),
            (format_p_value(row["p_bh"]), row["p_bh"], ""),
            ("±" + format_percent(row["minimum_detectable_effect"], 1), row["minimum_detectable_effect"], ""),
        ]
        rows.append([{"text": text, "sort": sort, "tone": tone} for text, sort, tone in cells])
    return columns, rows
