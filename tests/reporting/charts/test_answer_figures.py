"""Figures of answers: numbers that stand in their notes."""

from __future__ import annotations

import re
from dataclasses import replace

import polars as pl
from made_runs import loaded, predictions

from kmmlu_fast.analysis.accuracy import expected_calibration_error
from kmmlu_fast.reporting.charts import answer_figures
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.runs.run import Run


def run_with_confidence(sure: int, unsure: int) -> Run:
    """``sure`` answers at confidence .95, all right; ``unsure`` at .45, all wrong."""
    frame = predictions(1).head(sure + unsure)
    confidence = [0.95] * sure + [0.45] * unsure
    letters = pl.Series("prediction", frame["answer"].to_list()[:sure] + [None] * unsure, dtype=pl.String)
    frame = frame.with_columns(
        pl.Series("confidence", confidence),
        pl.Series("prediction", letters, dtype=pl.String),
        (pl.Series("prediction", letters, dtype=pl.String) == frame["answer"])
        .fill_null(False)
        .alias("correct"),
    )
    return loaded("made", frame)


def test_calibration_error_counts_answers_in_bins_that_are_not_drawn() -> None:
    """A bin under MIN_BIN is not drawn, but its answers are part of the error."""
    few = answer_figures.MIN_BIN - 1
    run = run_with_confidence(100, few)
    figure = answer_figures._calibration_figure([run], get_translator("en", "report"))
    assert figure is not None
    expected = 100 * (100 * 0.05 + few * 0.45) / (100 + few)
    (shown,) = re.findall(r"ECE ([\d.]+) pp", figure.note)
    assert abs(float(shown) - expected) < 0.06


def test_expected_calibration_error_by_hand() -> None:
    binned = pl.DataFrame({"confidence": [0.95, 0.45], "accuracy": [1.0, 0.0], "total": [3, 1]})
    assert abs(expected_calibration_error(binned) - (3 * 0.05 + 0.45) / 4) < 1e-12


def test_a_run_with_few_confident_answers_has_no_calibration() -> None:
    run = run_with_confidence(5, 4)
    assert answer_figures._calibration_figure([replace(run)], get_translator("en", "report")) is None
