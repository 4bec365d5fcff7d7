"""Outputs of other programs: read where they can be, otherwise named with the way to convert them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made_runs import predictions, run_directory

from kmmlu_fast.core.errors import DataError, RunError
from kmmlu_fast.runs.loading import load_run_argument
from kmmlu_fast.runs.readers.registry import READERS


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_readers_have_names_of_their_own() -> None:
    assert len({reader.program for reader in READERS}) == len(READERS)


def test_hret_scores_by_subject(tmp_path: Path) -> None:
    entries = [
        {
            "input": "물음",
            "reference": "A",
            "prediction": "x",
            "_subset_name": name,
            "evaluation": {"is_correct": right},
        }
        for name, right in (("Law", True), ("Law", False), ("Math", True))
    ]
    (run,) = load_run_argument(
        str(write(tmp_path / "h.json", {"samples": entries, "info": {"model_name": "m"}}))
    )
    assert (run.name, run.scores["correct"].to_list(), run.scores["total"].to_list()) == ("m", [1, 1], [2, 1])
    assert "HRET numbers no questions" in run.notes[0]
    with pytest.raises(DataError, match="sample 0: is HRET's, but has no _subset_name"):
        load_run_argument(
            str(write(tmp_path / "h.json", {"samples": [{"reference": "A", "prediction": "B"}]}))
        )


def test_evalscope_and_lighteval(tmp_path: Path) -> None:
    subsets = [{"name": "Law", "score": 0.5, "num": 4}, {"name": "Math", "score": 1.0, "num": 2}]
    metrics = [{"name": "acc", "categories": [{"subsets": subsets}]}]
    path = write(tmp_path / "e.json", {"dataset_name": "kmmlu", "model_name": "m", "metrics": metrics})
    assert load_run_argument(str(path))[0].correct == 4
    document = {
        "config_general": {"model_name": "m"},
        "results": {"community|kmmlu:Law|0": {"acc": 0.5}, "all": {"acc": 0.5}},
        "summary_tasks": {"community|kmmlu:Law|0": {"effective_num_docs": 6}},
    }
    folder = tmp_path / "l"
    write(folder / "results_2026-01-01T00-00-00.json", document)
    (run,) = load_run_argument(str(folder))
    assert (run.name, run.correct, run.total) == ("m", 3, 6)
    document["results"] = {"leaderboard|gsm8k|0": {"em": 0.5}}
    with pytest.raises(DataError, match="results file of lighteval without KMMLU subjects"):
        load_run_argument(str(write(folder / "results_2026-01-01T00-00-00.json", document)))


def test_opencompass_and_wandb_are_named(tmp_path: Path) -> None:
    entry = {"origin_prompt": "x", "prediction": "A", "gold": "B"}
    path = write(tmp_path / "oc" / "predictions" / "m" / "law.json", {"0": entry})
    (tmp_path / "oc" / "summary").mkdir()
    (tmp_path / "oc" / "summary" / "s.csv").write_text("dataset,version,metric,mode,m\nlaw,1,acc,gen,50\n")
    for place in (path, tmp_path / "oc", tmp_path / "oc" / "summary" / "s.csv"):
        with pytest.raises(RunError, match=r"is output of OpenCompass.*_config"):
            load_run_argument(str(place))
    folder = tmp_path / "wandb" / "run-1"
    rows = {
        "columns": ["_config", "_row", "answer", "m"],
        "data": [["Law", 0, "A", "A"], ["Law", 1, "B", "(C)"]],
    }
    table = write(folder / "files" / "media" / "table" / "t.table.json", rows)
    (folder / "run-1.wandb").write_bytes(b"x")
    for place in (tmp_path / "wandb", folder):
        with pytest.raises(RunError, match=r"name one of its tables: .*t\.table\.json"):
            load_run_argument(str(place))
    assert load_run_argument(str(table))[0].frame["prediction"].to_list() == ["A", "C"]


def test_a_folder_of_runs_says_so(tmp_path: Path) -> None:
    run_directory(tmp_path / "runs" / "one", "one", predictions(1))
    with pytest.raises(RunError, match=r"it holds run directories: give .*runs/one"):
        load_run_argument(str(tmp_path / "runs"))
    with pytest.raises(RunError, match="is one run; leave out :x"):
        load_run_argument(f"{tmp_path / 'runs' / 'one'}:x")


FIELD: dict[str, Any] = {
    "lmeval_two_models": [(6, 24), (2, 8)],
    "lmeval_two_shot_counts": [(6, 24), (2, 8)],
    "lmeval_predict_only": [(11, 24)],
    "lmeval_two_groups": [(12, 24), (6, 24)],
    "lmeval_hard": [(11, 24)],
    "lmeval_two_filters": "strict-match, flexible-extract",
    "lmeval_two_filters:flexible-extract": [(18, 24)],
    "lmeval_named_filter": [(12, 24)],
    "lmeval_040": [(11, 24)],
    "lmeval_own_task": [(11, 24)],
    "flat.json": "not over how many questions",
    "sentences.csv": "holds no letters",
}
SIX_OF_EIGHT = (
    *("inspect_log.json", "wandb.table.json", "hret.json", "lighteval", "evalscope.json"),
    *("predictions.parquet", "subject_row.csv", "acc_n.csv", "percent.csv", "more_columns.csv"),
    *("brackets.csv", "dotted.csv"),
)
FIELD |= {name: [(6, 8)] for name in SIX_OF_EIGHT}


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(__file__).parents[4] / "shared" / "field"
    if not folder.is_dir():
        pytest.skip("needs the field cases, which are not part of the repository")
    out = tmp_path_factory.mktemp("field")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, str(folder / "peers.py"), str(out)], check=True, env=environment)
    return out / "peers"


@pytest.mark.parametrize("name", FIELD)
def test_field_cases(field: Path, name: str) -> None:
    expected = FIELD[name]
    if isinstance(expected, str):
        with pytest.raises((RunError, DataError), match=expected):
            load_run_argument(str(field / name))
    else:
        assert [(run.correct, run.total) for run in load_run_argument(str(field / name))] == expected


def test_every_file_that_is_read_is_protected(tmp_path: Path) -> None:
    from kmmlu_fast.runs.loading import run_input_files

    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "t.parquet")
    write(tmp_path / "lm" / "m" / "mine_2026-01-01T00-00-00.json", {})
    files = run_input_files([f"{tmp_path / 't.parquet'}:a", str(tmp_path / "lm")])
    assert {file.name for file in files} == {"t.parquet", "mine_2026-01-01T00-00-00.json"}
