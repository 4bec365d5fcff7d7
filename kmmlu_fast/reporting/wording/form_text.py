"""The written forms of the letters in words: the mass on what is scored, and how much of a difference is
form.

In: a ``PairComparison`` or runs, a translator. Out: sentences, whose claims hold at 5 % or less, and rows of
a table. Knows nothing of how they are counted or shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kmmlu_fast.analysis.written_forms import LOW_MASS, FormSplit, FormSummary, summarise_letter_forms
from kmmlu_fast.reporting.wording.language import Translator, format_percent, format_points
from kmmlu_fast.reporting.wording.letter_habit import SIZEABLE, interval_values
from kmmlu_fast.runs.run import Run

if TYPE_CHECKING:
    from kmmlu_fast.analysis.comparison import PairComparison

FORM_COLUMN_KEYS = (
    *("run", "scored_form", "mass_spaced", "mass_bare", "accuracy_spaced", "accuracy_bare"),
    *("accuracy_either", "forms_differ"),
)


def classify_letter_form(pair: PairComparison) -> str | None:
    """What the written form has to do with the difference: all_form, partly_form, reversed_form, hidden_form;
    form_unknown if it cannot be told; not_form if the change shows in either form; scored_only if it shows in
    the scored form alone, though neither run writes it more than the other. None if there is nothing to
    explain, or the forms are not known.
    """
    forms = pair.forms
    if forms is None or forms.scored == ("either", "either"):
        return None
    part, either, change = forms.form.value, forms.either, pair.micro.difference
    same_way = either.significant and either.difference * change > 0
    if not forms.moved:
        return "scored_only" if pair.significant and forms.significant and not same_way else None
    if not pair.significant:
        opposed = forms.significant and either.significant and part * either.difference < 0
        return "hidden_form" if opposed else None
    if not forms.significant:
        return "not_form" if same_way else "form_unknown"
    if either.significant and not same_way:
        return "reversed_form"
    if not same_way:
        return "all_form" if part * change > 0 else "form_unknown"
    return "partly_form" if part / change > SIZEABLE else "not_form"


def habit_pair(pair: PairComparison) -> PairComparison | None:
    """The pair that sentences on letter habit speak of: as scored or, if the form moved, the change in either
    form; None if it is not known whether there is more than form.
    """
    if classify_letter_form(pair) == "form_unknown":
        return None
    if pair.forms is None or not pair.forms.moved:
        return pair
    return replace(pair, micro=pair.forms.either, letters=pair.forms.letters, p_holm=None, forms=None)


def form_meaning_line(pair: PairComparison, t: Translator) -> str | None:
    """What the written form means for the difference, in one sentence; None if there is nothing to say."""
    meaning = classify_letter_form(pair)
    if pair.forms is None or meaning in (None, "not_form"):
        return None
    values = _form_values(pair, pair.forms)
    direction = "worse" if pair.forms.either.difference < 0 else "better"
    if meaning == "reversed_form":
        return t(f"reversed_form_{direction}", **values)
    if meaning == "hidden_form":
        return t(f"hidden_form_{direction}", **values)
    return t(meaning, **values)


def form_detail_lines(pair: PairComparison, t: Translator) -> list[str]:
    """The change in either form if no sentence has said it; what shows in the scored form only."""
    if pair.forms is None or pair.forms.scored == ("either", "either"):
        return []
    key = "form_part" if form_meaning_line(pair, t) else "form_detail"
    return [t(key, **_form_values(pair, pair.forms))]


def _form_values(pair: PairComparison, forms: FormSplit) -> dict[str, str]:
    either = interval_values(forms.either)
    return {
        "first": pair.first,
        "second": pair.second,
        "first_mass": _format_mass(forms.mass[0]),
        "second_mass": _format_mass(forms.mass[1]),
        "diff": format_points(pair.micro.difference),
        "form": format_points(forms.form.value),
        **interval_values(forms.form),
        "either": format_points(forms.either.difference),
        "either_low": either["low"],
        "either_high": either["high"],
    }


def low_mass_cautions(pair: PairComparison, t: Translator) -> list[str]:
    """A caution if the scored letters of a run hold less than half of the next token's probability."""
    if pair.forms is None or min(pair.forms.mass) >= LOW_MASS:
        return []
    return [t("low_mass_pair", **_form_values(pair, pair.forms))]


def low_mass_line(summary: FormSummary | None, t: Translator) -> str | None:
    """The same for a single run, with what the other readings give."""
    if summary is None or not summary.is_low:
        return None
    others = [
        t(
            "form_reading",
            form=t(f"form_{name}"),
            mass=_format_mass(one.mass),
            accuracy=format_percent(one.accuracy),
        )
        for name, one in summary.readings.items()
        if name != summary.scored
    ]
    scored = summary.readings[summary.scored]
    values = {"mass": _format_mass(scored.mass), "accuracy": format_percent(scored.accuracy)}
    return t("low_mass", **values, form=t(f"form_{summary.scored}"), others="; ".join(others))


def form_table_rows(runs: Sequence[Run], t: Translator, names: Sequence[str] = ()) -> list[list[str]]:
    """A row per run that has answers: scored form, mass and accuracy by form (%); [] if no run has them.
    ``names``: other than the runs' own.
    """
    rows, some_known = [], False
    for run, name in zip(runs, names or [run.name for run in runs], strict=True):
        if run.predictions is None:
            continue
        summary = summarise_letter_forms(run.predictions)
        some_known |= summary is not None
        rows.append([name, *_summary_cells(summary, t)])
    return rows if some_known else []


def _summary_cells(summary: FormSummary | None, t: Translator) -> list[str]:
    if summary is None:
        return [t("mass_unknown"), *["–"] * (len(FORM_COLUMN_KEYS) - 2)]
    readings = summary.readings
    masses = [_format_mass(readings[name].mass) if name in readings else "–" for name in ("lm-eval", "bare")]
    accuracies = [
        format_percent(readings[name].accuracy) if name in readings else "–"
        for name in ("lm-eval", "bare", "either")
    ]
    return [t(f"form_{summary.scored}"), *masses, *accuracies, format_percent(summary.differing, 1)]


def _format_mass(value: float) -> str:
    return format_percent(value, 1)
