"""The table that eval leaves on the terminal, in both languages."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import predictions, run_directory
from rich.cells import cell_len

from kmmlu_fast.analysis import accuracy as analysis
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.reporting.terminal import summary
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.reasoning_text import reasoning_lines
from kmmlu_fast.runs import run, store
from kmmlu_fast.runs.metrics import Reasoning


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
    (path / "metrics.json").write_text(
        json.dumps({**analysis.summarise_predictions(frame).to_json(), **extra}), encoding="utf-8"
    )
    return store.load_run_directory(path)


def test_english(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished(tmp_path)
    summary.print_summary([run])
    out = capsys.readouterr().out
    assert "KMMLU, 200 questions in 4 subjects, accuracy in %" in out and f"{100 * run.micro:.2f}" in out
    assert "letter shares in %: favouring one letter distorts accuracy" in out
    assert "base: 7 answers forced; accuracy counting them as wrong 50.00" in out
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


def test_of_few_questions_no_subject_is_called_weak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(tmp_path)
    assert run.path is not None
    summary.print_summary([run])
    assert "weakest subjects" in (out := capsys.readouterr().out) and "majority per subject" in out
    found = run.metrics.to_json()["subjects"]
    few = {name: {**score, "total": 19} for name, score in found.items()}
    summary.print_summary([replace(run, metrics=run.metrics.add_parts(subjects=few))])
    assert "weakest subjects" not in (out := capsys.readouterr().out) and "majority per subject" not in out


def test_what_reasoning_bought_is_told_in_korean_too() -> None:
    way = {"below": None, "accuracy": 0.5, "reasoned": 4, "output_tokens": 40, "estimated": False}
    shares = dict.fromkeys("ABCD", 0.25)
    result = {
        "read_by": {"strict": 3, "lenient": 0, "forced": 1, "unparsed": 0, "direct": 0},
        "rungs": {},
        "ways": [{**way, "way": "direct", "seconds": None}, {**way, "way": "full", "seconds": 2.0}],
        "samples": {
            **dict.fromkeys(("accuracy_first_sample", "accuracy_majority", "accuracy_any_sample"), 0.5),
            "num_samples": 4,
            "agreement": 0.75,
        },
        "rotations": {
            "accuracy_raw": 0.5,
            "accuracy_debiased": 0.25,
            "changed": 1,
            **{f"letter_share_{name}": shares for name in ("raw", "debiased", "answer")},
        },
    }
    english, korean = (
        reasoning_lines(Reasoning.model_validate(result), get_translator(lang, "report", "summary"))
        for lang in ("en", "ko")
    )
    assert english[0] == "answers read: strict 3, lenient 0, forced 1, unparsed 0, direct 0"
    assert "4 samples: first 0.5000, majority 0.5000, any 0.5000, agreement 0.7500" in english
    assert len(korean) == len(english) and not re.search("[a-z]{2}", "\n".join(korean))
    table = [cell_len(line) for line in korean[2:5]]
    assert len({*table}) == 1  # the columns stand under their headings, Korean letters two cells wide


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("micro", {"ci_low": 0.1, "ci_high": 0.2}, "lacks micro: accuracy"),
        ("subjects", {"Law": {"accuracy": 0.5}}, "lacks subjects: Law: total"),
        ("baselines", None, "baselines"),
        ("speed", {"questions": "many"}, "speed: questions"),
        ("recall", {"A": 0.5}, "recall lacks 'B'"),
    ],
)
def test_metrics_that_were_bent_are_named(tmp_path: Path, part: str, value: object, said: str) -> None:
    run = finished(tmp_path)
    assert run.path is not None
    (run.path / "metrics.json").write_text(json.dumps({**run.metrics.to_json(), part: value}))
    with pytest.raises(RunError, match=r"metrics\.json: .*run eval with --overwrite") as raised:
        summary.print_summary([store.load_run_directory(run.path)])
    assert said in str(raised.value)
