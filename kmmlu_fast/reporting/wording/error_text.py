"""What goes wrong, as the report and the exports show it: sorts of error by state and by subject, accuracy by
sort of question, and the errors a run was surest of.

In: findings, words. Out: plain data for the template, frames for files. No
texts unless they are asked for. Knows nothing of HTML, nor of how errors are counted (``analysis.profile``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from kmmlu_fast.analysis.error_profile import CONFIDENT, confident_errors, error_kinds, error_profile
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import Translator, format_percent
from kmmlu_fast.runs.run import Run

Row = dict[str, Any]
LISTED = 20  # confident errors
STEM_CHARS = 90
KINDS = ("errors", "unparsed", "forced", "confident", "close")
# What ``profile`` calls a value -> its key in texts.yaml; what is not here stands as it is.
_VALUES = {
    "yes": "yes",
    "no": "no",
    "shortest quarter": "shortest",
    "second": "second_quarter",
    "third": "third_quarter",
    "longest quarter": "longest",
    "below 0.4": "below",
    "0.8 and above": "above",
    "not given": "not_given",
}
_ORDER = ["yes", "no", "shortest quarter", "second", "third", "longest quarter"]
_ORDER += ["below 0.4", "0.4-0.6", "0.6-0.8", "0.8 and above", "not given"]


def errors_section(found: ReportData, shown: Sequence[Run], t: Translator, *, with_texts: bool) -> Row | None:
    """The report's section; None where no run has answers. ``shown``: the runs in focus, the one whose errors
    are listed last.
    """
    questions = found.questions
    focus = [run for run in shown if run.predictions is not None]
    if not focus:
        return None
    sure = _confident_error_rows(focus[-1], questions if with_texts else None, t)
    totals = {run.name: error_kinds(run.frame).row(0, named=True) for run in found.answered}
    kinds = [kind for kind in KINDS if any(row[kind] for row in totals.values())]
    sure_note = (
        [t("errors_note_sure", confident=format_percent(CONFIDENT, 0))]
        if {"confident", "close"} & {*kinds}
        else []
    )
    return {
        "kinds": [t(f"errors_{kind}") for kind in kinds],
        "states": [
            {"name": name, "cells": _error_count_cells(row, kinds)}
            for name, row in sorted(totals.items(), key=lambda item: item[1]["errors"] / item[1]["total"])
        ],
        "profile": None if questions is None else _error_profile_table(focus, questions, t),
        "subjects": _subject_error_rows(focus[-2:], kinds, t),
        "sure": sure,
        "stems": any(row["stem"] for row in sure),
        "sure_title": t("errors_sure", name=focus[-1].name),
        "note": " ".join([t("errors_note"), *sure_note]),
    }


def _error_count_cells(row: Row, kinds: Sequence[str]) -> list[Row]:
    """Counts with their share, and the wrong letter given most often."""
    found = [{"text": f"{row['total']:,}", "sort": row["total"]}]
    for kind in kinds:
        count = row[kind]
        share = "" if count is None else f" ({format_percent(count / row['total'], 1)})"
        sort = None if count is None else count / row["total"]
        found.append({"text": "–" if count is None else f"{count:,}{share}", "sort": sort})
    letter = row["letter"]
    shown = "–" if letter is None else f"{letter} ({format_percent(row['letter_errors'] / row['total'], 1)})"
    return [*found, {"text": shown, "sort": row["letter_errors"] / row["total"]}]


def _subject_error_rows(runs: Sequence[Run], kinds: Sequence[str], t: Translator) -> list[Row]:
    """A row a subject and run, the subject with the largest share of errors first."""
    rows = []
    for run in runs:
        for row in error_kinds(run.frame, ("subject",)).iter_rows(named=True):
            name = t.subject(row["subject"])
            cells = _error_count_cells(row, kinds)
            rows.append(
                {"subject": name, "run": run.name, "cells": cells, "at": row["errors"] / row["total"]}
            )
    return sorted(rows, key=lambda row: (-row["at"], row["subject"], row["run"]))


def _error_profile_table(runs: Sequence[Run], questions: pl.DataFrame, t: Translator) -> Row | None:
    """Accuracy by sort of question: a line a feature and value, a cell a run."""
    tables = [error_profile(run.frame, questions) for run in runs]
    known = [{(row["feature"], row["value"]): row for row in table.iter_rows(named=True)} for table in tables]
    keys = sorted({key for rows in known for key in rows}, key=lambda key: _ORDER.index(key[1]))
    found = []
    for feature in dict.fromkeys(feature for rows in known for feature, _ in rows):
        lines = []
        for value in (value for name, value in keys if name == feature):
            cells = [_accuracy_cell(rows.get((feature, value))) for rows in known]
            count = next(rows[feature, value]["total"] for rows in known if (feature, value) in rows)
            label = t(f"value_{_VALUES[value]}") if value in _VALUES else value.replace("-", "–")
            lines.append({"value": label, "count": f"{count:,}", "cells": cells})
        if len(lines) > 1:  # else all questions are alike: nothing to compare
            found.append({"name": t(f"feature_{feature}"), "lines": lines})
    return {"runs": [run.name for run in runs], "features": found} if found else None


def _accuracy_cell(row: Row | None) -> Row:
    if row is None:
        return {"value": "–", "interval": ""}
    return {
        "value": format_percent(row["accuracy"], 1),
        "interval": f"{format_percent(row['ci_low'], 1)}–{format_percent(row['ci_high'], 1)}",
    }


def _confident_error_rows(run: Run, questions: pl.DataFrame | None, t: Translator) -> list[Row]:
    """The errors it was surest of, by id; the beginning of the question's text where texts are given."""
    frame = confident_errors(run.frame, LISTED)
    stems: dict[str, str] = {}
    if questions is not None:
        wanted = questions.filter(pl.col("question_id").is_in(frame["question_id"].to_list()))
        stems = dict(wanted.select("question_id", "question").iter_rows())
    return [
        {
            "id": row["question_id"],
            "subject": t.subject(row["subject"]),
            "answer": row["answer"],
            "prediction": row["prediction"],
            "confidence": format_percent(row["confidence"], 1),
            "margin": "–" if row["margin"] is None else f"{row['margin']:.2f}",
            "stem": _shorten_text(stems.get(row["question_id"], "")),
        }
        for row in frame.iter_rows(named=True)
    ]


def _shorten_text(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= STEM_CHARS else line[:STEM_CHARS].rstrip() + " …"


def error_frames(found: ReportData) -> dict[str, pl.DataFrame]:
    """For files: errors (a row a run and subject), error_profile (a row a run, feature and value; with a
    dataset), confident_errors (a row a run and question, ids only). {} where no run has answers.
    """
    answered, questions = found.answered, found.questions
    if not answered:
        return {}

    def named(run: Run, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.select(pl.lit(run.name).alias("run"), pl.all())

    made = {"errors": pl.concat(named(run, error_kinds(run.frame, ("subject",))) for run in answered)}
    if questions is not None:
        made["error_profile"] = pl.concat(named(run, error_profile(run.frame, questions)) for run in answered)
    made["confident_errors"] = pl.concat(named(run, confident_errors(run.frame, 100)) for run in answered)
    return made
