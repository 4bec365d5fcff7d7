"""Exams other than KMMLU through the whole evaluation with a fake engine: run names, letters, several in one
engine, licences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from exam_files import write_exam, write_jsonl
from tiny import make_tiny_adapter

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import OPTION_COLUMNS
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.runs.store import load_run_directory


@pytest.fixture(scope="module")
def model(ten_letter_model: Path) -> Path:
    return ten_letter_model


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exam of one's own, 2 to 10 options from row to row."""
    rows = [
        {
            "question": f"{i}번째 물음",
            "options": [f"{place}번 답" for place in range(2 + i % 9)],
            "answer": "AB"[i % 2],
            "subject": ("산수", "국어")[i % 2],
        }
        for i in range(45)
    ]
    return write_jsonl(tmp_path_factory.mktemp("own") / "mixed.jsonl", rows)


def run(model: Path, root: Path, *flags: str, engine: FakeEngine | None = None) -> list[Any]:
    argv = ["--model", str(model), "--output-dir", str(root), "--adapter-mode", "serve", *flags]
    return run_evaluation(
        parse_config(EvalConfig, argv, "eval"), lambda adapters, length, path: engine or FakeEngine()
    )


def counts(frame: pl.DataFrame) -> list[int]:
    lengths = pl.coalesce(
        pl.col("option_logprobs"), pl.concat_list("^logprob_.$").list.drop_nulls()
    ).list.len()
    return frame.select(lengths).to_series().to_list()


def test_a_mixed_exam_of_ones_own(model: Path, mixed: Path, tmp_path: Path) -> None:
    (found,) = run(model, tmp_path, "--exam", str(mixed))
    frame = found.predictions
    assert len(frame) == 45 and frame["num_options"].to_list() == [2 + i % 9 for i in range(45)] == counts(
        frame
    )
    assert found.path.name.startswith("base-base-mixed-test-lmeval-0shot-mc-")
    assert (
        found.config["exam"]["licence"] == "your own" and found.config["fingerprint_parts"]["exam"] == "mixed"
    )
    assert found.metrics.to_json()["baselines"]["uniform"] == pytest.approx(
        sum(1 / (2 + i % 9) for i in range(45)) / 45
    )
    assert set(found.metrics.to_json()["subjects"]) == {"산수", "국어"}
    assert load_run_directory(found.path).predictions.equals(frame)


def test_a_kmmlu_run_on_disk_has_the_columns_it_had(model: Path, tmp_path: Path) -> None:
    (found,) = run(model, tmp_path, "--dataset", "sample", "--subjects", "Law")
    stored = pl.read_parquet(found.path / "predictions.parquet")
    assert not set(OPTION_COLUMNS) & set(stored.columns)
    assert found.predictions["num_options"].unique().to_list() == [4]
    assert found.metrics.to_json()["baselines"]["uniform"] == 0.25
    assert found.config["exam"] | {"dataset": "sample"} == found.config["exam"]
    assert found.config["exam"]["licence"] == "CC-BY-ND-4.0"


@pytest.mark.parametrize(
    "flags",
    [
        ("--rotations", "all"),
        ("--output-type", "generate_until"),
        ("--output-type", "cot"),
        ("--prompt-style", "chat"),
    ],
)
def test_every_method_takes_a_mixed_exam(
    flags: tuple[str, ...], model: Path, mixed: Path, tmp_path: Path
) -> None:
    engine = FakeEngine(text="풀이\n정답: E\n") if "cot" in flags else FakeEngine(text="E")
    (found,) = run(model, tmp_path, "--exam", str(mixed), *flags, engine=engine)
    frame = found.predictions
    assert len(frame) == 45
    if "all" in flags:
        assert frame["debiased_logprobs"].list.len().to_list() == frame["num_options"].to_list()
    if "generate_until" in flags:
        assert frame.filter(pl.col("num_options") < 5)["prediction"].null_count() == len(
            frame.filter(pl.col("num_options") < 5)
        )
    if "cot" in flags:
        assert set(frame.filter(pl.col("num_options") >= 5)["prediction"]) == {"E"}
        assert frame.filter(pl.col("num_options") < 5)["forced"].all()


def test_several_exams_share_one_engine_and_one_adapter(model: Path, mixed: Path, tmp_path: Path) -> None:
    lora = make_tiny_adapter(model, tmp_path / "lora")
    opened: list[int] = []

    def open_engine(adapters: list[Any], length: int, path: str | None) -> FakeEngine:
        opened.append(length)
        return FakeEngine()

    click = write_exam(tmp_path / "click", "click", 12)
    argv = [
        "--model",
        str(model),
        "--output-dir",
        str(tmp_path / "runs"),
        "--adapter-mode",
        "serve",
        "--adapter",
        str(lora),
    ]
    argv += [
        "--exam",
        "kmmlu",
        "--exam",
        "click",
        "--exam",
        str(mixed),
        "--limit",
        "3",
        "--dataset",
        f"kmmlu=sample,click={click}",
    ]
    found = run_evaluation(parse_config(EvalConfig, argv, "eval"), open_engine)
    assert len(opened) == 1
    names = [(one.config["exam"]["name"], (one.config["adapter"] or {}).get("name")) for one in found]
    assert names == [(exam, state) for exam in ("kmmlu", "click", "mixed") for state in (None, "lora")]
    assert len({one.path for one in found}) == 6
    assert all(one.metrics.to_json()["adapter_shift"]["largest_nats"] > 0 for one in found[1::2])
    assert set(found[2].predictions["num_options"]) == {4, 5}
    again = run_evaluation(parse_config(EvalConfig, argv, "eval"), open_engine)
    assert [one.path for one in again] == [one.path for one in found] and len(opened) == 1  # all reused


def test_examples_come_from_the_declared_split(model: Path, tmp_path: Path) -> None:
    folder = write_exam(tmp_path / "kormed", "kormedmcqa", 10)
    with pytest.raises(ConfigError, match="CLIcK has no dev split"):
        run(
            model,
            tmp_path,
            "--exam",
            "click",
            "--num-fewshot",
            "2",
            "--dataset",
            str(write_exam(tmp_path / "click", "click", 5)),
        )
    rows = (folder / "doctor" / "test.jsonl").read_text(encoding="utf-8")
    (folder / "doctor" / "fewshot.jsonl").write_text(
        "".join(rows.splitlines(keepends=True)[:3]), encoding="utf-8"
    )
    one, other = (
        run(
            model,
            tmp_path,
            "--exam",
            "kormedmcqa",
            "--num-fewshot",
            shots,
            "--dataset",
            str(folder),
            "--limit",
            "4",
        )[0]
        for shots in ("0", "2")
    )
    assert (other.predictions["prompt_tokens"] > one.predictions["prompt_tokens"] + 50).all()


def test_wrong_names_are_reported(model: Path, mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean click"):
        run(model, tmp_path, "--exam", "clik")
    with pytest.raises(ConfigError, match="is given twice"):
        run(model, tmp_path, "--exam", "kmmlu", "--exam", "kmmlu")
    with pytest.raises(ConfigError, match="is not one of the exams"):
        run(model, tmp_path, "--exam", "click", "--dataset", "kobest=x")
    with pytest.raises(ConfigError, match=r"has .*국어"):
        run(model, tmp_path, "--exam", str(mixed), "--subjects", "Law")
