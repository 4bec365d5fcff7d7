"""The record of a run, whatever wrote it: our run directory, lm-eval, a table or a score file.

In: predictions or counts, and the known facts of the protocol. Out: one record. Knows nothing of files or
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
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA
from kmmlu_fast.runs.metrics import Metrics, PassMetrics, PrefixMetrics

SCORE_SCHEMA = pl.Schema(
    {"subject": pl.String, "supercategory": pl.String, "correct": pl.Int64, "total": pl.Int64}
)
PROTOCOL_KEYS = ("prompt_style", "template_digest", "output_type", "num_fewshot")


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Run:
    """One model state on the questions of a split. ``predictions`` is None for a score file, which has counts
    only.
    """

    name: str
    kind: str  # "run" (our run directory), "lm-eval", "table" or "scores"
    source: str  # the argument it came from
    predictions: pl.DataFrame | None  # PREDICTION_SCHEMA, in dataset order
    scores: pl.DataFrame  # SCORE_SCHEMA
    # Fingerprint parts: model, adapter_digest, prompt_style, ...
    facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    prefix: PrefixMetrics | None = None  # of a run that stopped early: it lacks the other questions
    path: Path | None = None  # run directory, if it has one
    notes: tuple[str, ...] = ()  # warnings about how it was read

    @property
    def frame(self) -> pl.DataFrame:
        """Its predictions; RunError if there are none."""
        if self.predictions is None:
            raise RunError(
                f"{self.source}: holds scores by subject only; comparing question by question needs a run"
                " with predictions"
            )
        return self.predictions

    @property
    def protocol(self) -> dict[str, Any]:
        """How the questions were asked; only the facts that are known."""
        return {name: self.facts[name] for name in PROTOCOL_KEYS if self.facts.get(name) is not None}

    @property
    def pass_metrics(self) -> PassMetrics:
        """What its last pass left, whether it reached all questions or stopped early."""
        return self.metrics if self.prefix is None else self.prefix

    @property
    def _exam_config(self) -> dict[str, Any]:
        return self.config.get("exam") or {}

    @property
    def exam(self) -> str:
        """The exam's name; "kmmlu" for older runs, which do not state one."""
        return str(self._exam_config.get("name") or self.facts.get("exam") or "kmmlu")

    @property
    def exam_title(self) -> str:
        """The exam's name for display."""
        default = "KMMLU" if self.exam == "kmmlu" else self.exam
        return str(self._exam_config.get("title") or default)

    @property
    def licence(self) -> str:
        """The exam's licence as its declaration states it."""
        default = "CC-BY-ND-4.0" if self.exam == "kmmlu" else "not stated"
        return str(self._exam_config.get("licence") or default)

    @property
    def state(self) -> str:
        """The state of its model: "base", or the adapter's name."""
        adapter = self.config.get("adapter")
        return str(adapter["name"]) if isinstance(adapter, dict) and adapter.get("name") else "base"

    @property
    def correct(self) -> int:
        """Number of questions answered correctly."""
        return int(self.scores["correct"].sum())

    @property
    def total(self) -> int:
        """Number of questions in the run."""
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
        if self.prefix is not None:  # its accuracy so far is not an estimate: show the interval
            low, high = self.prefix.accuracy
            return f"first {self.total:,} of {self.prefix.total:,}", f"{low:.2%} to {high:.2%}", "-"
        return f"{self.total:,}", f"{self.micro:.2%}", f"{self.macro:.2%}"

    def __repr__(self) -> str:
        if self.prefix is not None:
            shown = f"the first {self.total:,} of {self.prefix.total:,} questions in random order"
            return f"Run({self.name!r}, {shown})"
        return f"Run({self.name!r}, {self.correct:,} of {self.total:,} right, micro {self.micro:.4f})"


def refuse_early_stopped_runs(runs: Iterable[Run]) -> None:
    """RunError if a run stopped early: it has only the first questions of a random order."""
    for run in runs:
        if run.prefix is not None:
            raise RunError(
                f"{run.name}: holds the first {run.total:,} of {run.prefix.total:,} questions, because it"
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
    """The adapter's directory, if the run names one and it still exists."""
    adapter = run.config.get("adapter")
    if not isinstance(adapter, dict) or not adapter.get("path"):
        return None
    path = Path(str(adapter["path"]))
    return path if path.is_dir() else None


def fill_prediction_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Any columns of PREDICTION_SCHEMA -> all of them; missing ones get their default, or null."""
    defaults = {
        "forced": False,
        "prompt_tokens": 0,
        "output_tokens": 0,
        "prompt_digest": "",
        "num_options": 4,
    }
    columns = []
    for name, dtype in PREDICTION_SCHEMA.items():
        column = pl.col(name) if name in frame.columns else pl.lit(defaults.get(name))
        columns.append(column.cast(dtype).alias(name))
    return frame.select(columns)
