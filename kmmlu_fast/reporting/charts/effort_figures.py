"""Charts of effort: tokens and seconds, thinking budgets, the training curve, training questions drawn.

In: headlines, a run's adapter log, a sampling plan, a translator. Out: ``Figure``s. Knows nothing of HTML;
``effort_charts`` draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from kmmlu_fast.analysis.headline import Headline
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.table_files import read_parquet
from kmmlu_fast.models.adapters import read_training_log
from kmmlu_fast.reporting.charts import effort_charts as charts
from kmmlu_fast.reporting.charts.figure import Figure
from kmmlu_fast.reporting.wording.language import Translator, format_percent
from kmmlu_fast.runs.run import Run, existing_adapter_path

_PLAN = pl.Schema({"subject": pl.String, "drawn": pl.Int64, "weak": pl.Boolean})
SPREAD = 1.2  # smallest ratio of costs that is charted


def cost_figure(rows: Sequence[Headline], t: Translator, what: str) -> Figure | None:
    """Accuracy against ``what``: "tokens" per question or "seconds"; None if costs hardly differ."""
    name = t(f"cost_{what}")
    points = []
    for row in rows:
        cost = row.seconds if what == "seconds" else row.tokens_per_question
        if cost:
            tip = f"{row.name}: {format_percent(row.micro)} %, {cost:,.0f} {name}"
            scores = {"accuracy": row.micro, "low": row.low, "high": row.high}
            points.append({"run": row.name, "cost": float(cost), **scores, "tip": tip})
    if len(points) < 2:
        return None
    frame = pl.DataFrame(points)
    if frame["cost"].max() < SPREAD * frame["cost"].min():  # type: ignore[operator]
        return None
    return Figure(
        id=f"cost-{what}",
        title=t("cost_title", what=name),
        note=t("cost_note"),
        draw=lambda palette: charts.cost_chart(frame, palette, t, name),
    )


def budget_figure(run: Run, name: str, t: Translator) -> Figure | None:
    """The run's accuracy against thinking budget; None if its texts were not cut. ``name``: for the file."""
    points = run.metrics.reasoning.budgets if run.metrics.reasoning else []
    if not points:
        return None
    rows = []
    for point in points:
        label = t("budget_whole") if point.budget is None else f"{point.budget:,}"
        tip = f"{label}: {format_percent(point.accuracy)} %, {point.tokens:,.0f} {t('cost_tokens')}"
        scores = {"accuracy": point.accuracy, "low": point.ci_low, "high": point.ci_high}
        cost = max(1.0, point.tokens)  # a logarithmic axis has no 0
        rows.append({"run": label, "cost": cost, **scores, "tip": tip})
    frame = pl.DataFrame(rows)
    return Figure(
        id=f"budget-{name}",
        title=t("budget_title", name=run.name),
        note=t("budget_figure_note"),
        draw=lambda palette: charts.budget_chart(frame, palette, t, t("budget_axis")),
    )


def training_curve_figure(run: Run, name: str, t: Translator) -> Figure | None:
    """The training curve of the run's adapter if its log still exists; ``name``: for the file."""
    folder = existing_adapter_path(run)
    log = folder / "train_log.jsonl" if folder else None
    if log is None or not log.is_file():
        return None
    rows = []
    for entry in read_training_log(log):
        kind = {"step": "train", "held_out": "validation"}.get(entry["kind"])
        loss = entry.get("loss")
        if kind and isinstance(loss, (int, float)) and math.isfinite(loss):
            step = entry["step"]
            rows.append({"step": step, "loss": float(loss), "kind": kind, "tip": f"{step}: {loss:.4f}"})
    if not rows:
        return None
    frame = pl.DataFrame(rows)
    legend = ((t("train_line"), "0"), (t("validation_line"), "1"))
    return Figure(
        id=f"training-{name}",
        title=t("training_title", name=run.name),
        note=t("training_note"),
        draw=lambda palette: charts.training_curve_chart(frame, palette, t),
        legend=legend,
    )


def sampling_plan_figure(path: Path | None, t: Translator) -> Figure | None:
    """The sampling plan of ``kmmlu_fast.sample`` (``*.plan.parquet``): questions drawn per subject, weak ones
    marked.
    """
    if path is None:
        return None
    try:
        drawn = read_parquet(path, DataError, schema=_PLAN).drop_nulls().filter(pl.col("drawn") > 0)
    except DataError as error:
        raise DataError(
            f"--plan: is not a sampling plan ({error}); give the .plan.parquet that kmmlu_fast.sample wrote"
        ) from error
    if drawn.is_empty():
        return None
    rows = []
    for subject, count, weak in drawn.iter_rows():
        label, part = t.subject(subject), "weak" if weak else "uniform"
        rows.append({"label": label, "count": count, "part": part, "tip": f"{label}: {count}"})
    frame = pl.DataFrame(rows)
    return Figure(
        id="plan",
        title=t("plan_title"),
        note=t("plan_note"),
        draw=lambda palette: charts.sampling_plan_chart(frame, palette, t),
        legend=((t("plan_weak"), "1"), (t("plan_uniform"), "none")),
    )
