"""What stands in the report's sections, as plain data for the template.

In: runs, comparisons, texts. Out: dicts of strings and numbers that ``assets/report.html.j2`` shows (and
escapes). Knows nothing of HTML; charts are in ``figures``.
"""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from kmmlu_fast.analysis.comparison import Comparison
from kmmlu_fast.analysis.letter_prior import Decomposition
from kmmlu_fast.analysis.paired import ALPHA, Difference
from kmmlu_fast.core.files import read_json
from kmmlu_fast.data.subjects import group_order, subject_order
from kmmlu_fast.reporting.language import (
    Texts,
    p_text,
    percent,
    points,
    points_range,
    subject_name,
    supercategory_name,
)
from kmmlu_fast.reporting.verdict import cautions, verdict
from kmmlu_fast.runs.run import Run, adapter_path

Row = dict[str, Any]
MOST_GROUPS = 8  # columns of supercategories
_CARD_FACTS = ("prompt_style", "data", "hyperparameters", "warnings")


def tone(value: float, significant: bool) -> str:
    return "" if not significant else "up" if value > 0 else "down"


def hero(run: Run, row: Row, pair: Comparison | None, warnings: list[str], t: Texts, lang: str) -> Row:
    """The headline: the pair's verdict, or a single run's accuracy; ``warnings`` of training
    stand with the cautions.
    """
    split = run.predictions["split"][0] if run.predictions is not None and len(run.predictions) else ""
    if pair is None:
        eyebrow = t(
            "eyebrow_one", n=f"{row['questions']:,}", subjects=len(run.scores), split=split or run.kind
        )
        lines = [
            t(
                "one_run",
                name=run.name,
                micro=percent(row["micro"]),
                low=percent(row["low"]),
                high=percent(row["high"]),
                macro=percent(row["macro"]),
            )
        ]
        if row["constant"] is not None and row["expected"] is not None:
            lines.append(
                t(
                    "one_baseline",
                    letter=row["constant"][0],
                    constant=percent(row["constant"][1]),
                    expected=percent(row["expected"]),
                )
            )
        elif row["constant"] is None:
            lines.append(t("one_scores"))
        return {
            "first": run.name,
            "second": None,
            "value": percent(row["micro"]),
            "unit": t("unit_one"),
            "tone": "",
            "eyebrow": eyebrow,
            "cautions": [],
            "warnings": warnings,
            "lines": lines,
        }
    said = cautions(pair, t)
    return {
        "first": pair.first,
        "second": pair.second,
        "value": points(pair.micro.difference, unit=False),
        "unit": t("unit_pair"),
        "tone": tone(pair.micro.difference, pair.significant),
        "cautions": said,
        "warnings": warnings,
        "lines": verdict(pair, t, lang)[len(said) :],
        "eyebrow": t("eyebrow_pair", n=f"{pair.micro.n:,}", subjects=len(pair.subjects), split=split),
    }


def cards(row: Row, pair: Comparison | None, other: Row | None, t: Texts) -> list[Row]:
    """The small numbers under the headline."""
    if pair is None or other is None:
        return _single_cards(row, t)
    split = pair.letters
    changed = pair.changed_subjects()
    up = int((changed["difference"] > 0).sum())
    found = [
        _difference_card(t("short_micro"), pair.micro),
        _difference_card(t("short_macro"), pair.macro),
        *([_split_card(split, t)] if split else []),
        *([_difference_card(t("debiased_row"), pair.debiased)] if pair.debiased else []),
        _card(
            t("card_changed"),
            f"{pair.micro.b + pair.micro.c:,}",
            t("card_changed_sub", b=f"{pair.micro.b:,}", c=f"{pair.micro.c:,}"),
        ),
        _card(
            t("card_subjects"),
            str(len(changed)),
            t("card_subjects_sub", up=up, down=len(changed) - up, total=len(pair.subjects)),
        ),
    ]
    if pair.clean is not None and pair.overlapping:
        found.append(
            _card(
                t("card_clean"),
                points(pair.clean.difference),
                t("card_clean_sub", count=f"{pair.overlapping:,}"),
                tone(pair.clean.difference, pair.clean.significant),
            )
        )
    found.append(
        _card(t("card_unparsed"), f"{row['unparsed']:,} → {other['unparsed']:,}", t("card_unparsed_sub"))
    )
    return found


def _split_card(split: Decomposition, t: Texts) -> Row:
    # Of a range, the bar shows the middle.
    parts = [abs(sum(ends) / 2) for ends in (split.prior_range, split.remaining_range) if ends is not None]
    widths = [round(100 * part / (sum(parts) or 1), 1) for part in parts]
    return {
        **_card(
            t("card_prior"),
            points_range(split.prior_range),
            t("card_prior_sub", rest=points_range(split.remaining_range)),
        ),
        "split": [
            {"kind": kind, "width": width} for kind, width in zip(("prior", "rest"), widths, strict=False)
        ],
    }


