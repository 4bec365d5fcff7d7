"""The charts of a report: titled, captioned charts of answers.

In: ``ReportData`` (questions for human accuracy), a translator. Out: ``Figure``s, drawn on demand in the
page's or a file's colours. Knows nothing of HTML; ``answer_charts`` draws.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from kmmlu_fast.analysis.accuracy import (
    FEW,
    expected_calibration_error,
    letters_of_frame,
    with_accuracy_interval,
)
from kmmlu_fast.analysis.comparison import PairComparison
from kmmlu_fast.core.files import distinct_slugs
from kmmlu_fast.reporting.charts import answer_charts
from kmmlu_fast.reporting.charts import effort_figures as effort
from kmmlu_fast.reporting.charts.figure import Figure, add_tooltips, run_legend
from kmmlu_fast.reporting.human_accuracy import with_known_human_accuracy
from kmmlu_fast.reporting.report_data import ReportData
from kmmlu_fast.reporting.wording.language import Translator, format_percent
from kmmlu_fast.runs.run import Run

MOST_RUNS = 5  # in one chart; the table shows them all
WEAKEST = 26
BINS = 10
MIN_BIN = 5  # questions; a bin of fewer is noise and not drawn (it still counts in the ECE)


def report_figures(report: ReportData, plan: Path | None, t: Translator) -> list[Figure]:
    """All charts that the data allows, in the report's order. ``plan``: a sampling plan's file."""
    shown = runs_in_focus(report)
    answered = [run for run in shown if run.predictions is not None]
    candidates = [
        changes_figure(report.focus, t),
        _supercategory_figure(shown, t),
        _weak_subjects_figure(shown[-1], report.questions, t),
        _letter_share_figure(answered, t),
        _calibration_figure(answered, t),
        effort.cost_figure(report.headlines, t, "tokens"),
        effort.cost_figure(report.headlines, t, "seconds"),
    ]
    for run, name in zip(shown, distinct_slugs(run.name for run in shown), strict=True):
        candidates.append(effort.budget_figure(run, name, t))
        candidates.append(effort.training_curve_figure(run, name, t))
    candidates.append(effort.sampling_plan_figure(plan, t))
    return [figure for figure in candidates if figure is not None]


def runs_in_focus(report: ReportData) -> list[Run]:
    """The runs that charts and wide tables have room for: all if there are few, else the pair in focus."""
    runs, pair = report.runs, report.focus
    if len(runs) <= MOST_RUNS or pair is None:
        return runs[:MOST_RUNS]
    return [run for name in (pair.first, pair.second) for run in runs if run.name == name]


def changes_figure(pair: PairComparison | None, t: Translator, name: str = "changes") -> Figure | None:
    """What changed, subject by subject; None without a pair. ``name``: the figure's id."""
    if pair is None:
        return None
    labels = [t.subject(name) for name in pair.subjects["subject"]]
    return Figure(
        id=name,
        title=t("changes_title"),
        note=t("changes_note"),
        draw=lambda palette: answer_charts.changes_chart(
            pair.subjects, labels, (pair.first, pair.second), palette, t
        ),
        legend=run_legend([pair.first, pair.second]),
        size="wide",
    )


def _supercategory_figure(runs: list[Run], t: Translator) -> Figure:
    frame = pl.concat(
        run.scores.group_by("supercategory")
        .agg(pl.col("correct").sum(), pl.col("total").sum())
        .sort("supercategory")
        .with_columns(pl.lit(run.name).alias("run"))
        for run in runs
    )
    names = [t.supercategory(name) for name in frame["supercategory"]]
    frame = add_tooltips(
        with_accuracy_interval(frame.with_columns(pl.Series("label", names))),
        lambda row: f"{row['run']}, {row['label']}",
    )
    order = [run.name for run in runs]
    return Figure(
        id="groups",
        title=t("groups_title"),
        note=t("groups_note"),
        draw=lambda palette: answer_charts.supercategory_chart(frame, order, palette, t),
        legend=run_legend(order),
    )


