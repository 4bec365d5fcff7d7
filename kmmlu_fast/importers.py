"""A run argument of ``compare`` and ``report`` -> ``LoadedRun``, whatever wrote it.

In: a string: a run directory; an lm-eval output (directory or ``results_*.json``); a predictions table ``FILE.csv`` or
``FILE.csv:COLUMN`` keyed by ``_config`` and ``_row``; or a score file (JSON or CSV by subject). Out: one ``LoadedRun`` a
column or run. The dataset's frame, where given, brings the key. Knows nothing of statistics or of how results are shown.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.errors import DataError, RunError
from kmmlu_fast.lm_eval_files import complete_frame, find_lm_eval_files, read_lm_eval
from kmmlu_fast.schema import LETTERS
from kmmlu_fast.subjects import SUBJECTS, find_subject

SCORE_SCHEMA = pl.Schema({"subject": pl.String, "supercategory": pl.String, "correct": pl.Int64, "total": pl.Int64})
PROTOCOL_KEYS = ("prompt_style", "template_digest", "output_type", "num_fewshot")


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A run as compare and report see it. ``predictions`` is None for a score file, which has counts only."""

    name: str
    kind: str  # "run", "lm-eval", "table" or "scores"
    source: str  # the argument it came from
    predictions: pl.DataFrame | None
    scores: pl.DataFrame  # SCORE_SCHEMA
    facts: dict[str, Any] = field(default_factory=dict)  # fingerprint parts: model, adapter_digest, prompt_style, ...
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None  # run directory, where it has one

    @property
    def frame(self) -> pl.DataFrame:
        """Its predictions; RunError where there are none."""
        if self.predictions is None:
            raise RunError(f"{self.source}: holds scores by subject only; comparing question by question needs a run with predictions")
        return self.predictions

    @property
    def protocol(self) -> dict[str, Any]:
        """What was asked, and how; only the facts that are known."""
        return {name: self.facts[name] for name in PROTOCOL_KEYS if self.facts.get(name) is not None}


def load_all(arguments: list[str], key: pl.DataFrame | None = None, split: str = "test") -> list[LoadedRun]:
    """Every argument's runs, with short, distinct names. ``key``: the dataset's frame (question_id, answer), where given."""
    runs = [run for argument in arguments for run in load(argument, key, split)]
    return [replace(run, name=name) for run, name in zip(runs, short_names(runs), strict=True)]


def short_names(runs: list[LoadedRun]) -> list[str]:
    """Run directories' names without the fingerprint and without what all of them share; the full names where that is not enough."""
    made = [run.name.removesuffix(f"-{run.config.get('fingerprint')}").split("-") for run in runs if run.kind == "run"]
    start, end = _shared(made), _shared([words[::-1] for words in made])
    names = []
    for run in runs:
        if run.kind == "run":
            words = run.name.removesuffix(f"-{run.config.get('fingerprint')}").split("-")
            names.append("-".join(words[start : len(words) - end] if len(made) > 1 and start + end < min(map(len, made)) else words))
        else:
            names.append(run.name)
    if len(set(names)) < len(names):
        names = [run.name for run in runs]
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[place] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def _shared(names: list[list[str]]) -> int:
    """How many leading words all names share."""
    return next((place for place, words in enumerate(zip(*names, strict=False)) if len(set(words)) > 1), min(map(len, names), default=0))


def load(argument: str, key: pl.DataFrame | None = None, split: str = "test") -> list[LoadedRun]:
    """The runs of one argument; RunError or DataError where there is none, saying what would do."""
    table, column = _split_column(argument)
    path = Path(table).expanduser()
    if not path.exists():
        raise RunError(
            f"{argument}: does not exist; give a run directory, an lm-eval output, a score file, or a predictions table FILE.csv:COLUMN"
        )
    if path.is_dir() and (path / "config.json").is_file():
        return [_from_store(path, argument)]
    if path.is_dir() or path.name.startswith("results_"):
        return [_from_lm_eval(path, argument, split)]
    if path.suffix == ".csv":
        header = pl.read_csv(path, n_rows=0, infer_schema=False, encoding="utf8-lossy").columns
        if {"_config", "_row"} <= {name.lstrip("\ufeff") for name in header}:
            return _from_table(path, column, key, split)
    if path.suffix in (".csv", ".json") and column is None:
        return [LoadedRun(path.stem, "scores", argument, None, read_scores(path), facts=_score_facts(path))]
    raise RunError(f"{argument}: is no run directory, lm-eval output, score file (.json, .csv) or predictions table with _config and _row")


