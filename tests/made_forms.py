"""Invented runs that hold both written forms of the letters; no model involved."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.runs.run import Run, count_subject_scores, fill_prediction_columns

_TINY = 1e-12
WRITTEN, UNWRITTEN = 0.83, 0.03


def form_run(
    name: str,
    key: list[str],
    spaced: list[list[float]],
    bare: list[list[float]],
    scored: str = "lm-eval",
    **facts: Any,
) -> Run:
    """A run from the letters' probabilities in both forms (rows of 2 to 4), of one subject."""
    logs = {
        form: [[float(np.log(max(p, _TINY))) for p in row] for row in rows]
        for form, rows in (("lm-eval", spaced), ("bare", bare))
    }
    logs["either"] = [
        np.logaddexp(one, other).tolist() for one, other in zip(logs["lm-eval"], logs["bare"], strict=True)
    ]
    own = logs[scored]
    predicted = [LETTERS[int(np.argmax(row))] for row in own]
    columns: dict[str, Any] = {
        "question_id": [f"Law/test/{place}" for place in range(len(key))],
        "subject": ["Law"] * len(key),
        "supercategory": ["HUMSS"] * len(key),
        "split": ["test"] * len(key),
        "answer": key,
        "prediction": predicted,
        "correct": [one == other for one, other in zip(predicted, key, strict=True)],
        "num_options": [len(row) for row in own],
        "spaced_logprobs": logs["lm-eval"],
        "bare_logprobs": logs["bare"],
        "spaced_mass": [sum(row) for row in spaced],
        "bare_mass": [sum(row) for row in bare],
    }
    for place, letter in enumerate(LETTERS):
        columns[f"logprob_{letter}"] = [row[place] if place < len(row) else None for row in own]
    frame = fill_prediction_columns(pl.DataFrame(columns))
    parts = {"prompt_style": "lm-eval", "output_type": "multiple_choice", **facts}
    return Run(
        name=name, kind="run", source=name, predictions=frame, scores=count_subject_scores(frame), facts=parts
    )


def form_pair_runs(
    n: int,
    *,
    learns: bool,
    blurred: bool,
    strength: tuple[float, float] = (1.0, 1.0),
    pull: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
) -> tuple[Run, Run]:
    """A base that writes "A" and a second run that, if it ``learns``, writes " A", which is scored.
    ``blurred``: the form that a run does not write knows a third. The noise is mostly shared, as two states
    of one model share it.
    """
    random = np.random.default_rng(seed)
    codes = random.choice(4, size=n, p=[0.1, 0.3, 0.3, 0.3])
    common = [random.normal(size=(n, 4)) for _ in range(2)]
    runs = []
    for place, name in enumerate(("base", "lora")):
        shares = []
        for form, (known, mass) in enumerate(((1.0, WRITTEN), (0.33 if blurred else 1.0, UNWRITTEN))):
            values = 0.8**0.5 * common[form] + 0.2**0.5 * random.normal(size=(n, 4))
            values[np.arange(n), codes] += strength[place] * known
            values[:, 0] += pull[place]
            weights = np.exp(values)
            shares.append((mass * weights / weights.sum(axis=1, keepdims=True)).tolist())
        written, other = shares
        spaced, bare = (written, other) if place and learns else (other, written)
        runs.append(form_run(name, [LETTERS[code] for code in codes], spaced, bare))
    return runs[0], runs[1]
