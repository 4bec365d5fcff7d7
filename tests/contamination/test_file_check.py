"""What ``leakage`` prints and answers for clean files, overlapping files and a dataset's own train split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmmlu_fast.contamination.config import LeakageConfig
from kmmlu_fast.contamination.file_check import check_training_files
from kmmlu_fast.data.dataset import load_questions


def write_rows(path: Path, texts: list[str]) -> Path:
    rows = [json.dumps({"instruction": text, "output": "A"}, ensure_ascii=False) for text in texts]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_the_files_that_overlap_are_named_and_their_ids_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = load_questions("sample", "test")[7]
    clean = write_rows(tmp_path / "clean.jsonl", ["오늘 점심에는 국수를 먹었고 저녁에는 산책을 했습니다."])
    dirty = write_rows(tmp_path / "dirty.jsonl", [f"{question.question} {' '.join(question.options)}"])
    assert not check_training_files(LeakageConfig(train_file=[clean], dataset="sample"))
    assert f"{clean}: 1 rows; 0 of them overlap 0 of" in capsys.readouterr().out
    output = tmp_path / "ids.json"
    assert check_training_files(LeakageConfig(train_file=[clean, dirty], dataset="sample", output=output))
    printed = capsys.readouterr().out
    assert f"{dirty}: 1 rows; 1 of them overlap 1 of" in printed and question.question_id in printed
    assert question.question_id in output.read_text(encoding="utf-8")


def test_overlap_within_the_dataset_is_shown_and_is_no_fault_of_a_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not check_training_files(LeakageConfig(dataset="sample"))
    assert capsys.readouterr().out.startswith("sample train: ")
