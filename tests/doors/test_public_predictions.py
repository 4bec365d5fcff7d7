"""scripts/public_predictions.py: a folder of public results becomes a table that compare reads."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.runs.loading import load_all_runs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "public_predictions.py"))


def write_results(folder: Path, name: str, letters: str, key: str = "AB") -> None:
    rows = [
        f"{subject},{answer},{letter},text"
        for subject, answer, letter in zip(("Law", "Real Estate"), key, letters.split(","), strict=True)
    ]
    (folder / f"{name}.csv").write_text("category,answer,pred,response\n" + "\n".join(rows), encoding="utf-8")


def test_a_table_of_letters(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path, "[KMMLU] first model", "A,C")
    write_results(tmp_path, "[KMMLU] second", "FILTERED,B")
    write_results(tmp_path, "[KMMLU] other-key", "A,B", key="AA")
    write_results(tmp_path, "[KMMLU-HARD] hard", "A,B")
    assert script["main"]([str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "question_id,answer,first-model,second",
        "Law/test/0,A,A,",
        "Real-Estate/test/0,B,C,B",
    ]
    assert err == "left out, other questions or keys: [KMMLU] other-key.csv\n"
    table = tmp_path / "table.csv"
    table.write_text(out, encoding="utf-8")
    first, second = load_all_runs([f"{table}:first-model", f"{table}:second"])
    assert (first.scores["correct"].sum(), second.scores["correct"].sum()) == (1, 1)


def test_a_folder_without_results_is_named(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script["main"]([str(tmp_path)]) == 2
    assert "give the folder results" in capsys.readouterr().err
