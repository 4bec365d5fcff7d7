"""One rule for every writer: nothing that exists is replaced unasked, an input never, and everything is
checked before work begins.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import polars as pl
import pytest
from made_runs import predictions, run_directory

from kmmlu_fast import compare, leakage, report, sample
from kmmlu_fast.core import files
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.locks import acquire_lock
from kmmlu_fast.core.schema import Prediction
from kmmlu_fast.runs.metrics import Metrics
from kmmlu_fast.runs.store import RunStore, load_run_directory


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path_factory.getbasetemp() / "writers-cache"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a predictions table by the README's name, training rows, scores."""
    monkeypatch.chdir(tmp_path)
    frame = predictions(1)
    table = frame.select(
        pl.col("subject").alias("_config"),
        pl.col("row").alias("_row"),
        "answer",
        pl.col("prediction").alias("m1"),
    )
    table.with_columns(pl.lit("A").alias("m2")).write_csv("predictions.csv")
    Path("t.jsonl").write_text(
        json.dumps({"question": "새 질문", "options": ["가", "나", "다", "라"]}) + "\n", encoding="utf-8"
    )
    Path("s.json").write_text(
        json.dumps(
            [{"subject": "Law", "correct": 1, "total": 9}, {"subject": "Math", "correct": 8, "total": 9}]
        )
    )
    Path("README.md").write_text("mine")
    return tmp_path


PARTS = {"model": "m"}


def prediction(row: int, letter: str = "A") -> Prediction:
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
    )


def open_store(root: Path, overwrite: bool = False) -> RunStore:
    return RunStore(root, "name", PARTS, {"config": {}}, overwrite)


def digest(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.is_file()}


RUNS = ["predictions.csv:m1", "predictions.csv:m2", "--overlap", "none", "--dataset", "none"]
DRAWN = ["--from", "s.json", "--dataset", "sample", "--subjects", "Law,Math", "--size", "4"]


