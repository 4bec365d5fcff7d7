"""The table that eval leaves on the terminal, in both languages."""

import json
import re
from pathlib import Path

import pytest
from made_runs import predictions, run_directory

from kmmlu_fast.analysis import accuracy as analysis
from kmmlu_fast.reporting import summary
from kmmlu_fast.runs import run, store


def finished(folder: Path) -> run.Run:
    frame = predictions(1)
    path = run_directory(folder / "base", "base", frame)
    speed = {"questions": 200, "seconds": 12.5, "questions_per_sec": 16.0, "prompt_tokens_per_sec": 1600.0}
    extra = {
        "speed": speed,
        "engine": {"start_sec": 3.2, "prefix_cache_hit_rate": 0.25},
        "forced": 7,
        "accuracy_without_forced": 0.5,
    }
    (path / "metrics.json").write_text(json.dumps({**analysis.summarise(frame), **extra}), encoding="utf-8")
    return store.load_run(path)


def test_english(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path)
    summary.print_summary([run])
    out = capsys.readouterr().out
    assert (
        "KMMLU, 200 questions of 4 subjects, accuracy in %" in out
        and f"{100 * run.metrics['micro']['accuracy']:.2f}" in out
    )
    assert "letter shares in %: a model that favours one letter fools its accuracy" in out
    assert "base: 7 answers forced; accuracy with these counted wrong 50.00" in out
    assert "engine start 3.2 s; prefix cache hit rate 25.0%" in out and out.rstrip().endswith(
        f"run directory: {run.path}"
    )


def test_korean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary.print_summary([finished(tmp_path)], "ko")
    out = capsys.readouterr().out
    assert (
        "4개 과목 200문항 정확도(%)" in out
        and "취약 과목" in out
        and "강제 응답 7개" in out
        and "실행 디렉터리" in out
    )
    assert not re.search("questions|letter|weakest|cache", out)
