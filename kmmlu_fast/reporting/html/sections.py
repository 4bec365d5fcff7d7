"""The report's headline, tiles and facts, as plain data for the template.

In: headlines, comparisons, runs, a translator. Out: dicts of strings and numbers that
``assets/report.html.j2`` shows (and escapes). Knows nothing of HTML; tables are in ``tables``, charts in
``charts``.
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
from kmmlu_fast.reporting.wording.verdict import word_verdict
from kmmlu_fast.runs.run import Run, existing_adapter_path

Row = dict[str, Any]
_CARD_FACTS = ("prompt_style", "data", "hyperparameters", "warnings")


def change_tone(value: float, significant: bool) -> str:
    if not significant:
        return ""
    return "up" if value > 0 else "down"


def hero_section(
    run: Run, row: Headline, pair: PairComparison | None, warnings: list[str], t: Translator
) -> Row:
    """The headline: the pair's verdict, or a single run's accuracy; training's ``warnings`` follow the
    cautions.
    """
    split = run.predictions["split"][0] if run.predictions is not None and len(run.predictions) else ""
    if pair is None:
        return _single_hero(run, row, split, warnings, t)
    verdict = word_verdict(pair, t)
    return {
        "first": pair.first,
        "second": pair.second,
        "value": format_points(pair.micro.difference, unit=False),
        "unit": t("unit_pair"),
        "tone": change_tone(pair.micro.difference, pair.significant),
        "cautions": list(verdict.cautions),
        "warnings": warnings,
        "lines": [verdict.headline, *verdict.sentences],
        "details": list(verdict.details),
        "eyebrow": t("eyebrow_pair", n=f"{pair.micro.n:,}", subjects=len(pair.subjects), split=split),
    }


def _single_hero(run: Run, row: Headline, split: str, warnings: list[str], t: Translator) -> Row:
    eyebrow = t("eyebrow_one", n=f"{row.questions:,}", subjects=len(run.scores), split=split or run.kind)
    scores = {name: format_percent(getattr(row, name)) for name in ("micro", "low", "high", "macro")}
    lines = [t("one_run", name=run.name, **scores)]
    if row.constant is not None and row.expected is not None:
        letter, constant = row.constant
        values = {"constant": format_percent(constant), "expected": format_percent(row.expected)}
        lines.append(t("one_baseline", letter=letter, **values))
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
        "details": [],
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
    cards = [
        _difference_card(t("short_micro"), pair.micro, t),
        _difference_card(t("short_macro"), pair.macro, t),
    ]
    if split:
        cards.append(_split_card(split, t))
    if pair.debiased:
        cards.append(_difference_card(t("debiased_row"), pair.debiased, t))
    b, c = pair.micro.b, pair.micro.c
    sub = t("card_changed_sub", b=f"{b:,}", c=f"{c:,}")
    cards.append(_make_card(t("card_changed"), f"{b + c:,}", sub))
    sub = t("card_subjects_sub", up=up, down=len(changed) - up, total=len(pair.subjects))
    cards.append(_make_card(t("card_subjects"), str(len(changed)), sub))
    if pair.clean is not None and pair.overlapping:
        sub = t("card_clean_sub", count=f"{pair.overlapping:,}")
        tone = change_tone(pair.clean.difference, pair.clean.significant)
        cards.append(_make_card(t("card_clean"), t.units(format_points(pair.clean.difference)), sub, tone))
    unparsed = f"{row.unparsed:,} → {other.unparsed:,}"
    cards.append(_make_card(t("card_unparsed"), unparsed, t("card_unparsed_sub")))
    return cards


def _split_card(split: Decomposition, t: Translator) -> Row:
    # Of a range, the bar shows the middle.
    parts = [abs(sum(ends) / 2) for ends in (split.prior_range, split.remaining_range) if ends is not None]
    widths = [round(100 * part / (sum(parts) or 1), 1) for part in parts]
    sub = t("card_prior_sub", rest=format_points_range(split.remaining_range))
    card = _make_card(t("card_prior"), t.units(format_points_range(split.prior_range)), sub)
    bars = zip(("prior", "rest"), widths, strict=False)
    return card | {"split": [{"kind": kind, "width": width} for kind, width in bars]}


def _single_cards(row: Headline, t: Translator) -> list[Row]:
    cards = [_make_card(t("short_macro"), format_percent(row.macro), t("card_macro_sub", n=row.subjects))]
    if row.balanced is not None:
        cards.append(_make_card(t("short_balanced"), format_percent(row.balanced), t("card_balanced_sub")))
    if row.constant is not None:
        letter, accuracy = row.constant
        label = t("card_constant", letter=letter)
        cards.append(_make_card(label, format_percent(accuracy), t("card_constant_sub")))
    if row.clean is not None:
        sub = t("card_clean_sub", count=f"{row.overlapping:,}")
        cards.append(_make_card(t("card_clean"), format_percent(row.clean), sub))
    if row.unparsed is not None:
        cards.append(_make_card(t("card_unparsed"), f"{row.unparsed:,}", t("card_unparsed_sub")))
    return cards


def _make_card(label: str, value: str, sub: str, tone: str = "") -> Row:
    return {"label": label, "value": value, "sub": sub, "tone": tone, "split": None}


def _difference_card(label: str, change: PairedDifference, t: Translator) -> Row:
    sub = f"{format_percent(change.first)} → {format_percent(change.second)}"
    tone = change_tone(change.difference, change.significant)
    return _make_card(label, t.units(format_points(change.difference)), sub, tone)


def _speed_facts(run: Run) -> dict[str, Any]:
    parts = (run.metrics.speed, run.metrics.engine)
    return {name: value for part in parts if part is not None for name, value in part.to_json().items()}


def run_facts_section(runs: list[Run], t: Translator) -> list[Row]:
    """What is known about each run: source, protocol, adapter, speed, environment."""
    facts = []
    for run in runs:
        adapter = run.config.get("adapter")
        adapter_facts = dict(adapter) if isinstance(adapter, dict) else {}
        card = read_adapter_card(run)
        adapter_facts |= {name: card[name] for name in _CARD_FACTS if name in card}
        values_by_group = {
            "facts_source": {"name": run.name, "kind": run.kind, "source": run.source},
            "facts_protocol": {name: value for name, value in run.facts.items() if name != "versions"},
            "facts_adapter": adapter_facts,
            "facts_speed": _speed_facts(run),
            "facts_environment": run.environment or run.facts.get("versions") or {},
        }
        groups = [
            {"name": t(key), "rows": _flatten_values(values)}
            for key, values in values_by_group.items()
            if values
        ]
        facts.append({"name": run.name, "source": run.kind, "groups": groups})
    return facts


def read_adapter_card(run: Run) -> dict[str, Any]:
    """What ``kmmlu_fast.train`` wrote about the run's adapter; {} if there is none, or it is gone."""
    folder = existing_adapter_path(run)
    path = folder / "kmmlu_fast.json" if folder else None
    return read_json(path) if path is not None and path.is_file() else {}


def _flatten_values(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            rows += _flatten_values(value, f"{prefix}{name}.")
        elif value not in (None, "", []):
            is_fraction = isinstance(value, float) and not math.isclose(value, round(value))
            text = f"{value:,.4g}" if is_fraction else str(value)
            rows.append((prefix + name, text[:400]))
    return rows
