"""lm-eval's folders: one run per model, group and shots; nothing is mixed, nothing is lost in silence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.core.errors import DataError, RunError
from kmmlu_fast.runs.loading import load_all_runs, load_run_argument
from kmmlu_fast.runs.readers.lm_eval_tasks import split_task_name

JANUARY, MAY = "2026-01-05T08-30-00.123456", "2026-05-05T08-30-00.123456"


def line(row: int, right: bool, **changes: Any) -> dict[str, Any]:
    """A question of key C, answered by letters."""
    best = 2 if right else 0
    pairs = [[str(-0.5 if place == best else -2.0 - place), "False"] for place in range(4)]
    doc = {
        "question": f"물음 {row}",
        "A": "가",
        "B": "나",
        "C": "다",
        "D": "라",
        "answer": 3,
        "Human Accuracy": 0.4,
    }
    return {"doc_id": row, "doc": doc, "target": 2, "filtered_resps": pairs, "filter": "none", **changes}


def said(row: int, text: str, **changes: Any) -> dict[str, Any]:
    """The same question, answered in words."""
    return line(row, True, filtered_resps=[text], target="C", **changes)


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines), encoding="utf-8")


def write_output(
    folder: Path, stamp: str, tasks: dict[str, list[bool]], model: str = "org/m", shots: int = 0, **more: Any
) -> Path:
    """What one command leaves: results and samples of tasks."""
    for task, rights in tasks.items():
        write_lines(folder / f"samples_{task}_{stamp}.jsonl", [line(i, r) for i, r in enumerate(rights)])
    results = folder / f"results_{stamp}.json"
    document = {
        "results": {task: {"acc,none": sum(rights) / len(rights)} for task, rights in tasks.items()},
        "n-shot": dict.fromkeys(tasks, shots),
        "n-samples": {task: {"original": 9, "effective": len(rights)} for task, rights in tasks.items()},
        "model_name": model,
        **more,
    }
    results.write_text(json.dumps(document), encoding="utf-8")
    return results


def shown(path: Path | str) -> list[tuple[str, int, int]]:
    return [(run.name, run.correct, run.total) for run in load_all_runs([str(path)])]


def test_task_names_end_with_the_longest_subject() -> None:
    found = split_task_name("kmmlu_direct_criminal_law")
    assert found is not None and (found[0], found[1].name) == ("kmmlu_direct", "Criminal-Law")
    assert split_task_name("kmmlu_stem") is None and split_task_name("law") is None


def test_two_models_are_two_runs_by_time_not_by_name(tmp_path: Path) -> None:
    write_output(
        tmp_path / "zz", JANUARY, {"kmmlu_law": [True, False], "kmmlu_math": [True]}, model="org/base"
    )
    write_output(tmp_path / "aa", MAY, {"kmmlu_law": [False, False]}, model="org/tuned")
    assert shown(tmp_path) == [("org/base", 2, 3), ("org/tuned", 0, 2)]
    assert shown(f"{tmp_path}:org/tuned") == [("org/tuned", 0, 2)]
    assert shown(f"{tmp_path}:base") == [("org/base", 2, 3)]
    with pytest.raises(RunError, match="has no model, group, time or filter other"):
        load_run_argument(f"{tmp_path}:other")


def test_shots_and_groups_are_runs_of_their_own(tmp_path: Path) -> None:
    write_output(tmp_path, JANUARY, {"kmmlu_law": [True, True]}, shots=5)
    write_output(tmp_path, MAY, {"kmmlu_law": [False, True]}, shots=0)
    assert shown(tmp_path) == [("org/m 5-shot", 2, 2), ("org/m 0-shot", 1, 2)]
    assert shown(f"{tmp_path}:0-shot") == [("org/m 0-shot", 1, 2)]
    groups = tmp_path / "groups"
    write_output(groups, MAY, {"kmmlu_law": [True], "kmmlu_hard_law": [False]})
    assert shown(groups) == [("org/m kmmlu", 1, 1), ("org/m kmmlu_hard", 0, 1)]
    exams = {run.exam for run in load_run_argument(str(groups))}
    assert exams == {"kmmlu", "kmmlu-hard"}
    assert shown(f"{groups}:kmmlu_hard") == [("org/m kmmlu_hard", 0, 1)]


def test_settings_that_decide_answers_are_not_mixed(tmp_path: Path) -> None:
    write_output(tmp_path, JANUARY, {"kmmlu_law": [True]}, config={"model_args": "pretrained=org/m"})
    write_output(
        tmp_path, MAY, {"kmmlu_law": [False]}, config={"model_args": "pretrained=org/m,dtype=float16"}
    )
    assert [(correct, total) for _, correct, total in shown(tmp_path)] == [(1, 1), (0, 1)]
    assert len({name for name, _, _ in shown(tmp_path)}) == 2


def test_measured_again_the_latest_counts_and_is_said(tmp_path: Path) -> None:
    write_output(tmp_path / "zz", JANUARY, {"kmmlu_law": [True]})
    write_output(tmp_path / "aa", MAY, {"kmmlu_law": [False], "kmmlu_math": [True]})
    (run,) = load_run_argument(str(tmp_path))
    assert (run.correct, run.total) == (1, 2)
    assert f"the latest is taken ({MAY}), not {JANUARY}" in run.notes[0]
    assert shown(f"{tmp_path}:{JANUARY}") == [("org/m", 1, 1)]


def test_parts_of_one_run_come_together_and_overlapping_ones_are_asked_about(tmp_path: Path) -> None:
    write_output(tmp_path, JANUARY, {"kmmlu_law": [True]})
    write_output(tmp_path, MAY, {"kmmlu_math": [False]})
    (run,) = load_run_argument(str(tmp_path))
    assert run.total == 2 and "put together from 2 outputs" in run.notes[0]
    write_output(tmp_path, "2026-06-01T00-00-00", {"kmmlu_math": [False], "kmmlu_biology": [True]})
    (run,) = load_run_argument(str(tmp_path))  # math again, by a later output
    assert run.total == 3
    write_output(tmp_path, "2026-07-01T00-00-00", {"kmmlu_math": [True], "kmmlu_taxation": [True]})
    with pytest.raises(RunError, match=r"share some of their subjects.*name one, as"):
        load_run_argument(str(tmp_path))


def test_answers_are_told_by_their_shape(tmp_path: Path) -> None:
    lines = [line(0, True, metrics=["bypass"], bypass=999), line(1, False, metrics=["bypass"], bypass=999)]
    write_lines(tmp_path / f"samples_kmmlu_law_{MAY}.jsonl", lines)
    (run,) = load_run_argument(str(tmp_path))
    assert run.frame["prediction"].to_list() == ["C", "A"] and run.facts["output_type"] == "multiple_choice"
    write_lines(tmp_path / "text" / f"samples_kmmlu_law_{MAY}.jsonl", [said(0, " c"), said(1, "모름")])
    (run,) = load_run_argument(str(tmp_path / "text"))
    assert run.frame["prediction"].to_list() == ["C", None] and run.facts["output_type"] == "generate_until"


def test_the_target_is_what_lm_eval_scored_against(tmp_path: Path) -> None:
    zero_based = line(0, True)
    zero_based["doc"]["answer"] = 2  # a copy of the data that counts from 0
    write_lines(tmp_path / f"samples_kmmlu_law_{MAY}.jsonl", [zero_based])
    assert load_run_argument(str(tmp_path))[0].frame["answer"].to_list() == ["C"]


def test_filters_are_asked_about(tmp_path: Path) -> None:
    lines = [
        said(row, text, filter=name) for name, text in (("strict", "D"), ("flexible", "C")) for row in (0, 1)
    ]
    write_lines(tmp_path / f"samples_kmmlu_direct_law_{MAY}.jsonl", lines)
    with pytest.raises(RunError, match=r"was read by 2 filters \(strict, flexible\); name one"):
        load_run_argument(str(tmp_path))
    assert shown(f"{tmp_path}:flexible")[0][1:] == (2, 2)
    assert shown(f"{tmp_path}:strict")[0][1:] == (0, 2)
    scores = {"results": {"kmmlu_direct_law": {"exact_match,a": 0.25, "exact_match,b": 0.5}}}
    document = {**scores, "n-samples": {"kmmlu_direct_law": {"effective": 4}}}
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / f"results_{MAY}.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(RunError, match="2 filters"):
        load_run_argument(str(tmp_path / "s"))
    assert load_run_argument(f"{tmp_path / 's'}:b")[0].correct == 2


def test_layouts_without_a_time_and_under_other_names(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    document = {
        "results": {"kmmlu_law": {"acc,none": 0.75, "acc_stderr,none": (0.75 * 0.25 / 3) ** 0.5}},
        "versions": {"kmmlu_law": 2.0},
        "config": {"model": "hf", "model_args": "pretrained=org/kmmlu-tuned,dtype=bfloat16"},
    }
    (old / "any.json").write_text(json.dumps(document), encoding="utf-8")
    (run,) = load_run_argument(str(old))  # the number of questions by the standard error
    assert (run.name, run.correct, run.total) == ("org/kmmlu-tuned", 3, 4)
    lines = [line(row, row > 0) for row in range(4)]
    name = "pretrained__org__kmmlu-tuned,dtype__bfloat16_kmmlu_law.jsonl"
    (old / name).write_text(json.dumps(lines, indent=2), encoding="utf-8")  # one JSON list, as 0.4.0 wrote
    for place in (old, old / "any.json"):
        (run,) = load_run_argument(str(place))
        assert (run.name, run.correct, run.frame.height) == ("org/kmmlu-tuned", 3, 4)
    named = tmp_path / "named"
    write_output(named, MAY, {"kmmlu_law": [True]}).rename(named / f"mine_{MAY}.json")
    for place in (named, named / f"mine_{MAY}.json"):
        assert shown(place) == [("org/m", 1, 1)]
    own = tmp_path / "own"
    write_lines(own / f"samples_ko_leaderboard_law_{MAY}.jsonl", [line(0, True)])
    assert load_run_argument(str(own))[0].correct == 1


def test_a_cut_or_unfinished_output_is_refused(tmp_path: Path) -> None:
    results = write_output(tmp_path, MAY, {"kmmlu_law": [True, True, False]})
    samples = tmp_path / f"samples_kmmlu_law_{MAY}.jsonl"
    whole = samples.read_text(encoding="utf-8")
    samples.write_text(whole[: whole.rindex('{"doc_id"')], encoding="utf-8")
    with pytest.raises(DataError, match="holds 2 of the 3 samples"):
        load_run_argument(str(results))
    samples.write_text(whole[:-30], encoding="utf-8")
    with pytest.raises(DataError, match="row 3: is not valid JSON"):
        load_run_argument(str(results))


def test_subjects_without_samples_are_said(tmp_path: Path) -> None:
    write_output(tmp_path, MAY, {"kmmlu_law": [True], "kmmlu_math": [True]})
    (tmp_path / f"samples_kmmlu_math_{MAY}.jsonl").unlink()
    (run,) = load_run_argument(str(tmp_path))
    assert run.total == 1 and "1 subjects have scores and no samples (Math)" in run.notes[0]
