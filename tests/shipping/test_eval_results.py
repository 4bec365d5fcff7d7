"""Results for the hub's leaderboards: only for a registered benchmark, and only for its own tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_runs
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from kmmlu_fast.data.exam_lookup import find_exam
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import load_run_directory
from kmmlu_fast.shipping.eval_results import make_eval_results
from kmmlu_fast.shipping.eval_yaml import make_eval_yaml


@pytest.fixture
def run(tmp_path: Path) -> Run:
    frame = made_runs.predictions(1, skill=0.4)
    return load_run_directory(made_runs.run_directory(tmp_path / "run", "base", frame))


def pretend_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tags: list[str] | None, text: str) -> None:
    file = tmp_path / "eval.yaml"
    file.write_text(text, encoding="utf-8")

    class Api:
        def dataset_info(self, name: str) -> Any:
            if tags is None:
                raise ConnectionError("no network")
            return SimpleNamespace(tags=tags)

        def hf_hub_download(self, *_: Any, **__: Any) -> str:
            return str(file)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)


def test_one_result_per_subject_of_a_registered_benchmark(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_hub(monkeypatch, tmp_path, ["benchmark:official"], make_eval_yaml(find_exam("kmmlu")).value)
    files, sentence = make_eval_results(run, "HAERAE-HUB/KMMLU")
    (data,) = files.values()
    entries = parse_eval_result_entries(yaml.safe_load(data))
    counts = run.scores.select("subject", "correct", "total").iter_rows()
    scores = {subject: 100 * right / total for subject, right, total in counts}
    ids = {subject: subject.lower().replace("-", "_") for subject in scores}
    assert list(files) == [".eval_results/kmmlu.yaml"] and f"{len(scores)} results of base" in sentence
    assert {entry.task_id: entry.value for entry in entries} == {
        ids[subject]: pytest.approx(value, abs=0.006) for subject, value in scores.items()
    }
    pretend_hub(monkeypatch, tmp_path, ["benchmark:official"], "tasks: [{id: all}]")
    (data,) = make_eval_results(run, "HAERAE-HUB/KMMLU")[0].values()
    (whole,) = parse_eval_result_entries(yaml.safe_load(data))
    assert whole.value == pytest.approx(100 * run.micro, abs=0.006)
    for part in ({"limit": 5}, {"subjects": ["Law"]}, {"split": "dev"}):
        some = replace(run, config={**run.config, "config": {**(run.config.get("config") or {}), **part}})
        files, said = make_eval_results(some, "HAERAE-HUB/KMMLU")
        assert files == {} and "covers a part of HAERAE-HUB/KMMLU's test split" in said


@pytest.mark.parametrize(
    ("tags", "text", "sentence"),
    [
        ([], "", "org/data is not a registered benchmark of the hub, so .eval_results/*.yaml is not written"),
        (None, "", "the hub could not be asked whether org/data is a registered benchmark"),
        (["benchmark:official"], "name: x", "its eval.yaml names no task"),
        (["benchmark:official"], "tasks: [{id: a, config: x}, {id: b, config: y}]", "no task that this run"),
    ],
)
def test_otherwise_nothing_is_written_and_why_is_said(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tags: list[str] | None,
    text: str,
    sentence: str,
) -> None:
    pretend_hub(monkeypatch, tmp_path, tags, text)
    files, said = make_eval_results(run, "org/data")
    assert files == {} and sentence in said
