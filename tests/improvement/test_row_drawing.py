"""Rows drawn in a process of its own are those that this one would draw."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.data import dataset
from kmmlu_fast.improvement.row_drawing import draw_rows_in_child
from kmmlu_fast.sampling.config import SampleConfig
from kmmlu_fast.sampling.job import draw_training_rows


def test_a_child_draws_the_same_rows_and_tells_its_fault(tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    train = dataset.load_questions("sample", "train")
    subjects = sorted({question.subject for question in train})
    lines = [f"{name},{place % 10},10" for place, name in enumerate(subjects)]
    scores.write_text("\n".join(["subject,correct,total", *lines]), encoding="utf-8")
    excluded = frozenset(question.question_id for question in train if question.row % 2)
    settings = {"from": [str(scores)], "dataset": "sample", "size": 12}
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    draw_training_rows(build_config(SampleConfig, **settings, out=here), excluded)
    config = build_config(SampleConfig, **settings, out=there)
    draw_rows_in_child(config, excluded)
    assert there.read_bytes() == here.read_bytes()
    with pytest.raises(EngineError, match=r"there\.jsonl: exists"):
        draw_rows_in_child(config, excluded)
