"""Errors, as the report and the exports show them: by state and by subject, accuracy by kind of question, and
a run's most confident errors.

In: ``ReportData``, a translator. Out: plain data for the template, frames for files; no texts unless asked
for. Knows nothing of HTML, nor of how errors are counted (``analysis.error_profile``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
# A value of ``error_profile`` -> its key in texts.yaml; other values are shown as they are.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCounts:
    """What the section shows, without words: counted once for all languages."""

    totals: dict[str, Row]  # error_kinds by run
    by_subject: list[tuple[str, pl.DataFrame]]  # of up to two runs in focus: name, error_kinds by subject
    profiles: dict[str, pl.DataFrame] | None  # error_profile by run in focus; None if no texts are known
    surest: str  # the run whose confident errors are listed
    confident: pl.DataFrame


def count_errors(report: ReportData, shown: Sequence[Run]) -> ErrorCounts | None:
    """The counts; None if no run has answers. ``shown``: the runs in focus; the errors of the last one are
    listed.
    """
    questions = report.questions
    focus = [run for run in shown if run.predictions is not None]
    if not focus:
        return None
    profiles = None
    if questions is not None:
        profiles = {run.name: error_profile(run.frame, questions) for run in focus}
    return ErrorCounts(
        totals={run.name: error_kinds(run.frame).row(0, named=True) for run in report.answered},
        by_subject=[(run.name, error_kinds(run.frame, ("subject",))) for run in focus[-2:]],
        profiles=profiles,
        surest=focus[-1].name,
        confident=confident_errors(focus[-1].frame, LISTED),
    )


def errors_section(counts: ErrorCounts, questions: pl.DataFrame | None, t: Translator) -> Row:
    """The report's section. ``questions``: texts to show."""
    sure = _confident_error_rows(counts.confident, questions, t)
    kinds = [kind for kind in KINDS if any(row[kind] for row in counts.totals.values())]
    notes = [t("errors_note")]
    if {"confident", "close"} & {*kinds}:
        notes.append(t("errors_note_sure", confident=format_percent(CONFIDENT, 0)))
    by_share = sorted(counts.totals.items(), key=lambda item: item[1]["errors"] / item[1]["total"])
    return {
        "kinds": [t(f"errors_{kind}") for kind in kinds],
        "states": [{"name": name, "cells": _error_count_cells(row, kinds)} for name, row in by_share],
        "profile": None if counts.profiles is None else _error_profile_table(counts.profiles, t),
        "subjects": _subject_error_rows(counts.by_subject, kinds, t),
        "sure": sure,
        "stems": any(row["stem"] for row in sure),
        "sure_title": t("errors_sure", name=counts.surest),
        "note": " ".join(notes),
    }


def _error_count_cells(row: Row, kinds: Sequence[str]) -> list[Row]:
    """Counts with their share, and the most common wrong letter."""
    total = row["total"]
    cells: list[Row] = [{"text": f"{total:,}", "sort": total}]
    for kind in kinds:
        count = row[kind]
        if count is None:
            cells.append({"text": "–", "sort": None})
        else:
            cells.append({"text": f"{count:,} ({format_percent(count / total, 1)})", "sort": count / total})
    letter, share = row["letter"], row["letter_errors"] / total
    text = "–" if letter is None else f"{letter} ({format_percent(share, 1)})"
    return [*cells, {"text": text, "sort": share}]


def _subject_error_rows(
    runs: Sequence[tuple[str, pl.DataFrame]], kinds: Sequence[str], t: Translator
) -> list[Row]:
    """A row per subject and run, the subject with the largest share of errors first."""
    rows = []
    for name, frame in runs:
        for row in frame.iter_rows(named=True):
            subject, share = t.subject(row["subject"]), row["errors"] / row["total"]
            cells = _error_count_cells(row, kinds)
            rows.append({"subject": subject, "run": name, "cells": cells, "at": share})
    return sorted(rows, key=lambda row: (-row["at"], row["subject"], row["run"]))


def _error_profile_table(profiles: Mapping[str, pl.DataFrame], t: Translator) -> Row | None:
    """Accuracy by kind of question: a line per feature and value, a cell per run."""
    known = []
    for profile in profiles.values():
        known.append({(row["feature"], row["value"]): row for row in profile.iter_rows(named=True)})
    keys = sorted({key for rows in known for key in rows}, key=lambda key: _ORDER.index(key[1]))
    features = []
    for feature in dict.fromkeys(feature for rows in known for feature, _ in rows):
        lines = []
        for value in (value for name, value in keys if name == feature):
            cells = [_accuracy_cell(rows.get((feature, value))) for rows in known]
            count = next(rows[feature, value]["total"] for rows in known if (feature, value) in rows)
            label = t(f"value_{_VALUES[value]}") if value in _VALUES else value.replace("-", "–")
            lines.append({"value": label, "count": f"{count:,}", "cells": cells})
        if len(lines) > 1:  # else all questions are alike: nothing to compare
            features.append({"name": t(f"feature_{feature}"), "lines": lines})
    return {"runs": list(profiles), "features": features} if features else None


def _accuracy_cell(row: Row | None) -> Row:
    if row is None:
        return {"value": "–", "interval": ""}
    return {
        "value": format_percent(row["accuracy"], 1),
        "interval": f"{format_percent(row['ci_low'], 1)}–{format_percent(row['ci_high'], 1)}",
    }


def _confident_error_rows(frame: pl.DataFrame, questions: pl.DataFrame | None, t: Translator) -> list[Row]:
    """The most confident errors by id, with the beginning of the question if texts are given."""
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


def error_frames(report: ReportData) -> dict[str, pl.DataFrame]:
    """For files: errors (a row per run and subject), error_profile (a row per run, feature and value; with a
    dataset), confident_errors (a row per run and question, ids only). {} if no run has answers.
    """
    answered, questions = report.answered, report.questions
    if not answered:
        return {}

    def named(run: Run, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.select(pl.lit(run.name).alias("run"), pl.all())

    frames = {"errors": pl.concat(named(run, error_kinds(run.frame, ("subject",))) for run in answered)}
    if questions is not None:
        profiles = (named(run, error_profile(run.frame, questions)) for run in answered)
        frames["error_profile"] = pl.concat(profiles)
    frames["confident_errors"] = pl.concat(named(run, confident_errors(run.frame, 100)) for run in answered)
    return frames
