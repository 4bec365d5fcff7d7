"""Runs and comparisons as files for other tools: CSV, JSON, XLSX, and lm-eval's own format.

In: runs, comparisons, the dataset's questions where known. Out: files in a folder. Knows nothing of HTML.
Spreadsheets run what looks like a formula, so nothing that came from data or a model gets the chance: XLSX
cells are written as typed strings, and CSV text that begins like a formula gets a leading apostrophe. CSV
starts with a BOM, or Excel misreads Korean.
"""

from __future__ import annotations

import datetime
import gzip
import io
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.comparison import Comparison, Settings
from kmmlu_fast.analysis.headline import headline
from kmmlu_fast.core.files import distinct_slugs, write_bytes_atomically, write_json_atomically
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS, OPTION_LETTERS
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.reporting import errors, human
from kmmlu_fast.reporting.language import texts
from kmmlu_fast.reporting.spreadsheet import write_xlsx
from kmmlu_fast.reporting.verdict import verdict
from kmmlu_fast.runs.lm_eval_writing import write_lm_eval
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
        document |= {
            "endpoints": [asdict(endpoint) for endpoint in pair.endpoints],
            "significant": pair.significant,
            "equal": pair.equal,
        }
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
    *,
    with_texts: bool = True,
) -> list[Path]:
    """Write the formats asked for into ``folder``; returns what was written. Without
    ``with_texts`` no text of questions or models.
    """
    refuse_prefixes(runs)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for packed, name in ((False, "csv"), (True, "csv.gz")):
        if name in formats:
            written += write_csv(runs, pairs, questions, folder, with_texts=with_texts, packed=packed)
    if "parquet" in formats:
        written += write_parquet(runs, pairs, questions, folder, with_texts=with_texts)
    if "json" in formats:
        path = folder / "report.json"
        document = as_json(runs, pairs, settings, lang)
        found = errors.frames(runs, questions)
        document["errors"] = {name: frame.to_dicts() for name, frame in found.items()}
        write_json_atomically(path, document)
        written.append(path)
    if "xlsx" in formats:
        written.append(write_xlsx(runs, pairs, lang, folder / "report.xlsx"))
    if "lm-eval" in formats:
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
        documents = lm_eval_documents(questions if with_texts else None)
        for run, name in zip(runs, distinct_slugs(run.name for run in runs), strict=True):
            if run.predictions is not None:
                frame = (
                    run.frame
                    if with_texts
                    else run.frame.with_columns(pl.lit(None, pl.List(pl.String)).alias("texts"))
                )
                written.append(
                    write_lm_eval(folder / "lm-eval" / name, run.name, frame, run.facts, documents, stamp)[0]
                )
    return written


def safe_text(value: str | None) -> str | None:
    """Text that a spreadsheet will not take for a formula."""
    return "'" + value if value is not None and value.startswith(_FORMULA_STARTS) else value


