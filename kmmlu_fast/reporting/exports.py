"""Runs and comparisons as files for other tools: CSV, JSON, XLSX, and lm-eval's own format.

In: runs, comparisons, the dataset's questions where known. Out: files in a folder. Knows nothing of HTML.
Spreadsheets run what looks like a formula, so nothing that came from data or a model gets the chance: XLSX cells are written
as typed strings, and CSV text that begins like a formula gets a leading apostrophe. CSV starts with a BOM, or Excel misreads Korean.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.comparison import Comparison, Settings
from kmmlu_fast.analysis.headline import headline
from kmmlu_fast.core.files import distinct_slugs, write_bytes_atomically, write_json_atomically
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS, OPTION_LETTERS
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.reporting.language import texts
from kmmlu_fast.reporting.spreadsheet import write_xlsx
from kmmlu_fast.reporting.verdict import verdict
from kmmlu_fast.runs.lm_eval import write_lm_eval
from kmmlu_fast.runs.run import Run, refuse_prefixes


def as_json(runs: list[Run], pairs: list[Comparison], settings: Settings, lang: str) -> dict[str, Any]:
    """Everything that was found, JSON-able; shares and differences 0-1."""
    t = texts(lang)
    rows = []
    for pair in pairs:
        document = {name: getattr(pair, name) for name in pair.__dataclass_fields__}
        document |= {name: document[name].to_dicts() for name in ("supercategories", "subjects")}
        document |= {name: asdict(document[name]) for name in ("micro", "macro")}
        optional = ("clean", "debiased", "letters", "overlap_gap", "moved")
        document |= {name: asdict(document[name]) if document[name] else None for name in optional}
        document |= {"endpoints": [asdict(endpoint) for endpoint in pair.endpoints], "significant": pair.significant, "equal": pair.equal}
        rows.append({"verdict": verdict(pair, t, lang), **document})
    return {"runs": [headline(run, settings.overlap, settings.sizes) for run in runs], "comparisons": rows}


_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def export(
    formats: list[str],
    runs: list[Run],
    pairs: list[Comparison],
    questions: pl.DataFrame | None,
    settings: Settings,
    lang: str,
    folder: Path,
) -> list[Path]:
    """Write the formats asked for into ``folder``; returns what was written."""
    refuse_prefixes(runs)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    if "csv" in formats:
        written += write_csv(runs, pairs, questions, folder)
    if "json" in formats:
        path = folder / "report.json"
        write_json_atomically(path, as_json(runs, pairs, settings, lang))
        written.append(path)
    if "xlsx" in formats:
        written.append(write_xlsx(runs, pairs, lang, folder / "report.xlsx"))
    if "lm-eval" in formats:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
        documents = lm_eval_documents(questions)
        for run, name in zip(runs, distinct_slugs(run.name for run in runs), strict=True):
            if run.predictions is not None:
                written.append(write_lm_eval(folder / "lm-eval" / name, run.name, run.frame, run.facts, documents, stamp)[0])
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


_MORE_LOGPROBS = tuple(f"logprob_{letter}" for letter in OPTION_LETTERS[len(LETTERS) :])


def _more_logprobs() -> list[pl.Expr]:
    """Log-probabilities from E on, as columns like those of A to D."""
    values = pl.col("option_logprobs").list
    return [values.get(place, null_on_oob=True).alias(name) for place, name in enumerate(_MORE_LOGPROBS, len(LETTERS))]


def write_csv(runs: list[Run], pairs: list[Comparison], questions: pl.DataFrame | None, folder: Path) -> list[Path]:
    """subjects.csv (a row a run and subject), predictions.csv (a row a run and question), changes.csv (a row a pair and subject)."""
    scores = pl.concat(
        run.scores.select(
            pl.lit(run.name).alias("run"),
            "subject",
            pl.col("subject").replace_strict({n: s.korean for n, s in SUBJECTS.items()}, default=pl.col("subject")).alias("korean"),
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
            *(_MORE_LOGPROBS if any(run.frame["option_logprobs"].is_not_null().any() for run in answered) else ()),
            "confidence",
            "debiased_prediction",
            "prompt_tokens",
            "output_tokens",
        ]
        frames = []
        for run in answered:
            text = pl.col("texts").list.join("\n\n", ignore_nulls=True).alias("text")
            frames.append(run.frame.with_columns(_more_logprobs()).select(pl.lit(run.name).alias("run"), *columns, text))
        frame = pl.concat(frames)
        if questions is not None:
            known = questions.select("question_id", "question", *[c for c in OPTION_LETTERS if c in questions.columns])
            frame = frame.join(known, on="question_id", how="left", maintain_order="left")
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
            "question": row["question"], "answer": OPTION_LETTERS.index(row["answer"]) + 1,
            **{letter: row[letter] for letter in OPTION_LETTERS if row.get(letter) is not None},
            "Category": row["subject"].replace("-", " "), "Human Accuracy": row["human_accuracy"],
        }
        for row in questions.iter_rows(named=True)
    }  # fmt: skip