@pytest.mark.parametrize(
    ("main", "argv", "message"),
    [
        (
            report.run_report_command,
            [*RUNS, "--export", "csv"],
            "predictions.csv: is an input of this command",
        ),
        (
            report.run_report_command,
            [*RUNS, "--export", "csv", "--overwrite"],
            "predictions.csv: is an input of this command",
        ),
        (
            compare.run_compare_command,
            [*RUNS, "--json-file", "predictions.csv", "--overwrite"],
            "is an input",
        ),
        (
            compare.run_compare_command,
            [*RUNS, "--json-file", "README.md"],
            "README.md: exists; give another name, or --overwrite",
        ),
        (
            leakage.run_leakage_command,
            ["t.jsonl", "--dataset", "sample", "--output", "t.jsonl"],
            "is an input",
        ),
        (leakage.run_leakage_command, ["t.jsonl", "--dataset", "sample", "--output", "README.md"], "exists"),
        (
            report.run_report_command,
            [*RUNS, "--output", "README.html", "--figures", "t.jsonl"],
            "cannot be written",
        ),
        (sample.run_sample_command, [*DRAWN, "--out", "README.jsonl"], "README.md: exists"),
        (sample.run_sample_command, [*DRAWN, "--out", "x.md"], "would be written twice"),
        (sample.run_sample_command, [*DRAWN, "--out", "s.json", "--overwrite"], "is an input"),
        (sample.run_sample_command, [*DRAWN, "--out", "s.json/x.jsonl"], "cannot be written"),
        (sample.run_sample_command, [*DRAWN, "--out", "."], "names no file"),
        (report.run_report_command, [*RUNS, "--output", "~nosuchuser/r.html"], "no such user"),
    ],
)
def test_what_is_in_the_way_stays(
    here: Path, main: object, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest(here)
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert message in err and len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert digest(here) == before


def test_overwrite_replaces_what_is_no_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.run_compare_command([*RUNS, "--json-file", "new/pair.json"]) == 0
    assert compare.run_compare_command([*RUNS, "--json-file", "new/pair.json"]) == 2
    assert compare.run_compare_command([*RUNS, "--json-file", "new/pair.json", "--overwrite"]) == 0
    assert (
        sample.run_sample_command([*DRAWN, "--out", "a.jsonl"]) == 0
        and sample.run_sample_command([*DRAWN, "--out", "a.jsonl"]) == 2
    )
    assert sample.run_sample_command([*DRAWN, "--out", "a.jsonl", "--overwrite"]) == 0
    assert not list(here.rglob("*.partial")) and not list(here.rglob("*.journal"))


def test_an_output_is_checked_before_any_work(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr("kmmlu_fast.sampling.job.read_weakness_source", never)
    monkeypatch.setattr("kmmlu_fast.reporting.inputs.load_all_runs", never)
    assert sample.run_sample_command([*DRAWN, "--out", "README.jsonl"]) == 2
    assert report.run_report_command([*RUNS, "--export", "csv"]) == 2


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out.json").symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigError, match="exists"):
        files.claim_outputs([tmp_path / "out.json"])
    files.write_json_atomically(tmp_path / "out.json", {"a": 1})
    assert (tmp_path / "mine").read_text() == "mine" and not (tmp_path / "out.json").is_symlink()
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists"):
        files.claim_outputs([tmp_path / "gone.json"])


def test_a_hard_or_relative_name_of_an_input_is_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text("x")
    os.link(tmp_path / "in", tmp_path / "other")
    (tmp_path / "sub").mkdir()
    for name in ("other", "sub/../in"):
        with pytest.raises(ConfigError, match="is an input"):
            files.claim_outputs([Path(name)], [tmp_path / "in"], overwrite=True)


def test_temporary_names_are_nobodys(tmp_path: Path) -> None:
    names = {files.partial_name("가" * 300) for _ in range(100)}
    assert len(names) == 100 and all(len(name.encode()) < 200 for name in names)
    (tmp_path / "x.partial").write_text("mine")
    files.write_bytes_atomically(tmp_path / "x", b"data")
    assert (tmp_path / "x.partial").read_text() == "mine"


def test_files_that_a_kill_left_are_known_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    real = Path.replace

    def dies(self: Path, target: Path) -> Path:
        if Path(target) == a:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        files.write_files_together({a: b"1", b: b"2"})
    monkeypatch.undo()
    assert b.exists() and not a.exists()
    files.claim_outputs([a, b])
    b.write_bytes(b"somebody's")
    with pytest.raises(ConfigError, match="exists"):
        files.claim_outputs([a, b])


def test_run_names_in_korean_do_not_share_a_folder() -> None:
    assert files.distinct_slugs(["기본", "어댑터", "a/b", "a b", "A b", "..", "x" * 300]) == [
        "기본",
        "어댑터",
        "a-b",
        "a-b-2",
        "A-b-3",
        "x",
        "x" * 80,
    ]


def test_lm_eval_exports_of_korean_names_are_all_there(tmp_path: Path) -> None:
    runs = [run_directory(tmp_path / name, name, predictions(i)) for i, name in enumerate(("기본", "조정"))]
    argv = [
        *map(str, runs),
        "--output",
        str(tmp_path / "r.html"),
        "--export",
        "lm-eval",
        "--overlap",
        "none",
        "--dataset",
        "none",
    ]
    assert report.run_report_command(argv) == 0
    assert len(list((tmp_path / "lm-eval").glob("*/results_*.json"))) == 2


def test_overwrite_keeps_the_old_run_until_the_new_one_is_complete(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    first.append(prediction(0))
    first.finish(["Law/test/0"], lambda frame: Metrics(num_questions=1), {})
    again = open_store(tmp_path, overwrite=True)
    assert load_run_directory(first.path).metrics == Metrics(num_questions=1) and again.answered == set()
    again.append(prediction(0, "B"))
    again.close()  # killed here, the old run is what it was, and the same command goes on
    assert load_run_directory(first.path).metrics == Metrics(num_questions=1)
    once_more = open_store(tmp_path, overwrite=True)
    assert once_more.answered == {"Law/test/0"}
    run = once_more.finish(["Law/test/0"], lambda frame: Metrics(num_questions=2), {})
    assert (
        run.path == first.path
        and load_run_directory(first.path).metrics == Metrics(num_questions=2)
        and run.frame["prediction"].to_list() == ["B"]
    )
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")) == [first.path.name]


def test_a_kill_before_config_json_does_not_stop_the_next_start(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.close()
    folder = store.path
    (folder / "config.json").unlink()
    (folder / ".config.json.0.partial").write_bytes(b"{")
    assert open_store(tmp_path).answered == set() and not list(folder.glob("*.partial"))


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.append(prediction(0))
    store.close()
    (part,) = (store.path / "predictions").iterdir()
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(RunError, match=r"part-00000\.parquet: .*--overwrite"):
        open_store(tmp_path)
    assert open_store(tmp_path, overwrite=True).answered == set()


def test_locks_are_one_writers_and_links_are_not_followed(tmp_path: Path) -> None:
    refusal = RunError("in use")
    held = acquire_lock(tmp_path / "l", refusal)
    with pytest.raises(RunError, match="in use"):
        acquire_lock(tmp_path / "l", refusal)
    held.close()
    acquire_lock(tmp_path / "l", refusal).close()
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(RunError, match="is a link"):
        acquire_lock(tmp_path / "link", refusal)
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_link_in_a_runs_place_is_not_followed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.close()
    place = store.path
    elsewhere = tmp_path / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    with pytest.raises(RunError, match="is a link"):
        RunStore(tmp_path, "name", PARTS, {"config": {}})
