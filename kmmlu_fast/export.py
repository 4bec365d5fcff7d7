"""Runs and comparisons as files for other tools: CSV, JSON, XLSX, and lm-eval's own format.

In: runs, comparisons, the dataset's questions where known. Out: files in a folder. Knows nothing of HTML.
Spreadsheets run what looks like a formula, so nothing that came from data or a model gets the chance: XLSX cells are written
as typed strings, and CSV text that begins like a formula gets a leading apostrophe. CSV starts with a BOM, or Excel misreads Korean.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis import wilson
from kmmlu_fast.comparison import Comparison, Settings
from kmmlu_fast.importers import LoadedRun
from kmmlu_fast.language import subject_name, supercategory_name
from kmmlu_fast.lm_eval_files import write_lm_eval
from kmmlu_fast.schema import LETTERS, LOGPROB_COLUMNS
from kmmlu_fast.store import slug, write_bytes_atomically
from kmmlu_fast.subjects import SUBJECTS

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def export(
    formats: list[str],
    runs: list[LoadedRun],
    pairs: list[Comparison],
    questions: pl.DataFrame | None,
    settings: Settings,
    lang: str,
    folder: Path,
) -> list[Path]:
    """Write the formats asked for into ``folder``; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    if "csv" in formats:
        written += write_csv(runs, pairs, questions, folder)
    if "json" in formats:
        from kmmlu_fast.compare import as_json

        path = folder / "report.json"
        write_bytes_atomically(path, (json.dumps(as_json(runs, pairs, settings, lang), ensure_ascii=False, indent=2) + "\n").encode())
        written.append(path)
    if "xlsx" in formats:
        written.append(write_xlsx(runs, pairs, lang, folder / "report.xlsx"))
    if "lm-eval" in formats:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
        documents = lm_eval_documents(questions)
        for run in runs:
            if run.predictions is not None:
                written.append(write_lm_eval(folder / "lm-eval" / slug(run.name), run.name, run.frame, run.facts, documents, stamp)[0])
    return written


def safe_text(value: str | None) -> str | None:
    """Text that a spreadsheet will not take for a formula."""
    return "'" + value if value is not None and value.startswith(_FORMULA_STARTS) else value


def _csv(frame: pl.DataFrame, path: Path) -> Path:
    starts = r"^[=+\-@\t\r]"
    guarded = [
        pl.when(pl.col(name).str.contains(starts)).then(pl.lit("'") + pl.col(name)).otherwise(pl.col(name)).alias(name)
        for name, dtype in frame.schema.items()
        if dtype == pl.String
    ]
    headings = {name: safe_text(name) or "" for name in frame.columns}
    write_bytes_atomically(path, frame.with_columns(guarded).rename(headings).write_csv(include_bom=True).encode())
    return path


def write_csv(runs: list[LoadedRun], pairs: list[Comparison], questions: pl.DataFrame | None, folder: Path) -> list[Path]:
    """subjects.csv (a row a run and subject), predictions.csv (a row a run and question), changes.csv (a row a pair and subject)."""
    scores = pl.concat(
        run.scores.select(
            pl.lit(run.name).alias("run"),
            "subject",
            pl.col("subject").replace_strict({n: s.korean for n, s in SUBJECTS.items()}).alias("korean"),
            "supercategory",
            "correct",
            "total",
            (pl.col("correct") / pl.col("total")).alias("accuracy"),
        )
        for run in runs
    )
    written = [_csv(scores, folder / "subjects.csv")]
    answered = [run for run in runs if run.predictions is not None]
    if answered:
        columns = [
            "question_id",
            "subject",
            "supercategory",
            "split",
            "row",
            "answer",
            "prediction",
            "correct",
            "read_by",
            "forced",
            *LOGPROB_COLUMNS,
            "confidence",
            "debiased_prediction",
            "prompt_tokens",
            "output_tokens",
        ]
        frames = []
        for run in answered:
            text = pl.col("texts").list.join("\n\n", ignore_nulls=True).alias("text")
            frames.append(run.frame.select(pl.lit(run.name).alias("run"), *columns, text))
        frame = pl.concat(frames)
        if questions is not None:
            frame = frame.join(questions.select("question_id", "question", *LETTERS), on="question_id", how="left", maintain_order="left")
        written.append(_csv(frame, folder / "predictions.csv"))
    if pairs:
        frame = pl.concat(
            pair.subjects.select(pl.lit(pair.first).alias("first_run"), pl.lit(pair.second).alias("second_run"), pl.all()) for pair in pairs
        )
        written.append(_csv(frame, folder / "changes.csv"))
    return written


def lm_eval_documents(questions: pl.DataFrame | None) -> dict[str, dict[str, Any]]:
    """The dataset's rows as lm-eval's ``doc``, by question id; the answer 1-based again, as in the files."""
    if questions is None:
        return {}
    return {
        row["question_id"]: {
            "question": row["question"], "answer": LETTERS.index(row["answer"]) + 1, **{letter: row[letter] for letter in LETTERS},
            "Category": row["subject"].replace("-", " "), "Human Accuracy": row["human_accuracy"],
        }
        for row in questions.iter_rows(named=True)
    }  # fmt: skip