def _single_cards(row: Row, t: Texts) -> list[Row]:
    found = [_card(t("short_macro"), percent(row["macro"]), t("card_macro_sub", n=row["subjects"]))]
    if row["balanced"] is not None:
        found.append(_card(t("short_balanced"), percent(row["balanced"]), t("card_balanced_sub")))
    if row["constant"] is not None:
        found.append(
            _card(
                t("card_constant", letter=row["constant"][0]),
                percent(row["constant"][1]),
                t("card_constant_sub"),
            )
        )
    if row["clean"] is not None:
        found.append(
            _card(
                t("card_clean"), percent(row["clean"]), t("card_clean_sub", count=f"{row['overlapping']:,}")
            )
        )
    if row["unparsed"] is not None:
        found.append(_card(t("card_unparsed"), f"{row['unparsed']:,}", t("card_unparsed_sub")))
    return found


def _card(label: str, value: str, sub: str, tone_: str = "") -> Row:
    return {"label": label, "value": value, "sub": sub, "tone": tone_, "split": None}


def _difference_card(label: str, found: Difference) -> Row:
    return _card(
        label,
        points(found.difference),
        f"{percent(found.first)} → {percent(found.second)}",
        tone(found.difference, found.significant),
    )


def runs_table(rows: list[Row], pairs: list[Comparison], base: str, lang: str) -> Row:
    """All runs, best first, with bars on a common scale."""
    low = max(0, math.floor(min(row["low"] for row in rows) * 20) * 5)
    high = min(100, math.ceil(max(row["high"] for row in rows) * 20) * 5)
    names = group_order({name for row in rows for name in row["supercategories"]})[:MOST_GROUPS]
    by_name = {pair.second: pair for pair in pairs}

    def place(value: float) -> float:
        return float(round((100 * value - low) / (high - low) * 100, 2))

    shown = []
    for row in sorted(rows, key=lambda row: -row["micro"]):
        pair = by_name.get(row["name"])
        tokens = (
            None
            if not row["prompt_tokens"]
            else (row["prompt_tokens"] + row["output_tokens"]) / row["questions"]
        )
        shown.append(
            {
                "name": row["name"],
                "base": row["name"] == base,
                "micro": percent(row["micro"]),
                "macro": percent(row["macro"]),
                "clean": percent(row["clean"]),
                "balanced": percent(row["balanced"]),
                "bar": {"low": place(row["low"]), "high": place(row["high"]), "at": place(row["micro"])},
                "groups": [percent(row["supercategories"].get(name), 1) for name in names],
                "difference": points(pair.micro.difference, unit=False) if pair else "",
                "tone": tone(pair.micro.difference, pair.significant) if pair else "",
                "prior": points_range(pair.letters.prior_range, unit=False) if pair and pair.letters else "",
                "unparsed": "–" if row["unparsed"] is None else f"{row['unparsed']:,}",
                "tokens": "–" if tokens is None else f"{tokens:,.0f}",
                "seconds": "–" if row["seconds"] is None else f"{row['seconds']:,.0f}",
            }
        )
    return {
        "runs": shown,
        "scale": {"low": low, "high": high},
        "groups": [{"name": supercategory_name(name, lang)} for name in names],
        "any_clean": any(row["clean"] is not None for row in rows),
        "any_tokens": any(row["prompt_tokens"] for row in rows),
        "any_seconds": any(row["seconds"] is not None for row in rows),
    }


def verdicts_table(pairs: list[Comparison], board: list[Row], t: Texts, lang: str) -> list[Row]:
    """A row a pair: what changed, and the sentences; figures as the leaderboard has them."""
    shown = {row["name"]: row for row in board}
    rows = []
    for pair in pairs:
        said = cautions(pair, t)
        found = pair.micro
        rows.append(
            {
                "second": pair.second,
                **{name: shown[pair.second][name] for name in ("difference", "tone", "prior")},
                "interval": f"{points(found.low, unit=False)} … {points(found.high, unit=False)}",
                "p": p_text(found.p_value),
                "cautions": said,
                "lines": verdict(pair, t, lang)[len(said) :],
            }
        )
    return rows


