"""The report's headline, tiles and facts, as plain data for the template.

In: headlines, comparisons, runs, words. Out: dicts of strings and numbers that ``assets/report.html.j2``
shows (and escapes). Knows nothing of HTML; tables are in ``boards``, charts in ``figures``.
"""

from __future__ import annotations

import math
from typing import Any

from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.analysis.headline import Headline
from kmmlu_fast.analysis.letter_bias.letter_prior import Decomposition
from kmmlu_fast.analysis.paired import PairedDifference
from kmmlu_fast.core.files import read_json
from kmmlu_fast.reporting.wording.language import (
    Translator,
    format_percent,
    format_points,
    format_points_range,
)
from kmmlu_fast.reporting.wording.verdict import caution_lines, verdict_lines
from kmmlu_fast.runs.run import Run, existing_adapter_path

Row = dict[str, Any]
_CARD_FACTS = ("prompt_style", "data", "hyperparameters", "warnings")


def change_tone(value: float, significant: bool) -> str:
    return "" if not significant else "up" if value > 0 else "down"


def hero_section(
    run: Run, row: Headline, pair: PairComparison | None, warnings: list[str], t: Translator
) -> Row:
    """The headline: the pair's verdict, or a single run's accuracy; ``warnings`` of training
    stand with the cautions.
    """
    split = run.predictions["split"][0] if run.predictions is not None and len(run.predictions) else ""
    if pair is None:
        return _single_hero(run, row, split, warnings, t)
    said = caution_lines(pair, t)
    return {
        "first": pair.first,
        "second": pair.second,
        "value": format_points(pair.micro.difference, unit=False),
        "unit": t("unit_pair"),
        "tone": change_tone(pair.micro.difference, pair.significant),
        "cautions": said,
        "warnings": warnings,
        "lines": verdict_lines(pair, t)[len(said) :],
        "eyebrow": t("eyebrow_pair", n=f"{pair.micro.n:,}", subjects=len(pair.subjects), split=split),
    }


def _single_hero(run: Run, row: Headline, split: str, warnings: list[str], t: Translator) -> Row:
    eyebrow = t("eyebrow_one", n=f"{row.questions:,}", subjects=len(run.scores), split=split or run.kind)
    lines = [
        t(
            "one_run",
            name=run.name,
            micro=format_percent(row.micro),
            low=format_percent(row.low),
            high=format_percent(row.high),
            macro=format_percent(row.macro),
        )
    ]
    if row.constant is not None and row.expected is not None:
        lines.append(
            t(
                "one_baseline",
                letter=row.constant[0],
                constant=format_percent(row.constant[1]),
                expected=format_percent(row.expected),
            )
        )
    elif row.constant is None:
        lines.append(t("one_scores"))
    return {
        "first": run.name,
        "second": None,
        "value": format_percent(row.micro),
        "unit": t("unit_one"),
        "tone": "",
        "eyebrow": eyebrow,
        "cautions": [],
        "warnings": warnings,
        "lines": lines,
    }


def hero_cards(
    row: Headline, pair: PairComparison | None, other: Headline | None, t: Translator
) -> list[Row]:
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
        _make_card(
            t("card_changed"),
            f"{pair.micro.b + pair.micro.c:,}",
            t("card_changed_sub", b=f"{pair.micro.b:,}", c=f"{pair.micro.c:,}"),
        ),
        _make_card(
            t("card_subjects"),
            str(len(changed)),
            t("card_subjects_sub", up=up, down=len(changed) - up, total=len(pair.subjects)),
        ),
    ]
    if pair.clean is not None and pair.overlapping:
        found.append(
            _make_card(
                t("card_clean"),
                format_points(pair.clean.difference),
                t("card_clean_sub", count=f"{pair.overlapping:,}"),
                change_tone(pair.clean.difference, pair.clean.significant),
            )
        )
    found.append(
        _make_card(t("card_unparsed"), f"{row.unparsed:,} → {other.unparsed:,}", t("card_unparsed_sub"))
    )
    return found


def _split_card(split: Decomposition, t: Translator) -> Row:
    # Of a range, the bar shows the middle.
    parts = [abs(sum(ends) / 2) for ends in (split.prior_range, split.remaining_range) if ends is not None]
    widths = [round(100 * part / (sum(parts) or 1), 1) for part in parts]
    return {
        **_make_card(
            t("card_prior"),
            format_points_range(split.prior_range),
            t("card_prior_sub", rest=format_points_range(split.remaining_range)),
        ),
        "split": [
            {"kind": kind, "width": width} for kind, width in zip(("prior", "rest"), widths, strict=False)
        ],
    }


def _single_cards(row: Headline, t: Translator) -> list[Row]:
    found = [_make_card(t("short_macro"), format_percent(row.macro), t("card_macro_sub", n=row.subjects))]
    if row.balanced is not None:
        found.append(_make_card(t("short_balanced"), format_percent(row.balanced), t("card_balanced_sub")))
    if row.constant is not None:
        found.append(
            _make_card(
                t("card_constant", letter=row.constant[0]),
                format_percent(row.constant[1]),
                t("card_constant_sub"),
            )
        )
    if row.clean is not None:
        found.append(
            _make_card(
                t("card_clean"), format_percent(row.clean), t("card_clean_sub", count=f"{row.overlapping:,}")
            )
        )
    if row.unparsed is not None:
        found.append(_make_card(t("card_unparsed"), f"{row.unparsed:,}", t("card_unparsed_sub")))
    return found


def _make_card(label: str, value: str, sub: str, tone_: str = "") -> Row:
    return {"label": label, "value": value, "sub": sub, "tone": tone_, "split": None}


def _difference_card(label: str, found: PairedDifference) -> Row:
    return _make_card(
        label,
        format_points(found.difference),
        f"{format_percent(found.first)} → {format_percent(found.second)}",
        change_tone(found.difference, found.significant),
    )


def run_facts_section(runs: list[Run], t: Translator) -> list[Row]:
    """What is known about each run: where from, protocol, adapter, environment, speed."""
    found = []
    for run in runs:
        adapter = run.config.get("adapter")
        card = read_adapter_card(run)
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
                "groups": [
                    {"name": name, "rows": _flatten_values(values)} for name, values in groups if values
                ],
            }
        )
    return found


def read_adapter_card(run: Run) -> dict[str, Any]:
    """What ``kmmlu_fast.train`` wrote about the run's adapter; {} where there is none, or it is
    not there any more.
    """
    folder = existing_adapter_path(run)
    path = folder / "kmmlu_fast.json" if folder else None
    return read_json(path) if path is not None and path.is_file() else {}


def _flatten_values(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flatten_values(value, f"{prefix}{name}.")
        elif value not in (None, "", []):
            text = (
                f"{value:,.4g}"
                if isinstance(value, float) and not math.isclose(value, round(value))
                else str(value)
            )
            rows.append((prefix + name, text[:400]))
    return rows
