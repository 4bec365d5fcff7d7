"""The run directory: atomic parts, resume, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from kmmlu_fast.core.digests import compute_fingerprint
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA, predictions_frame
from kmmlu_fast.core.schema import Prediction
from kmmlu_fast.runs.metrics import Metrics
from kmmlu_fast.runs.store import RunStore, load_run_directory

PARTS = {"model": "m", "prompt_style": "lm-eval"}


def prediction(row: int, letter: str | None = "A") -> Prediction:
    return Prediction(
        question_id=f"Law/test/{row}",
        subject="Law",
        supercategory="HUMSS",
        split="test",
        row=row,
        answer="A",
        prediction=letter,
        correct=letter == "A",
        read_by="loglikelihood",
        texts=["가"],
        prompt_digest="d",
    )


def open_store(root: Path, parts: dict[str, str] = PARTS, overwrite: bool = False) -> RunStore:
    return RunStore(root, "name", parts, {"config": {}}, overwrite)


def test_a_run_is_kept_in_dataset_order_and_read_back(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for row in (2, 0, 1):
        store.append(prediction(row))
    run = store.finish(
        [f"Law/test/{i}" for i in range(3)], lambda frame: Metrics(num_questions=len(frame)), {"python": "3"}
    )
    assert run.predictions["row"].to_list() == [0, 1, 2]
    assert run.predictions.schema == PREDICTION_SCHEMA
    assert run.metrics == Metrics(num_questions=3) and run.environment == {"python": "3"}
    assert not (run.path / "predictions").exists()
    assert load_run_directory(run.path).config["fingerprint"] == compute_fingerprint(PARTS)


def test_what_was_flushed_is_not_asked_again_and_a_torn_part_is_ignored(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append(prediction(0))
    store.flush()
    (store.path / "predictions" / "part-00001.parquet.partial").write_bytes(b"torn")
    store._lock.close()  # what a kill leaves: the part, the torn file, no lock held
    again = open_store(tmp_path)
    assert again.answered == {"Law/test/0"}
    again.append(prediction(1))
    run = again.finish(["Law/test/0", "Law/test/1"], lambda frame: Metrics(), {})
    assert run.predictions["question_id"].to_list() == ["Law/test/0", "Law/test/1"]


def test_closing_keeps_what_was_buffered(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append(prediction(4))
    store.close()
    assert open_store(tmp_path).answered == {"Law/test/4"}


def test_missing_or_double_questions_are_never_finished(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append(prediction(0))
    store.append(prediction(0))
    with pytest.raises(RunError, match="holds 2 predictions for 2 questions"):
        store.finish(["Law/test/0", "Law/test/1"], lambda frame: Metrics(), {})


def test_another_fingerprint_in_the_directory_names_what_differs(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append(prediction(0))
    store.close()
    config = json.loads((store.path / "config.json").read_text())
    config["fingerprint_parts"]["prompt_style"] = "qa"
    (store.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"prompt_style \('qa' there, 'lm-eval' here\)"):
        open_store(tmp_path)
    assert open_store(tmp_path, overwrite=True).answered == set()


def test_a_foreign_directory_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / f"name-{compute_fingerprint(PARTS)}"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match=r"no config\.json"):
        open_store(tmp_path)
    assert (folder / "thesis.txt").read_text() == "mine"


def test_two_writers_are_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(RunError, match="another process"):
        open_store(tmp_path)
    store.close()


def test_an_output_directory_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        open_store(tmp_path / "file")


def test_incomplete_and_missing_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run directory"):
        load_run_directory(tmp_path / "none")
    with pytest.raises(RunError, match="not a run directory"):
        load_run_directory(tmp_path)
    store = open_store(tmp_path)
    store.close()
    with pytest.raises(RunError, match="not complete"):
        load_run_directory(store.path)


def test_the_declared_schema_holds_nulls_and_lists() -> None:
    frame = predictions_frame([prediction(0, None), prediction(1)])
    assert frame.schema == PREDICTION_SCHEMA
    assert frame["prediction"].to_list() == [None, "A"] and frame["texts"].to_list() == [["가"], ["가"]]
    assert isinstance(PREDICTION_SCHEMA["logprob_A"], pl.Float64)


def test_what_a_kill_after_metrics_left_is_removed_by_the_next_command(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append(prediction(0))
    run = store.finish(["Law/test/0"], lambda frame: Metrics(), {})
    assert run.path is not None
    (run.path / "predictions").mkdir()
    (run.path / "predictions" / "part-00000.parquet").write_bytes(b"x")
    (run.path / "order.parquet").write_bytes(b"x")
    open_store(tmp_path).close()
    names = {path.name for path in run.path.iterdir()}
    assert names == {"config.json", "environment.json", "metrics.json", "predictions.parquet"}