def matrix(runs: list[Run], lang: str) -> Row | None:
    """Subjects x runs, for three runs or more; the base first, then by accuracy; the base's
    weakest subjects first.
    """
    if len(runs) < 3:
        return None
    runs = [
        runs[0],
        *sorted(runs[1:], key=lambda run: -int(run.scores["correct"].sum()) / int(run.scores["total"].sum())),
    ]
    tables = [
        {
            name: correct / total
            for name, correct, total in run.scores.select("subject", "correct", "total").iter_rows()
        }
        for run in runs
    ]
    names = subject_order({name for table in tables for name in table})
    names.sort(key=lambda name: tables[0].get(name, 2.0))

    def cell(value: float | None) -> Row:
        return {
            "text": percent(value, 0),
            "heat": 0 if value is None else round(max(0.0, (value - 0.2) / 0.8), 3),
        }

    return {
        "runs": [run.name for run in runs],
        "rows": [
            {"name": subject_name(name, lang), "cells": [cell(table.get(name)) for table in tables]}
            for name in names
        ],
    }


def subjects_table(pair: Comparison, t: Texts, lang: str) -> tuple[list[str], list[list[Row]]]:
    """Headings and rows of the pair's subjects, by change."""
    columns = [
        t("subject"),
        t("supercategory"),
        t("questions"),
        pair.first,
        pair.second,
        t("difference"),
        t("interval"),
        "b",
        "c",
        t("p"),
        t("holm"),
        t("bh"),
        t("mde"),
    ]
    rows = []
    for row in pair.subjects.sort("difference", "subject", descending=[True, False]).iter_rows(named=True):
        mark = tone(row["difference"], row["p_holm"] < ALPHA)
        cells: list[tuple[str, float | None, str]] = [
            (subject_name(row["subject"], lang), None, ""),
            (supercategory_name(row["supercategory"], lang), None, ""),
            (f"{row['n']:,}", row["n"], ""),
            (percent(row["first"], 1), row["first"], ""),
            (percent(row["second"], 1), row["second"], ""),
            (points(row["difference"], 1, False), row["difference"], mark),
            (f"{points(row['low'], 1, False)} … {points(row['high'], 1, False)}", row["low"], ""),
            (str(row["b"]), row["b"], ""),
            (str(row["c"]), row["c"], ""),
            *[
                (p_text(row[name]), row[name], mark if name == "p_holm" else "")
                for name in ("p_value", "p_holm", "p_bh")
            ],
            ("±" + percent(row["minimum_detectable_effect"], 1), row["minimum_detectable_effect"], ""),
        ]
        rows.append([{"text": text, "sort": sort, "tone": mark_} for text, sort, mark_ in cells])
    return columns, rows


def facts(runs: list[Run], t: Texts) -> list[Row]:
    """What is known about each run: where from, protocol, adapter, environment, speed."""
    found = []
    for run in runs:
        adapter = run.config.get("adapter")
        card = adapter_card(run)
        groups = [
            (t("facts_source"), {"name": run.name, "kind": run.kind, "source": run.source}),
            (t("facts_protocol"), {name: value for name, value in run.facts.items() if name != "versions"}),
            (
                t("facts_adapter"),
                {
                    **(adapter if isinstance(adapter, dict) else {}),
                    **{name: card[name] for name in _CARD_FACTS if name in card},
                },
            ),
            (t("facts_speed"), {**(run.metrics.get("speed") or {}), **(run.metrics.get("engine") or {})}),
            (t("facts_environment"), run.environment or run.facts.get("versions") or {}),
        ]
        found.append(
            {
                "name": run.name,
                "source": run.kind,
                "groups": [{"name": name, "rows": _flat(values)} for name, values in groups if values],
            }
        )
    return found


def adapter_card(run: Run) -> dict[str, Any]:
    """What ``kmmlu_fast.train`` wrote about the run's adapter; {} where there is none, or it is
    not there any more.
    """
    folder = adapter_path(run)
    path = folder / "kmmlu_fast.json" if folder else None
    return read_json(path) if path is not None and path.is_file() else {}


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        elif value not in (None, "", []):
            text = (
                f"{value:,.4g}"
                if isinstance(value, float) and not math.isclose(value, round(value))
                else str(value)
            )
            rows.append((prefix + name, text[:400]))
    return rows


def with_constant(row: Row, run: Run, overlap: frozenset[str]) -> Row:
    """A headline row and the best constant answer (letter, accuracy) of its questions."""
    constant = None
    if run.predictions is not None and len(run.predictions):
        most = run.predictions["answer"].value_counts(sort=True).row(0)
        constant = (most[0], most[1] / len(run.predictions))
    ids = run.predictions["question_id"] if run.predictions is not None else pl.Series([], dtype=pl.String)
    return {
        **row,
        "constant": constant,
        "subjects": len(run.scores),
        "overlapping": int(ids.is_in(overlap).sum()) if overlap else 0,
    }