def _split_column(argument: str) -> tuple[str, str | None]:
    head, colon, tail = argument.rpartition(".csv:")
    return (head + ".csv", tail) if colon and tail else (argument, None)


def _from_store(path: Path, source: str) -> LoadedRun:
    from kmmlu_fast.store import load_run

    run = load_run(path)
    document = dict(run.config)
    facts = dict(document.get("fingerprint_parts") or {})
    return LoadedRun(
        run.name,
        "run",
        source,
        run.predictions,
        count_scores(run.predictions),
        facts,
        document,
        dict(run.environment),
        dict(run.metrics),
        path,
    )


def _from_lm_eval(path: Path, source: str, split: str) -> LoadedRun:
    if not find_lm_eval_files(path):
        raise RunError(f"{source}: holds neither config.json (a run) nor results_*.json or samples_*.jsonl (lm-eval)")
    name, predictions, scores, facts = read_lm_eval(path, split)
    counted = count_scores(predictions) if predictions is not None else pl.DataFrame(scores, schema=SCORE_SCHEMA, orient="row")
    return LoadedRun(name, "lm-eval", source, predictions, counted, facts)


def count_scores(predictions: pl.DataFrame) -> pl.DataFrame:
    """correct and total by subject."""
    counts = predictions.group_by("subject", "supercategory").agg(
        pl.col("correct").sum().cast(pl.Int64).alias("correct"), pl.len().cast(pl.Int64).alias("total")
    )
    return counts.sort("subject").select(list(SCORE_SCHEMA))


def _from_table(path: Path, column: str | None, key: pl.DataFrame | None, split: str) -> list[LoadedRun]:
    table = pl.read_csv(path, infer_schema=False, encoding="utf8-lossy")
    table = table.rename({name: name.lstrip("\ufeff") for name in table.columns})
    columns = [name for name in table.columns if name not in ("_config", "_row", "answer")]
    if column not in (None, "*"):
        if column not in columns:
            raise RunError(f"{path}: has no column {column!r}; its predictions are {', '.join(columns)}")
        columns = [str(column)]
    rows = table["_row"].cast(pl.Int32, strict=False)
    if rows.null_count():
        bad = rows.is_null().arg_max() or 0
        raise DataError(f"{path} row {bad}: _row {table['_row'][bad]!r} is not a whole number")
    subjects = {name: find_subject(name) for name in table["_config"].unique().drop_nulls()}
    config = table["_config"]
    base = table.select(
        pl.format("{}/{}/{}", config.replace_strict({name: s.name for name, s in subjects.items()}), pl.lit(split), rows).alias(
            "question_id"
        ),
        config.replace_strict({name: s.name for name, s in subjects.items()}, return_dtype=pl.String).alias("subject"),
        config.replace_strict({name: s.supercategory for name, s in subjects.items()}, return_dtype=pl.String).alias("supercategory"),
        pl.lit(split).alias("split"),
        rows.alias("row"),
        *([_letter(pl.col("answer")).alias("answer")] if "answer" in table.columns else []),
        *[_letter(pl.col(name)).alias(f":{name}") for name in columns],
    )
    if twice := base.filter(pl.col("question_id").is_duplicated())["question_id"].head(1).to_list():
        raise DataError(f"{path}: {twice[0]} stands in two rows; keep one row a question")
    base = _with_key(base, key, path)
    return [LoadedRun(name, "table", f"{path}:{name}", frame := _table_frame(base, name), count_scores(frame)) for name in columns]


def _letter(column: pl.Expr) -> pl.Expr:
    """A letter, or null for a blank or a word such as FILTERED."""
    letter = column.str.strip_chars().str.to_uppercase()
    return pl.when(letter.is_in(LETTERS)).then(letter)