def _letter_share_figure(runs: list[Run], t: Translator) -> Figure | None:
    if not runs:
        return None
    rows = []
    letters = max((letters_of_frame(run.frame) for run in runs), key=len)
    series = [t("key"), *[run.name for run in runs]]
    shares = [
        _letter_shares(runs[0].frame["answer"], letters),
        *[_letter_shares(run.frame["prediction"], letters) for run in runs],
    ]
    with_unparsed = any(values[-1] > 0.001 for values in shares)
    columns = (*letters, t("unparsed"))
    for name, values in zip(series, shares, strict=True):
        for letter, value in zip(columns, values, strict=True):
            if letter in letters or with_unparsed:
                tip = f"{name}, {letter}: {format_percent(value, 1)} %"
                rows.append({"letter": letter, "run": name, "share": value, "tip": tip})
    frame = pl.DataFrame(rows)
    return Figure(
        id="letters",
        title=t("letters_chart"),
        note=t("letters_note"),
        draw=lambda palette: answer_charts.letter_share_chart(frame, series, palette, t),
        legend=((t("key"), "key"), *run_legend(series[1:])),
    )


def _letter_shares(values: pl.Series, letters: tuple[str, ...]) -> list[float]:
    """The share of each letter, and of everything else, 0-1."""
    count = max(1, len(values))
    shares = [int((values == letter).sum()) / count for letter in letters]
    return [*shares, int((~values.is_in(letters)).fill_null(True).sum()) / count]


def _weak_subjects_figure(run: Run, questions: pl.DataFrame | None, t: Translator) -> Figure | None:
    enough = run.scores.filter(pl.col("total") >= FEW)
    if len(enough) < 2:
        return None  # with a handful of questions per subject, the weakest is a matter of luck
    weakest = min(WEAKEST, len(enough))
    # chosen as the weakest: so many intervals of so many cover 95 % (Benjamini and Yekutieli 2005, JASA
    # 100:71)
    level = 1 - 0.05 * weakest / len(enough)
    frame = with_accuracy_interval(enough, level).sort("accuracy", "subject").head(weakest)
    constant = pl.DataFrame(schema={"subject": pl.String, "constant": pl.Float64})
    if run.predictions is not None:
        share = pl.col("len") / pl.col("len").sum().over("subject")
        shares = run.predictions.group_by("subject", "answer").len().with_columns(share.alias("constant"))
        constant = shares.group_by("subject").agg(pl.col("constant").max())
    human = pl.DataFrame(schema={"subject": pl.String, "human": pl.Float64})
    if questions is not None:
        human = (
            with_known_human_accuracy(questions)
            .group_by("subject")
            .agg(pl.col("human_accuracy").mean().alias("human"))
        )
    for more in (constant, human):
        frame = frame.join(more, on="subject", how="left", maintain_order="left")
    labels = pl.Series("label", [t.subject(name) for name in frame["subject"]], dtype=pl.String)
    frame = add_tooltips(frame.with_columns(labels), lambda row: row["label"])
    legend = [(t("constant_legend"), "|down")] if run.predictions is not None else []
    if frame["human"].null_count() < len(frame):
        legend.append((t("human_legend"), "key"))
    return Figure(
        id="weak",
        title=t("weak_title", name=run.name),
        note=t("weak_note"),
        draw=lambda palette: answer_charts.weak_subjects_chart(frame, palette, t),
        legend=tuple(legend),
        size="tall",
    )


def _calibration_figure(runs: list[Run], t: Translator) -> Figure | None:
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
        binned = with_accuracy_interval(binned).with_columns(
            pl.lit(run.name).alias("run"), pl.col("total").alias("n")
        )
        errors.append(f"{run.name}: ECE {format_percent(expected_calibration_error(binned), 1)} pp")
        binned = binned.filter(pl.col("total") >= MIN_BIN)
        if binned.is_empty():  # a small run, its answers spread over all bins
            continue
        parts.append(
            add_tooltips(binned, lambda row: f"{row['run']}, {format_percent(row['confidence'], 0)} %")
        )
    if not parts:
        return None
    frame, drawn = pl.concat(parts), [part["run"][0] for part in parts]
    names = [run.name for run in runs]
    return Figure(
        id="calibration",
        title=t("calibration_title"),
        note=t("calibration_note", errors="; ".join(errors) + "."),
        draw=lambda palette: answer_charts.calibration_chart(frame, names, palette, t),
        legend=tuple((name, str(names.index(name))) for name in drawn),
    )
