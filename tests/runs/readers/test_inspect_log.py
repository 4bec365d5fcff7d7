"""inspect_ai's logs: zip and JSON in, keys and answers out; our export opens in its own reader."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from made_runs import loaded, predictions, questions

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.reporting.files.lm_eval_output import lm_eval_documents
from kmmlu_fast.runs.inspect_export import inspect_log_bytes
from kmmlu_fast.runs.loading import load_run_argument

TIME = "2026-03-01T09:00:00+00:00"


def sample(i: Any, answer: str | None, value: Any = None, **changes: Any) -> dict[str, Any]:
    """A sample of key B."""
    value = ("C" if answer == "B" else "I") if value is None else value
    return {
        "id": i,
        "epoch": 1,
        "input": "물음",
        "choices": ["산", "강", "들", "길"],
        "target": "B",
        "metadata": {"subject": "Math"},
        "scores": {"choice": {"value": value, "answer": answer}},
        **changes,
    }


def write_log(
    path: Path, samples: list[dict[str, Any]], task: str = "kmmlu", status: str = "success"
) -> Path:
    spec = {"task": task, "model": "hf/org/m", "dataset": {"samples": len(samples)}}
    header = {"version": 2, "status": status, "eval": spec}
    if path.suffix == ".json":
        path.write_text(json.dumps({**header, "samples": samples}), encoding="utf-8")
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("header.json", json.dumps(header))
            archive.writestr("summaries.json", json.dumps(samples))
    return path


@pytest.mark.parametrize("suffix", ["eval", "json"])
def test_logs_question_by_question(tmp_path: Path, suffix: str) -> None:
    samples = [sample(0, "B"), sample(1, "A"), sample(2, "강", "C"), sample(3, None, 0)]
    (run,) = load_run_argument(str(write_log(tmp_path / f"l.{suffix}", samples)))
    assert (run.name, run.kind, run.correct) == ("hf/org/m", "inspect", 2)
    assert run.frame["question_id"].to_list() == [f"Math/test/{i}" for i in range(4)]
    assert run.frame["prediction"].to_list() == ["B", "A", "B", None]


def test_ids_are_rows_only_where_they_can_be(tmp_path: Path) -> None:
    path = tmp_path / "l.eval"
    (run,) = load_run_argument(str(write_log(path, [sample(i, "B") for i in (1, 2, 3)])))
    assert run.frame["row"].to_list() == [0, 1, 2] and "count from 1" in run.notes[0]
    law = {"metadata": {"subject": "Law"}}
    running = [sample(1, "B"), sample(2, "B"), sample(3, "A", **law), sample(4, "B", **law)]
    (run,) = load_run_argument(str(write_log(path, running)))
    assert "kmmlu/test/3" in run.frame["question_id"].to_list() and "no rows of subjects" in run.notes[0]
    own = [sample(f"Law/test/{i}", "B", metadata={}) for i in (7, 4)]
    (run,) = load_run_argument(str(write_log(path, own, task="kmmlu_law")))
    assert run.frame["question_id"].to_list() == ["Law/test/4", "Law/test/7"]
    assert run.frame["subject"].to_list() == ["Law", "Law"]


def test_epochs_errors_and_what_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "l.eval"
    runs = load_run_argument(str(write_log(path, [sample(0, "B"), sample(0, "A", epoch=2)])))
    assert [(run.name, run.correct) for run in runs] == [("hf/org/m epoch 1", 1), ("hf/org/m epoch 2", 0)]
    failed = write_log(path, [sample(0, "B"), sample(1, None, scores={})], status="error")
    (run,) = load_run_argument(str(failed))
    assert run.total == 1 and "1 of 2 samples have no score" in run.notes[0]
    with pytest.raises(DataError, match="sample 0: is not a multiple-choice sample"):
        load_run_argument(str(write_log(path, [sample(0, "B", target="서울")])))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole zip file"):
        load_run_argument(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("_journal/start.json", "{}")
    with pytest.raises(DataError, match="still running, or was killed"):
        load_run_argument(str(path))


def exported(path: Path, texts: bool = True) -> tuple[Path, Any]:
    frame = predictions(3, sizes={"Law": 6, "Math": 4}, unparsed=0.3)
    run = loaded("some run", frame, model="org/m", num_fewshot=5)
    documents = lm_eval_documents(questions(frame, text="비밀") if texts else None)
    path.write_bytes(inspect_log_bytes(run, frame, documents, TIME))
    return path, frame


@pytest.mark.parametrize("texts", [True, False])
def test_the_export_comes_back_as_it_went(tmp_path: Path, texts: bool) -> None:
    path, frame = exported(tmp_path / "l.eval", texts)
    (run,) = load_run_argument(str(path))
    assert (run.name, run.facts["num_fewshot"], run.facts["model"]) == ("some run", 5, "org/m")
    both = run.frame.sort("question_id"), frame.sort("question_id")
    for name in ("question_id", "subject", "answer", "prediction", "correct", "logprob_A", "logprob_D"):
        assert both[0][name].equals(both[1][name]), name
    with zipfile.ZipFile(path) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
        assert ("비밀".encode() in content) is texts
        assert {"header.json", "summaries.json", "_journal/start.json"} <= set(archive.namelist())
        header = json.loads(archive.read("header.json"))
    assert header["status"] == "success" and header["version"] == 2
    assert header["results"]["scores"][0]["metrics"]["accuracy"]["value"] == frame["correct"].mean()


def test_inspect_itself_opens_the_export(tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="needs inspect_ai (pip install inspect_ai)")
    path, frame = exported(tmp_path / "l.eval")
    read = log.read_eval_log(str(path))
    assert read.status == "success" and len(read.samples) == len(frame)
    one = log.read_eval_log_sample(str(path), id="Law/test/0", epoch=1)
    assert one.target == frame["answer"][0] and one.choices[0] == "보기 A"
    assert len(log.read_eval_log_sample_summaries(str(path))) == len(frame)