def _with_key(base: pl.DataFrame, key: pl.DataFrame | None, path: Path) -> pl.DataFrame:
    if key is not None:
        base = base.join(key.select("question_id", pl.col("answer").alias("key")), on="question_id", how="left", maintain_order="left")
        if "answer" not in base.columns:
            base = base.rename({"key": "answer"})
        elif (bad := base.filter(pl.col("answer") != pl.col("key"))).height:
            row = bad.row(0, named=True)
            raise DataError(
                f"{path}: {row['question_id']} has answer {row['answer']}, --dataset says {row['key']}; give the dataset it was made from"
            )
    if "answer" not in base.columns or base["answer"].null_count():
        missing = base["question_id"][0] if "answer" not in base.columns else base.filter(pl.col("answer").is_null())["question_id"][0]
        raise DataError(f"{path}: no answer (A-D) for {missing}; add an answer column or give --dataset")
    return base


def _table_frame(base: pl.DataFrame, name: str) -> pl.DataFrame:
    prediction = pl.col(f":{name}")
    return complete_frame(
        base.select(
            "question_id", "subject", "supercategory", "split", "row", "answer", prediction.alias("prediction"),
            (prediction == pl.col("answer")).fill_null(False).alias("correct"),
        )
    )  # fmt: skip


def read_scores(path: Path) -> pl.DataFrame:
    """A score file, SCORE_SCHEMA: JSON with a list of {subset|subject, correct, total}, or CSV with subject, correct, total."""
    try:
        if path.suffix == ".csv":
            rows: Any = pl.read_csv(path, infer_schema_length=None).to_dicts()
        else:
            document = read_json(path)
            rows = document.get("subset_scores", document.get("subjects", [])) if isinstance(document, dict) else document
    except (json.JSONDecodeError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read as a score file ({str(error).splitlines()[0]})") from error
    if isinstance(rows, dict):
        rows = [{"subject": name, **values} for name, values in rows.items() if isinstance(values, dict)]
    scores = []
    for number, row in enumerate(rows if isinstance(rows, list) else []):
        try:
            subject = find_subject(str(row.get("subset") or row["subject"]))
            total = int(row["total"])
            correct = int(row["correct"]) if row.get("correct") is not None else round(float(row["accuracy"]) * total)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path} entry {number}: needs a subject, correct and total ({error!r})") from error
        if not 0 <= correct <= total or total == 0:
            raise DataError(
                f"{path} entry {number}: {subject.name} has {correct} of {total} correct; total must be positive and at least correct"
            )
        scores.append((subject.name, subject.supercategory, correct, total))
    if not scores:
        raise DataError(f"{path}: holds no scores; expected a list of {{subject, correct, total}} (or 'subset_scores')")
    if len({row[0] for row in scores}) != len(scores):
        raise DataError(f"{path}: names a subject twice; keep one entry a subject")
    return pl.DataFrame(scores, schema=SCORE_SCHEMA, orient="row").sort("subject")


def read_json(path: Path) -> Any:
    """JSON; where only the last closing brackets are missing (a public score file is cut like that), with one warning."""
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        for ending in ("}", "]}", "]"):
            try:
                document = json.loads(text + ending)
            except json.JSONDecodeError:
                continue
            warnings.warn(f"{path}: ends without its closing {ending!r}; what is there was read", stacklevel=2)
            return document
        raise error


def _score_facts(path: Path) -> dict[str, Any]:
    if path.suffix != ".json":
        return {}
    with warnings.catch_warnings(action="ignore"):
        document = read_json(path)
    return {"model": document["model_id"]} if isinstance(document, dict) and document.get("model_id") else {}


def subject_order(names: set[str]) -> list[str]:
    """Subjects in the table's order."""
    return [name for name in SUBJECTS if name in names]


def adapter_path(run: LoadedRun) -> Path | None:
    """The adapter's directory, where the run names one that is still there."""
    adapter = run.config.get("adapter")
    path = Path(str(adapter["path"])) if isinstance(adapter, dict) and adapter.get("path") else None
    return path if path is not None and path.is_dir() else None
