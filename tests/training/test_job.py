"""train: what is refused before anything heavy starts, settings files that are valid, and the
card's words.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast import train
from kmmlu_fast.command import flags
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.training import job
from kmmlu_fast.training.card import model_card
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.inputs import read_training_inputs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows of the packaged sample's train split."""
    path = tmp_path_factory.mktemp("data") / "sft.jsonl"
    questions = dataset.load_questions("sample", "train", find_subjects(["STEM"]))[:24]
    sft.write_sft_rows(path, [sft.SftRow(question=question, strategy="uniform") for question in questions])
    return path


@pytest.fixture(autouse=True)
def nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every refusal comes before Unsloth is imported."""
    monkeypatch.setitem(sys.modules, "unsloth", None)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert train.run_train_command([str(a) for a in arguments]) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1 and "Traceback" not in message
    return message


def test_a_finished_adapter_is_never_overwritten(capsys: Any, tmp_path: Path, rows: Path) -> None:
    (tmp_path / "kmmlu_fast.json").write_text("{}")
    said = refusal(capsys, "--data", rows, "--output-dir", tmp_path, "--dataset", "sample")
    assert "holds a finished adapter, which is never overwritten; give another directory" in said


def test_an_unfinished_training_wants_resume(capsys: Any, tmp_path: Path, rows: Path) -> None:
    (tmp_path / "training.json").write_text("{}")
    assert "give --resume to continue it" in refusal(
        capsys, "--data", rows, "--output-dir", tmp_path, "--dataset", "sample"
    )


def test_a_foreign_directory_is_left_alone(capsys: Any, tmp_path: Path, rows: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "is not empty and holds no training" in refusal(
        capsys, "--data", rows, "--output-dir", tmp_path, "--resume"
    )
    assert "is a file; give a directory" in refusal(
        capsys, "--data", rows, "--output-dir", tmp_path / "thesis.txt"
    )


def test_resume_names_every_setting_that_differs(capsys: Any, tmp_path: Path, rows: Path) -> None:
    settings = TrainConfig(data=rows, output_dir=tmp_path).result_settings() | {"learning_rate": 0.1, "r": 8}
    (tmp_path / "training.json").write_text(json.dumps({"settings": settings, "data_digest": "other"}))
    for name in ("kmmlu_fast.json", "adapter_config.json"):
        (tmp_path / name).write_text("{}")
    said = refusal(capsys, "--data", rows, "--output-dir", tmp_path, "--resume", "--dataset", "sample")
    assert "learning_rate (0.1 there, 0.0002 here), r (8 there, 16 here), data_digest ('other' there" in said


def test_rows_from_the_test_split_are_refused(capsys: Any, tmp_path: Path) -> None:
    path = tmp_path / "leaked.jsonl"
    train_questions = dataset.load_questions("sample", "train", find_subjects(["Math"]))
    leaked = dataset.load_questions("sample", "test", find_subjects(["Math"]))[:2]
    sft.write_sft_rows(
        path, [sft.SftRow(question=question, strategy="uniform") for question in [*train_questions, *leaked]]
    )
    said = refusal(
        capsys,
        "--data",
        path,
        "--output-dir",
        tmp_path / "lora",
        "--dataset",
        "sample",
        "--held-out",
        "0",
        "--keep",
        "last",
    )
    assert "2 rows overlap sample test" in said and "--allow-leakage" in said
    assert not (tmp_path / "lora").exists()


def test_leaks_are_let_through_on_request_and_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="kmmlu_fast")
    path = tmp_path / "leaked.jsonl"
    leaked = dataset.load_questions("sample", "test", find_subjects(["Math"]))[:2]
    sft.write_sft_rows(path, [sft.SftRow(question=question, strategy="uniform") for question in leaked])
    settings = {"data": path, "dataset": "sample", "allow_leakage": True, "held_out": 0, "keep": "last"}
    found = read_training_inputs(TrainConfig.model_validate(settings)).leaks
    assert found["rows_flagged"] == 2 and found["allowed"] is True
    assert "warning: 2 rows overlap sample test" in caplog.text


def test_held_out_data_must_not_be_trained_on(capsys: Any, tmp_path: Path, rows: Path) -> None:
    said = refusal(
        capsys,
        "--data",
        rows,
        "--held-out-data",
        rows,
        "--output-dir",
        tmp_path / "lora",
        "--dataset",
        "sample",
    )
    assert "24 rows are in --data too" in said


def test_too_few_rows_to_hold_any_out(capsys: Any, tmp_path: Path, rows: Path) -> None:
    short = tmp_path / "short.jsonl"
    short.write_text("".join(rows.read_text().splitlines(keepends=True)[:3]))
    said = refusal(capsys, "--data", short, "--output-dir", tmp_path / "lora", "--dataset", "sample")
    assert "3 rows are too few to hold any out" in said and "--held-out 0 --keep last" in said


def test_all_faults_of_the_settings_come_at_once(capsys: Any) -> None:
    said = refusal(capsys, "--learning-rate", "-1", "--r", "0", "--too-long", "shorten", "--epochs", "3")
    for part in ("--learning-rate", "--r '0'", "--too-long 'shorten'", "--epochs", "--data is required"):
        assert part in said
    said = refusal(
        capsys,
        "--data",
        "x",
        "--micro-batch",
        "3",
        "--held-out",
        "0",
        "--early-stopping",
        "2",
        "--model",
        "a.gguf",
    )
    for part in (
        "--model a.gguf: a GGUF file is only asked",
        "--micro-batch 3 must divide --effective-batch 16",
        "--keep best-loss needs held-out rows",
        "--early-stopping needs held-out rows",
    ):
        assert part in said


@pytest.mark.parametrize("name", ["train.yaml", "train_demo.yaml"])
def test_settings_files_are_valid_and_headed_by_their_command(name: str) -> None:
    path = ROOT / "configs" / name
    assert path.read_text().startswith(f"# python -m kmmlu_fast.train --config configs/{name} ")
    found = flags.parse_config(TrainConfig, ["--config", str(path), "--data", "sft.jsonl"], prog="train")
    assert (
        found.rotate_options and found.r == 16 and found.lora_alpha == 16 and len(found.target_modules) == 7
    )


def test_a_small_model_in_four_bit_is_warned_of() -> None:
    [small] = job.precision_warnings(TrainConfig(data=Path("x")), 270_000_000)
    assert "give --no-load-in-4bit" in small and "0.27 B" in small
    assert job.precision_warnings(TrainConfig(data=Path("x")), 7_300_000_000) == []
    assert job.precision_warnings(TrainConfig(data=Path("x"), load_in_4bit=False), 270_000_000) == []


def test_the_issue_s_defaults() -> None:
    found = TrainConfig(data=Path("x"))
    assert (
        found.r,
        found.lora_alpha,
        found.num_train_epochs,
        found.learning_rate,
        found.effective_batch,
    ) == (16, 16, 3, 2e-4, 16)


def test_where_a_run_stands_does_not_decide_what_it_is() -> None:
    here = TrainConfig(data=Path("a"), output_dir=Path("b"), resume=True)
    assert (
        here.result_settings()
        == TrainConfig(data=Path("c"), output_dir=Path("d"), report_to=["tensorboard"]).result_settings()
    )
    assert here.result_settings() != TrainConfig(data=Path("a"), seed=7).result_settings()


def test_the_model_card_says_warnings_and_leaks() -> None:
    held = {
        "step": 4,
        "loss": 1.2,
        "num_rows": 8,
        "accuracy": 0.25,
        "balanced_accuracy": 0.3,
        "letter_share": dict.fromkeys("ABCD", 0.25),
    }
    card = {
        "base_model": {"name": "org/base"},
        "prompt_style": "qa",
        "template_digest": "0123456789abcdef",
        "fingerprint": "f" * 16,
        "data": {
            "file": "sft.jsonl",
            "digest": "d" * 64,
            "rows_trained": 10,
            "rows_held_out": 8,
            "answers": dict.fromkeys("ABCD", 5),
            "too_long": {"max_seq_length": 512, "rows_too_long": 3, "policy": "truncate"},
            "leakage": {"against": "x test", "rows_flagged": 2},
        },
        "hyperparameters": {"r": 16},
        "versions": {"torch": "2"},
        "warnings": ["letter collapse: 80%"],
        "memory": {"peak_bytes": 2**30, "planned_bytes": 2**31},
        "metrics": {
            "held_out_rows": 8,
            "base": held,
            "kept": {**held, "difference": 0.1, "difference_low": -0.2, "difference_high": 0.3},
            "steps": 4,
            "tokens": 100,
            "train_sec": 1.0,
            "tokens_per_sec": 100.0,
            "device": "CPU",
            "trainable_parameters": 1,
            "total_parameters": 200,
            "four_bit": True,
            "dtype": "bfloat16",
        },
    }
    text = model_card(card)
    for part in (
        "base_model: org/base",
        "**Warning:** letter collapse: 80%",
        "2 rows flagged and trained on anyway",
        "rows over 512 tokens: 3 (truncate)",
        "peak memory 1.00 GiB, planned 2.00 GiB",
        "| adapter (step 4) | 1.2000 | 0.250 | +0.100 (-0.200 to +0.300, valid over all measurements) |",
        "| base | 1.2000 | 0.250 |  | 0.300 |",  # as every row of an older card
        "(0.50%)",
    ):
        assert part in text
