"""Which charts a report has: from runs and comparisons to titled, captioned charts.

In: runs, comparisons, questions (for human accuracy), texts. Out: ``Figure``s, drawn on demand in the page's
or a file's colours. Knows nothing of HTML; drawing itself is ``charts``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.accuracy import expected_calibration_error, letters_in, with_interval
from kmmlu_fast.analysis.comparison import Comparison
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.files import distinct_slugs
from kmmlu_fast.core.reading import read_parquet
from kmmlu_fast.models.adapters import read_log
from kmmlu_fast.reporting import charts
from kmmlu_fast.reporting.charts import Palette
from kmmlu_fast.reporting.human import known
from kmmlu_fast.reporting.language import Texts, percent, subject_name, supercategory_name
from kmmlu_fast.runs.run import Run, adapter_path

MOST_RUNS = 5  # in one chart; the table shows them all
WEAKEST = 26
BINS = 10
FEW = 20  # questions a subject; below, no single subject is called weak
MIN_BIN = 5  # questions; fewer make a point of noise (they count in the ECE all the same)
_PLAN = pl.Schema({"subject": pl.String, "drawn": pl.Int64, "weak": pl.Boolean})
SPREAD = 1.2  # costs closer than this are no trade-off to chart


@dataclass(frozen=True, slots=True)
class Figure:
    """One chart, not yet drawn."""

    id: str
    title: str
    note: str
    draw: Callable[[Palette], Any]
    legend: tuple[
        tuple[str, str], ...
    ] = ()  # (name, key of the palette or its n-th run colour as "0".."5"); "|key" = drawn as a tick
    size: str = ""


def figures(
    runs: list[Run],
    pair: Comparison | None,
    rows: list[dict[str, Any]],
    questions: pl.DataFrame | None,
    plan: Path | None,
    t: Texts,
    lang: str,
) -> list[Figure]:
    """All charts that the data allows, in the report's order. ``pair`` is the comparison in
    focus, ``runs[0]`` the base.
    """
    shown = in_focus(runs, pair)
    answered = [run for run in shown if run.predictions is not None]
    candidates = [
        _changes(pair, t, lang),
        _groups(shown, t, lang),
        _weak(shown[-1], questions, t, lang),
        _letters(answered, t),
        _calibration(answered, t),
        _cost(rows, t, "tokens"),
        _cost(rows, t, "seconds"),
        *[
            _training(run, name, t)
            for run, name in zip(shown, distinct_slugs(run.name for run in shown), strict=True)
        ],
        _plan(plan, t, lang),
    ]
    return [figure for figure in candidates if figure is not None]


def in_focus(runs: list[Run], pair: Comparison | None) -> list[Run]:
    """The runs that charts and wide tables have room for: the pair in focus, and others if there are few."""
    if len(runs) <= MOST_RUNS or pair is None:
        return runs[:MOST_RUNS]
    return [run for name in (pair.first, pair.second) for run in runs if run.name == name]


def _legend(names: list[str], start: int = 0) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(start + place)) for place, name in enumerate(names))


def _changes(pair: Comparison | None, t: Texts, lang: str) -> Figure | None:
    if pair is None:
        return None
    labels = [subject_name(name, lang) for name in pair.subjects["subject"]]
    return Figure(
        "changes",
        t("changes_title"),
        t("changes_note"),
        lambda palette: charts.changes(pair.subjects, labels, (pair.first, pair.second), palette, t),
        _legend([pair.first, pair.second]),
        "wide",
    )


def _tips(frame: pl.DataFrame, label: Callable[[dict[str, Any]], str]) -> pl.DataFrame:
    tips = [
        f"{label(row)}: {percent(row['accuracy'], 1)} % [{percent(row['low'], 1)},"
        f" {percent(row['high'], 1)}], n = {row['total']:,}"
        for row in frame.iter_rows(named=True)
    ]
    return frame.with_columns(pl.Series("tip", tips, dtype=pl.String))


def _groups(runs: list[Run], t: Texts, lang: str) -> Figure:
    frame = pl.concat(
        run.scores.group_by("supercategory")
        .agg(pl.col("correct").sum(), pl.col("total").sum())
        .sort("supercategory")
        .with_columns(pl.lit(run.name).alias("run"))
        for run in runs
    )
    names = [supercategory_name(name, lang) for name in frame["supercategory"]]
    frame = _tips(
        with_interval(frame.with_columns(pl.Series("label", names))),
        lambda row: f"{row['run']}, {row['label']}",
    )
    order = [run.name for run in runs]
    return Figure(
        "groups",
        t("groups_title"),
        t("groups_note"),
        lambda palette: charts.groups(frame, order, palette, t),
        _legend(order),
    )


def _letters(runs: list[Run], t: Texts) -> Figure | None:
    if not runs:
        return None
    rows = []
    letters = max((letters_in(run.frame) for run in runs), key=len)
    series = [t("key"), *[run.name for run in runs]]
    shares = [
        _shares(runs[0].frame["answer"], letters),
        *[_shares(run.frame["prediction"], letters) for run in runs],
    ]
    with_unparsed = any(values[-1] > 0.001 for values in shares)
    columns = (*letters, t("unparsed"))
    for name, values in zip(series, shares, strict=True):
        for letter, value in zip(columns, values, strict=True):
            if letter in letters or with_unparsed:
                rows.append(
                    {
                        "letter": letter,
                        "run": name,
                        "share": value,
                        "tip": f"{name}, {letter}: {percent(value, 1)} %",
                    }
                )
    frame = pl.DataFrame(rows)
    return Figure(
        "letters",
        t("letters_chart"),
        t("letters_note"),
        lambda palette: charts.letters(frame, series, palette, t),
        ((t("key"), "key"), *_legend(series[1:])),
    )


def _shares(values: pl.Series, letters: tuple[str, ...]) -> list[float]:
    """The share of each letter, and of what is none of them, 0-1."""
    count = max(1, len(values))
    found = [int((values == letter).sum()) / count for letter in letters]
    return [*found, int((~values.is_in(letters)).fill_null(True).sum()) / count]


def _weak(run: Run, questions: pl.DataFrame | None, t: Texts, lang: str) -> Figure | None:
    enough = run.scores.filter(pl.col("total") >= FEW)
    if len(enough) < 2:
        return None  # of a handful of questions a subject, the weakest is a matter of luck
    frame = with_interval(enough).sort("accuracy", "subject").head(WEAKEST)
    nothing = pl.DataFrame(schema={"subject": pl.String, "constant": pl.Float64})
    constant = (
        nothing
        if run.predictions is None
        else (
            run.predictions.group_by("subject", "answer")
            .len()
            .with_columns((pl.col("len") / pl.col("len").sum().over("subject")).alias("constant"))
            .group_by("subject")
            .agg(pl.col("constant").max())
        )
    )
    human = pl.DataFrame(schema={"subject": pl.String, "human": pl.Float64})
    if questions is not None:
        human = known(questions).group_by("subject").agg(pl.col("human_accuracy").mean().alias("human"))
    frame = frame.join(constant, on="subject", how="left", maintain_order="left").join(
        human, on="subject", how="left", maintain_order="left"
    )
    frame = frame.with_columns(
        pl.Series("label", [subject_name(name, lang) for name in frame["subject"]], dtype=pl.String)
    )
    frame = _tips(frame, lambda row: row["label"])
    legend = [(t("constant_legend"), "|down")] if run.predictions is not None else []
    if frame["human"].null_count() < len(frame):
        legend.append((t("human_legend"), "key"))
    return Figure(
        "weak",
        t("weak_title", name=run.name),
        t("weak_note"),
        lambda palette: charts.weak(frame, palette, t),
        tuple(legend),
        "tall",
    )


def _calibration(runs: list[Run], t: Texts) -> Figure | None:
    parts, errors = [], []
    for run in runs:
        frame = run.frame.filter(pl.col("confidence").is_not_null())
        if len(frame) < 10:
            continue
        binned = (
            frame.with_columns((pl.col("confidence") * BINS).floor().clip(0, BINS - 1).alias("bin"))
            .group_by("bin")
            .agg(
                pl.col("confidence").mean(),
                pl.col("correct").sum().cast(pl.Int64),
                pl.len().cast(pl.Int64).alias("total"),
            )
            .sort("bin")
        )
        binned = with_interval(binned).with_columns(pl.lit(run.name).alias("run"), pl.col("total").alias("n"))
        errors.append(f"{run.name}: ECE {percent(expected_calibration_error(binned), 1)} pp")
        binned = binned.filter(pl.col("total") >= MIN_BIN)
        if binned.is_empty():  # a small run, its answers spread over all bins
            continue
        parts.append(_tips(binned, lambda row: f"{row['run']}, {percent(row['confidence'], 0)} %"))
    if not parts:
        return None
    frame, order = pl.concat(parts), [part["run"][0] for part in parts]
    everyone = [run.name for run in runs]
    return Figure(
        "calibration",
        t("calibration_title"),
        t("calibration_note", errors="; ".join(errors) + "."),
        lambda palette: charts.calibration(frame, everyone, palette, t),
        tuple((name, str(everyone.index(name))) for name in order),
    )


def _cost(rows: list[dict[str, Any]], t: Texts, what: str) -> Figure | None:
    def cost_of(row: dict[str, Any]) -> float | None:
        if what == "seconds":
            return float(row["seconds"]) if row["seconds"] else None
        return (
            (row["prompt_tokens"] + row["output_tokens"]) / row["questions"] if row["prompt_tokens"] else None
        )

    known = [{**row, "cost": cost_of(row)} for row in rows if cost_of(row)]
    if len(known) < 2 or max(row["cost"] for row in known) < SPREAD * min(row["cost"] for row in known):
        return None
    frame = pl.DataFrame(
        [
            {
                "run": row["name"],
                "cost": float(row["cost"]),
                "accuracy": row["micro"],
                "low": row["low"],
                "high": row["high"],
                "tip": f"{row['name']}: {percent(row['micro'])} %, {row['cost']:,.0f} {t('cost_' + what)}",
            }
            for row in known
        ]
    )
    name = t("cost_" + what)
    return Figure(
        f"cost-{what}",
        t("cost_title", what=name),
        t("cost_note"),
        lambda palette: charts.cost(frame, palette, t, name),
    )


def _training(run: Run, name: str, t: Texts) -> Figure | None:
    folder = adapter_path(run)
    log = folder / "train_log.jsonl" if folder else None
    if log is None or not log.is_file():
        return None
    rows = []
    for entry in read_log(log):
        kind = {"step": "train", "held_out": "validation"}.get(entry["kind"])
        loss = entry.get("loss")
        if kind and isinstance(loss, (int, float)) and math.isfinite(loss):
            rows.append(
                {
                    "step": entry["step"],
                    "loss": float(loss),
                    "kind": kind,
                    "tip": f"{entry['step']}: {loss:.4f}",
                }
            )
    if not rows:
        return None
    frame = pl.DataFrame(rows)
    legend = ((t("train_line"), "0"), (t("validation_line"), "1"))
    return Figure(
        f"training-{name}",
        t("training_title", name=run.name),
        t("training_note"),
        lambda palette: charts.training(frame, palette, t),
        legend,
    )


def _plan(path: Path | None, t: Texts, lang: str) -> Figure | None:
    """The sampling plan that ``kmmlu_fast.sample`` wrote (``*.plan.parquet``): questions drawn
    a subject, weak ones marked.
    """
    if path is None:
        return None
    try:
        plan = read_parquet(path, DataError, schema=_PLAN).drop_nulls().filter(pl.col("drawn") > 0)
    except DataError as error:
        raise DataError(
            f"--plan: is no sampling plan ({error}); give the .plan.parquet that kmmlu_fast.sample wrote"
        ) from error
    rows = [
        {
            "label": subject_name(subject, lang),
            "count": drawn,
            "part": "weak" if weak else "uniform",
            "tip": f"{subject_name(subject, lang)}: {drawn}",
        }
        for subject, drawn, weak in plan.iter_rows()
    ]
    frame = pl.DataFrame(
        rows, schema={"label": pl.String, "count": pl.Int64, "part": pl.String, "tip": pl.String}
    )
    legend = ((t("plan_weak"), "1"), (t("plan_uniform"), "none"))
    return (
        None
        if frame.is_empty()
        else Figure(
            "plan", t("plan_title"), t("plan_note"), lambda palette: charts.plan(frame, palette, t), legend
        )
    )
