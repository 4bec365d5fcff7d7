"""Invented runs for the tests of compare and report: frames and run directories, no model involved."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.core.prediction_frames import predictions_frame
from kmmlu_fast.core.schema import LETTERS, Prediction
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.reporting.report_data import ReportData, collect_report_data
from kmmlu_fast.runs.run import Run, count_subject_scores

QUICK = ComparisonSettings()
SIZES = {"Accounting": 40, "Law": 60, "Math": 50, "Computer-Science": 50}


def predictions(
    seed: int,
    skill: float = 0.6,
    bias: tuple[float, ...] = (0, 0, 0, 0),
    sizes: dict[str, int] = SIZES,
    logprobs: bool = True,
    text: str | None = None,
    unparsed: float = 0.0,
) -> pl.DataFrame:
    """Noise (the same for every call: only knowledge and bias differ) + ``skill`` on the key's
    letter + ``bias``; natural logs, A-D.
    """
    noise, chance = random.Random(1), random.Random(seed)
    rows = []
    for subject, size in sizes.items():
        for row in range(size):
            answer = noise.choices(LETTERS, weights=(1, 3, 3, 3))[0]
            values = [
                noise.gauss(0, 1) + (skill if letter == answer else 0) + shift
                for letter, shift in zip(LETTERS, bias, strict=True)
            ]
            total = math.log(sum(math.exp(value) for value in values))
            values = [value - total for value in values]
            ranked = sorted(values, reverse=True)
            prediction = None if chance.random() < unparsed else LETTERS[values.index(ranked[0])]
            rows.append(
                Prediction(
                    question_id=f"{subject}/test/{row}",
                    subject=subject,
                    supercategory=SUBJECTS[subject].supercategory,
                    split="test",
                    row=row,
                    answer=answer,
                    prediction=prediction,
                    correct=prediction == answer,
                    read_by="loglikelihood" if prediction else None,
                    **_logprobs(values if logprobs else []),
                    margin=ranked[0] - ranked[1],
                    confidence=math.exp(ranked[0]),
                    texts=[text] if text else None,
                    prompt_tokens=100,
                    output_tokens=1,
                    prompt_digest=f"{row:016x}",
                )
            )
    return predictions_frame(rows)


def _logprobs(values: list[float]) -> dict[str, Any]:
    return {f"logprob_{letter}": value for letter, value in zip(LETTERS, values, strict=False)}


def loaded(name: str, frame: pl.DataFrame, **facts: Any) -> Run:
    return Run(
        name=name, kind="run", source=name, predictions=frame, scores=count_subject_scores(frame), facts=facts
    )


def run_directory(
    path: Path,
    name: str,
    frame: pl.DataFrame,
    dataset: str = "none-such",
    adapter: Path | None = None,
    **facts: Any,
) -> Path:
    """A complete run directory, as ``store`` leaves it."""
    path.mkdir(parents=True)
    parts = {
        "model": "demo",
        "prompt_style": "lm-eval",
        "template_digest": "t",
        "output_type": "multiple_choice",
        "num_fewshot": 0,
        **facts,
    }
    document = {
        "config": {"dataset": dataset, "split": "test"},
        "fingerprint": "f" * 12,
        "fingerprint_parts": parts,
        "name": name,
        "adapter": None if adapter is None else {"name": name, "path": str(adapter)},
    }
    (path / "config.json").write_text(json.dumps(document), encoding="utf-8")
    (path / "environment.json").write_text(json.dumps({"python": "3.11", "device": "CPU"}), encoding="utf-8")
    (path / "metrics.json").write_text(
        json.dumps({"speed": {"questions": len(frame), "seconds": 12.5}}), encoding="utf-8"
    )
    frame.write_parquet(path / "predictions.parquet")
    return path


def questions(frame: pl.DataFrame, text: str = "다음 중 옳은 것은?") -> pl.DataFrame:
    """Invented texts for a run's questions, in the columns of ``dataset.load_frame``."""
    return frame.select(
        "question_id",
        "subject",
        "supercategory",
        "split",
        "row",
        pl.format("{} ({})", pl.lit(text), "row").alias("question"),
        *[pl.lit(f"보기 {letter}").alias(letter) for letter in LETTERS],
        "answer",
        pl.lit(0.5).alias("human_accuracy"),
    )


def found_in(
    runs: list[Run], asked: pl.DataFrame | None = None, settings: ComparisonSettings = QUICK
) -> ReportData:
    """What a report finds in runs, the base first; ``asked``: the questions' texts."""
    return collect_report_data(runs, replace(settings, questions=asked), asked)
