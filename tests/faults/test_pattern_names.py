"""Names that look like patterns, and ``~``, from the command to the finished run: taken as they stand."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from tiny import make_tiny_model

from kmmlu_fast import compare
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import load_run_directory


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``ds[1]`` with the sample's Law, and ``ds1``, which the pattern would find, with other keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    for name in ("ds[1]", "ds1"):
        Path(name).mkdir()
        for split in ("dev", "test"):
            shutil.copyfile(dataset.SAMPLE_DIR / "data" / f"Law-{split}.csv", f"{name}/Law-{split}.csv")
    other = pl.read_csv("ds1/Law-test.csv").with_columns(answer=pl.lit(1))
    other.write_csv("ds1/Law-test.csv")
    make_tiny_model("model[1]")
    return tmp_path


def asked(*flags: str) -> Run:
    argv = ["--model", "./model[1]", "--dataset", "./ds[1]", "--subjects", "Law", *flags]
    [run] = run_evaluation(
        parse_config(EvalConfig, argv, "eval"), lambda adapters, length, path: FakeEngine()
    )
    return run


def test_a_run_from_and_into_names_with_brackets(here: Path) -> None:
    run = asked("--output-dir", "r[1]")
    keys = dataset.load_frame("sample", "test", find_subjects(["Law"]))["answer"].to_list()
    assert run.frame["answer"].to_list() == keys and len(set(keys)) > 1
    assert run.path is not None and run.path.parent.name == "r[1]"
    assert load_run_directory(run.path).frame.equals(run.frame)
    argv = [
        str(run.path),
        str(run.path),
        "--dataset",
        "none",
        "--overlap",
        "none",
        "--json-file",
        "p[1].json",
    ]
    assert compare.run_compare_command(argv) == 0 and Path("p[1].json").is_file()


def test_home_in_yaml_is_home_until_the_run_is_complete(here: Path) -> None:
    Path("c.yaml").write_text("output_dir: ~/runs\n")
    run = asked("--config", "c.yaml")
    assert run.path is not None and run.path.parent == here / "runs" and not Path("~").exists()
