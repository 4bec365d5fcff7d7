"""A run as everything after it sees it, whatever wrote it: our run directory, lm-eval, a table, a score file.

In: predictions or counts, and what is known of the protocol. Out: one record. Knows nothing of files or
statistics.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.schema import PREDICTION_SCHEMA

SCORE_SCHEMA = pl.Schema(
    {"subject": pl.String, "supercategory": pl.String, "correct": pl.Int64, "total": pl.Int64}
)
PROTOCOL_KEYS = ("prompt_style", "template_digest", "output_type", "num_fewshot")


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Run:
    """One model state over the questions of a split. ``predictions`` is None for a score file,
    which has counts only.
    """

    name: str
    kind: str  # "run" (our run directory), "lm-eval", "table" or "scores"
    source: str  # the argument it came from
    predictions: pl.DataFrame | None  # PREDICTION_SCHEMA, in dataset order
    scores: pl.DataFrame  # SCORE_SCHEMA
    facts: dict[str, Any] = field(
        default_factory=dict
    )  # fingerprint parts: model, adapter_digest, prompt_style, ...
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None  # run directory, where it has one
    notes: tuple[str, ...] = ()  # what must be said of how it was read

    @property
    def frame(self) -> pl.DataFrame:
        """Its predictions; RunError where there are none."""
        if self.predictions is None:
            raise RunError(
                f"{self.source}: holds scores by subject only; comparing question by question needs a run"
                " with predictions"
            )
        return self.predictions

    @property
    def protocol(self) -> dict[str, Any]:
        """What was asked, and how; only the facts that are known."""
        return {name: self.facts[name] for name in PROTOCOL_KEYS if self.facts.get(name) is not None}

    @property
    def prefix(self) -> dict[str, Any] | None:
        """What is known of a run that stopped early (``prefix.json``); None for one that has
        all its questions.
        """
        found = self.metrics.get("prefix")
        return found if isinstance(found, dict) else None

    @property
    def exam(self) -> str:
        """The exam's name; what does not say is KMMLU's, as everything was before there were others."""
        return str((self.config.get("exam") or {}).get("name") or self.facts.get("exam") or "kmmlu")

    @property
    def exam_title(self) -> str:
        """The exam's name as it is written."""
        return str(
            (self.config.get("exam") or {}).get("title") or ("KMMLU" if self.exam == "kmmlu" else self.exam)
        )

    @property
    def licence(self) -> str:
        """The exam's licence as its declaration states it."""
        return str(
            (self.config.get("exam") or {}).get("licence")
            or ("CC-BY-ND-4.0" if self.exam == "kmmlu" else "not stated")
        )

    @property
    def state(self) -> str:
        """Which model state it is within its model: "base", or the adapter's name."""
        adapter = self.config.get("adapter")
        return str(adapter["name"]) if isinstance(adapter, dict) and adapter.get("name") else "base"

    @property
    def correct(self) -> int:
        """Questions answered right."""
        return int(self.scores["correct"].sum())

    @property
    def total(self) -> int:
        """Questions of the run."""
        return int(self.scores["total"].sum())

    @property
    def micro(self) -> float:
        """Accuracy over questions, 0-1."""
        return self.correct / self.total

    @property
    def macro(self) -> float:
        """Mean of the subjects' accuracies, 0-1."""
        return float((self.scores["correct"] / self.scores["total"]).mean())  # type: ignore[arg-type]

    def __rich__(self) -> Any:
        """The run as a table of one row, in a terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table("run", "questions", "micro", "macro", title_justify="left")
        table.add_row(Text(self.name), *self._table_cells())
        return table

    def _repr_html_(self) -> str:
        """The run as a table of one row, in a notebook."""
        cells = (self.name, *self._table_cells())
        head = "".join(f"<th>{name}</th>" for name in ("run", "questions", "micro", "macro"))
        body = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        return f"<table><tr>{head}</tr><tr>{body}</tr></table>"

    def _table_cells(self) -> tuple[str, str, str]:
        if self.prefix is not None:  # its accuracy so far is no estimate to be read off a table
            low, high = self.prefix["accuracy"]
            return f"first {self.total:,} of {self.prefix['total']:,}", f"{low:.2%} to {high:.2%}", "-"
        return f"{self.total:,}", f"{self.micro:.2%}", f"{self.macro:.2%}"

    def __repr__(self) -> str:
        if self.prefix is not None:
            return (
                f"Run({self.name!r}, the first {self.total:,} of {self.prefix['total']:,} questions in random"
                " order)"
            )
        return f"Run({self.name!r}, {self.correct:,} of {self.total:,} right, micro {self.micro:.4f})"


def refuse_early_stopped_runs(runs: Iterable[Run]) -> None:
    """RunError where a run stopped early: its questions are a beginning of a random order, and
    not to be read as a whole run.
    """
    for run in runs:
        if run.prefix is not None:
            raise RunError(
                f"{run.name}: holds the first {run.total:,} of {run.prefix['total']:,} questions, because it"
                " stopped early: `python -m kmmlu_fast.compare` compares it by the sequential test; for"
                " anything else finish it (the same eval command without --until-decided, --until-precise,"
                " --questions and --max-questions)"
            )


def count_subject_scores(predictions: pl.DataFrame) -> pl.DataFrame:
    """correct and total by subject."""
    counts = predictions.group_by("subject", "supercategory").agg(
        pl.col("correct").sum().cast(pl.Int64).alias("correct"), pl.len().cast(pl.Int64).alias("total")
    )
    return counts.sort("subject").select(list(SCORE_SCHEMA))


def existing_adapter_path(run: Run) -> Path | None:
    """The adapter's directory, where the run names one that is still there."""
    adapter = run.config.get("adapter")
    path = Path(str(adapter["path"])) if isinstance(adapter, dict) and adapter.get("path") else None
    return path if path is not None and path.is_dir() else None


def fill_prediction_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Any columns of PREDICTION_SCHEMA -> all of them; what is missing is null, False, 0 or empty."""
    absent = {"forced": False, "prompt_tokens": 0, "output_tokens": 0, "prompt_digest": "", "num_options": 4}
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(absent.get(name))).cast(dtype).alias(name)
        for name, dtype in PREDICTION_SCHEMA.items()
    ]
    return frame.select(columns)
