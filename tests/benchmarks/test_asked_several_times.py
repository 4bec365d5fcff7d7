"""bench.shared and bench.peers' whole commands: what is compared with what, the same questions for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.peers import PeersConfig, write_model
from bench.peers_whole import write_questions
from bench.shared import rows_of
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS


def test_each_pass_is_compared_with_its_own_single_one() -> None:
    times = {
        "letters, once": [(2.0, 3.0), (2.0, 3.0), (2.0, 3.0)],
        "letters, 4 orders": [(4.0, 7.5), (9.0, 7.5), (5.0, 7.5)],
        "chain, 1 sample": [(1.0, 1.0)],
        "chain, 8 samples": [(1.5, 1.25)],
    }
    rows = rows_of(times, dict.fromkeys(times, 7), 45)
    assert [row["times_sec"] for row in rows] == [1.0, 2.5, 1.0, 1.5]
    assert [row["times_cpu_sec"] for row in rows] == [1.0, 2.5, 1.0, 1.25]
    assert all(row["questions"] == 45 and row["computed_tokens"] == 7 for row in rows)


def test_the_questions_of_a_whole_command_are_the_very_same(tmp_path: Path) -> None:
    subjects = [SUBJECTS["Law"], SUBJECTS["Math"]]
    questions = dataset.select_questions(dataset.load_questions("sample", "test", subjects), 3, "first", 0)
    write_questions(tmp_path, questions)
    read = dataset.load_questions(str(tmp_path), "test", subjects)
    assert [(q.subject, q.question, q.options, q.answer) for q in read] == [
        (q.subject, q.question, q.options, q.answer) for q in questions
    ]


@pytest.mark.engine
def test_a_shape_takes_the_models_place(tmp_path: Path) -> None:
    config = PeersConfig.model_validate({"shape": "tiny", "dataset": "sample"})
    made = write_model(config, tmp_path)
    assert {path.name for path in Path(made.model).iterdir()} >= {"config.json", "tokenizer.json"}
    assert (Path(made.model) / "model.safetensors").stat().st_size > 1_000_000
    assert write_model(PeersConfig(), tmp_path) == PeersConfig()