def _csv(frame: pl.DataFrame, path: Path) -> Path:
    starts = r"^[=+\-@\t\r]"
    guarded = [
        pl.when(pl.col(name).str.contains(starts))
        .then(pl.lit("'") + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name, dtype in frame.schema.items()
        if dtype == pl.String
    ]
    headings = {name: safe_text(name) or "" for name in frame.columns}
    content = frame.with_columns(guarded).rename(headings).write_csv(include_bom=True).encode()
    write_bytes_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


_MORE_LOGPROBS = tuple(f"logprob_{letter}" for letter in OPTION_LETTERS[len(LETTERS) :])


def _more_logprobs() -> list[pl.Expr]:
    """Log-probabilities from E on, as columns like those of A to D."""
    values = pl.col("option_logprobs").list
    return [
        values.get(place, null_on_oob=True).alias(name)
        for place, name in enumerate(_MORE_LOGPROBS, len(LETTERS))
    ]


def tables(
    runs: list[Run], pairs: list[Comparison], questions: pl.DataFrame | None, with_texts: bool = True
) -> Iterator[tuple[str, pl.DataFrame]]:
    """subjects (a row a run and subject), predictions (a row a run and question), questions (a row a
    question: texts stand here once), errors (a row a run and subject), error_profile (a row a run and sort of
    question), confident_errors (a row a run and question), changes (a row a pair and subject); those that
    there are, by name. Without ``with_texts`` no text of questions or models.
    """
    yield (
        "subjects",
        pl.concat(
            run.scores.select(
                pl.lit(run.name).alias("run"),
                "subject",
                pl.col("subject")
                .replace_strict({n: s.korean for n, s in SUBJECTS.items()}, default=pl.col("subject"))
                .alias("korean"),
                "supercategory",
                "correct",
                "total",
                (pl.col("correct") / pl.col("total")).alias("accuracy"),
            )
            for run in runs
        ),
    )
    answered = [run for run in runs if run.predictions is not None]
    if answered:
        columns = [
            *(
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
            ),
            *LOGPROB_COLUMNS,
            *(
                _MORE_LOGPROBS
                if any(run.frame["option_logprobs"].is_not_null().any() for run in answered)
                else ()
            ),
            *("confidence", "debiased_prediction", "prompt_tokens", "output_tokens"),
        ]
        text = [pl.col("texts").list.join("\n\n", ignore_nulls=True).alias("text")] if with_texts else []
        yield (
            "predictions",
            pl.concat(
                run.frame.with_columns(_more_logprobs()).select(
                    pl.lit(run.name).alias("run"), *columns, *text
                )
                for run in answered
            ),
        )
    if answered and questions is not None and with_texts:
        asked = pl.concat(run.frame.select("question_id") for run in answered).unique()
        texts_ = [name for name in OPTION_LETTERS if name in questions.columns]
        shown = human.known(questions).select(
            "question_id", "subject", "question", *texts_, "answer", "human_accuracy"
        )
        yield "questions", shown.join(asked, on="question_id", how="semi", maintain_order="left")
    yield from errors.frames(runs, questions).items()
    if pairs:
        yield (
            "changes",
            pl.concat(
                pair.subjects.select(
                    pl.lit(pair.first).alias("first_run"), pl.lit(pair.second).alias("second_run"), pl.all()
                )
                for pair in pairs
            ),
        )


def write_csv(
    runs: list[Run],
    pairs: list[Comparison],
    questions: pl.DataFrame | None,
    folder: Path,
    *,
    with_texts: bool = True,
    packed: bool = False,
) -> list[Path]:
    """``tables`` as CSV, or ``packed`` as CSV in gzip."""
    suffix = ".csv.gz" if packed else ".csv"
    return [
        _csv(frame, folder / f"{name}{suffix}") for name, frame in tables(runs, pairs, questions, with_texts)
    ]


def write_parquet(
    runs: list[Run],
    pairs: list[Comparison],
    questions: pl.DataFrame | None,
    folder: Path,
    *,
    with_texts: bool = True,
) -> list[Path]:
    """``tables`` as Parquet: typed, and about a tenth of the CSV's size."""
    written = []
    for name, frame in tables(runs, pairs, questions, with_texts):
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        write_bytes_atomically(folder / f"{name}.parquet", buffer.getvalue())
        written.append(folder / f"{name}.parquet")
    return written


def lm_eval_documents(questions: pl.DataFrame | None) -> dict[str, dict[str, Any]]:
    """The dataset's rows as lm-eval's ``doc``, by question id; the answer 1-based again, as in the files."""
    if questions is None:
        return {}
    return {
        row["question_id"]: {
            "question": row["question"],
            "answer": OPTION_LETTERS.index(row["answer"]) + 1,
            **{letter: row[letter] for letter in OPTION_LETTERS if row.get(letter) is not None},
            "Category": row["subject"].replace("-", " "),
            "Human Accuracy": row["human_accuracy"],
        }
        for row in questions.iter_rows(named=True)
    }