def write_xlsx(runs: list[LoadedRun], pairs: list[Comparison], lang: str, path: Path) -> Path:
    """Totals, supercategories and subject detail of every run, and what changed: number formats, and colours by value."""
    import io

    import xlsxwriter

    buffer = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_numbers": False, "strings_to_urls": False}
    book = xlsxwriter.Workbook(buffer, options)
    book.set_properties({"title": "KMMLU", "comments": "kmmlu_fast.report"})
    sheets = _Sheets(book)
    names = ["Run", "Correct", "Total", "Accuracy (micro)", "95 % low", "95 % high", "Accuracy (macro)"]
    totals = []
    for run in runs:
        whole = by_group_of(run, [])
        totals.append([run.name, *whole[0], float((run.scores["correct"] / run.scores["total"]).mean() or 0.0)])  # type: ignore[arg-type]
    sheets.add("Totals", names, totals, percent=(3, 4, 5, 6), scale=(3, 6))
    groups = [[run.name, supercategory_name(row[0], lang), *row[1:]] for run in runs for row in by_group_of(run, ["supercategory"])]
    sheets.add(
        "Supercategories",
        ["Run", "Supercategory", "Correct", "Total", "Accuracy", "95 % low", "95 % high"],
        groups,
        percent=(4, 5, 6),
        scale=(4,),
    )
    detail = [
        [run.name, row[0], subject_name(row[0], "ko"), supercategory_name(row[1], lang), *row[2:]]
        for run in runs for row in by_group_of(run, ["subject", "supercategory"])
    ]  # fmt: skip
    headings = ["Run", "Subject", "과목", "Supercategory", "Correct", "Total", "Accuracy", "95 % low", "95 % high"]
    sheets.add("Subjects", headings, detail, percent=(6, 7, 8), scale=(6,))
    if pairs:
        headings = [
            "First",
            "Second",
            "Subject",
            "과목",
            "n",
            "First accuracy",
            "Second accuracy",
            "Difference",
            "95 % low",
            "95 % high",
            "b",
            "c",
            "p (mid-p)",
            "p (Holm)",
            "p (BH)",
            "Detectable",
        ]
        columns = ["n", "first", "second", "difference", "low", "high", "b", "c", "p_value", "p_holm", "p_bh", "minimum_detectable_effect"]
        changes = [
            [pair.first, pair.second, row["subject"], subject_name(row["subject"], "ko"), *[row[name] for name in columns]]
            for pair in pairs for row in pair.subjects.iter_rows(named=True)
        ]  # fmt: skip
        sheets.add("Changes", headings, changes, percent=(5, 6, 7, 8, 9, 15), scale=(), signed=(7,), p_values=(12, 13, 14))
    book.close()
    write_bytes_atomically(path, buffer.getvalue())
    return path


def by_group_of(run: LoadedRun, keys: list[str]) -> list[list[Any]]:
    """Rows of (keys..., correct, total, accuracy, low, high) from a run's scores, so that score files work as well."""
    sums = [pl.col("correct").sum(), pl.col("total").sum()]
    frame = run.scores.group_by(keys, maintain_order=True).agg(sums) if keys else run.scores.select(sums)
    low, high = wilson(pl.col("correct"), pl.col("total"))
    return [
        list(row)
        for row in frame.with_columns(
            (pl.col("correct") / pl.col("total")).alias("accuracy"), low.alias("low"), high.alias("high")
        ).iter_rows()
    ]


class _Sheets:
    """Writes tables with headings, formats and colours into a workbook."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._head = book.add_format({"bold": True, "bg_color": "#E8EDF4", "bottom": 1, "text_wrap": True, "valign": "top"})
        self._percent, self._signed = book.add_format({"num_format": "0.00%"}), book.add_format({"num_format": "+0.00%;-0.00%;0.00%"})
        self._p, self._count = book.add_format({"num_format": "0.0000"}), book.add_format({"num_format": "#,##0"})

    def add(
        self,
        name: str,
        headings: list[str],
        rows: list[list[Any]],
        percent: tuple[int, ...],
        scale: tuple[int, ...],
        signed: tuple[int, ...] = (),
        p_values: tuple[int, ...] = (),
    ) -> None:
        sheet = self._book.add_worksheet(name)
        for column, heading in enumerate(headings):
            sheet.write_string(0, column, heading, self._head)
        for number, row in enumerate(rows, 1):
            for column, value in enumerate(row):
                if isinstance(value, str):
                    sheet.write_string(number, column, value)
                elif value is not None:
                    style = (
                        self._signed
                        if column in signed
                        else self._percent
                        if column in percent
                        else self._p
                        if column in p_values
                        else self._count
                    )
                    sheet.write_number(number, column, value, style)
        last = max(1, len(rows))
        sheet.freeze_panes(1, 1)
        sheet.autofilter(0, 0, last, len(headings) - 1)
        sheet.autofit(260)
        for column in scale:
            sheet.conditional_format(
                1, column, last, column, {"type": "3_color_scale", "min_color": "#F4B6A2", "mid_color": "#FFFFFF", "max_color": "#A9D8BE"}
            )
        for column in signed:
            bar = {"type": "data_bar", "bar_color": "#7FC4A4", "bar_negative_color": "#E58A6E", "bar_solid": True}
            sheet.conditional_format(1, column, last, column, bar)
        for column in p_values:
            strong = self._book.add_format({"bold": True, "font_color": "#0B5D3E"})
            sheet.conditional_format(1, column, last, column, {"type": "cell", "criteria": "<", "value": 0.05, "format": strong})
