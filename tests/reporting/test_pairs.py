"""Looks at test are counted wherever they are taken, and a recipe over several seeds stands in the report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import QUICK, loaded, predictions, run_directory

from kmmlu_fast import compare, load_run, report, write_report
from kmmlu_fast.analysis.error_spending import spending_share
from kmmlu_fast.analysis.paired import ALPHA
from kmmlu_fast.reporting.pairs import compare_exams
from kmmlu_fast.reporting.terminal.eval_summary import adapter_verdict_lines
from kmmlu_fast.runs.comparison_log import read_comparison_log


def seeds(folder: Path) -> list[str]:
    """Three adapters of one recipe."""
    return [
        str(run_directory(folder / name, name, predictions(1, skill=1.4 + 0.1 * i), adapter_digest=name))
        for i, name in enumerate(("s0", "s1", "s2"))
    ]


def of_exam(path: Path, exam: str, skill: float, adapter: str | None = None) -> str:
    """A run directory over an exam, of the base or of an adapter."""
    facts: dict[str, Any] = {} if adapter is None else {"adapter_digest": adapter}
    run_directory(path, path.name, predictions(1, skill=skill), **facts)
    document = json.loads((path / "config.json").read_text(encoding="utf-8"))
    document |= {"exam": {"name": exam, "title": exam.upper()}, "adapter": adapter and {"name": adapter}}
    (path / "config.json").write_text(json.dumps(document), encoding="utf-8")
    return str(path)


def test_a_recipe_stands_in_the_report_in_both_languages(tmp_path: Path) -> None:
    base = str(run_directory(tmp_path / "base", "base", predictions(1, skill=0.5)))
    page = tmp_path / "report.html"
    group = f"lora={','.join(seeds(tmp_path))}"
    assert (
        report.run_report_command([base, "--group", group, "--output", str(page), "--overlap", "none"]) == 0
    )
    shown, _, inner = page.read_text(encoding="utf-8").partition('<template id="other"')
    assert '<section id="recipes">' in shown and '<a href="#recipes">' in shown
    assert "Recipe lora is better than base" in shown and "over 3 seeds" in shown
    assert "학습 방법 lora는 base보다 낫습니다" in inner
    assert [peek.name for peek in read_comparison_log(load_run(base).path)] == ["lora"]


def test_a_recipe_from_python_and_none_without_one(tmp_path: Path) -> None:
    base = load_run(run_directory(tmp_path / "base", "base", predictions(1, skill=0.5)))
    path = write_report(base, tmp_path / "r.html", groups={"two": seeds(tmp_path)[:2]}, overlap=["none"])
    assert "Recipe two" in path.read_text(encoding="utf-8")
    path = write_report(base, tmp_path / "plain.html", overlap=["none"])
    assert 'id="recipes"' not in path.read_text(encoding="utf-8")


def test_a_recipe_of_another_exam_or_of_one_seed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = of_exam(tmp_path / "base", "kmmlu", 0.5)
    one, other = of_exam(tmp_path / "a", "kmmlu", 1.0, "a"), of_exam(tmp_path / "b", "click", 1.0, "b")
    page = ["--output", str(tmp_path / "r.html"), "--overlap", "none"]
    assert report.run_report_command([base, "--group", f"lora={one},{other}", *page]) == 2
    assert "name runs of one exam" in capsys.readouterr().err
    assert report.run_report_command([base, "--group", f"lora={one}", *page]) == 2
    assert "needs at least 2 seeds" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["md", "json"])
def test_every_form_of_compare_says_the_recipe(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(run_directory(tmp_path / "base", "base", predictions(1, skill=0.5)))
    group = f"lora={','.join(seeds(tmp_path))}"
    assert compare.run_compare_command([base, "--group", group, "--format", form, "--overlap", "none"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out)["recipes"][0]["name"] == "lora" if form == "json" else "Recipe lora is" in out
    assert found


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_an_exam_out_of_focus_is_looked_at_too(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        of_exam(tmp_path / f"{exam}-{state}", exam, skill, None if state == "base" else state)
        for exam in ("kmmlu", "click")
        for state, skill in (("base", 0.5), ("one", 1.2))
    ]
    if verb == "compare":
        assert compare.run_compare_command([*runs, "--overlap", "none"]) == 0
    else:
        assert (
            report.run_report_command([*runs, "--overlap", "none", "--output", str(tmp_path / "r.html")]) == 0
        )
    for exam in ("kmmlu", "click"):
        assert [peek.adapter for peek in read_comparison_log(tmp_path / f"{exam}-base")] == ["one"]
    # So the next adapter on that exam is the second that was tried.
    capsys.readouterr()
    later = of_exam(tmp_path / "click-two", "click", 1.3, "two")
    assert compare.run_compare_command([runs[2], later, "--overlap", "none"]) == 0
    assert "corrected for 2 comparisons" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_the_table_of_exams_is_corrected_for_all_of_it_and_for_earlier_looks(tmp_path: Path) -> None:
    runs = [
        load_run(of_exam(tmp_path / f"{exam}-{state}", exam, skill, None if state == "base" else state))
        for exam in ("kmmlu", "click")
        for state, skill in (("base", 0.5), ("one", 0.75), ("two", 0.6))
    ]
    rows = compare_exams(runs, QUICK, "kmmlu")
    states = [state for row in rows for state in row.states if state.pair is not None]
    raw = [state.pair.micro.p_value or 0.0 for state in states if state.pair is not None]
    least = min(range(4), key=lambda place: raw[place])
    # the table is four comparisons; the two of each exam share what its base has left
    level = ALPHA * (spending_share(1) + spending_share(2))
    spent = min(1.0, 2 * raw[least] * ALPHA / level)
    assert states[least].p_holm == pytest.approx(max(min(1.0, 4 * raw[least]), spent))
    again = compare_exams([runs[0], runs[1], runs[3], runs[4]], QUICK, "kmmlu")
    shown = [state for row in again for state in row.states if state.pair is not None]
    assert [state.p_holm for state in shown] == pytest.approx(
        [max(state.p_holm or 0.0, 0.0) for state in (states[0], states[2])], rel=1.0
    )
    assert all(len(read_comparison_log(tmp_path / f"{exam}-base")) == 2 for exam in ("kmmlu", "click"))


def test_the_sentence_after_an_evaluation_is_a_look(tmp_path: Path) -> None:
    base = load_run(of_exam(tmp_path / "base", "kmmlu", 0.5))
    adapters = [load_run(of_exam(tmp_path / name, "kmmlu", 1.5, name)) for name in ("one", "two")]
    lines = adapter_verdict_lines([base, *adapters])
    assert any("corrected for 2 comparisons" in line for line in lines)
    assert [peek.adapter for peek in read_comparison_log(base.path)] == ["one", "two"]


def test_what_is_no_look_is_not_recorded(tmp_path: Path) -> None:
    """Another model's run, or a base without a directory."""
    base = load_run(of_exam(tmp_path / "base", "kmmlu", 0.5))
    other = replace(loaded("other", predictions(2), model="another", adapter_digest="x"))
    assert adapter_verdict_lines([base, replace(other, config={"adapter": {"name": "x"}})])
    assert read_comparison_log(base.path) == []
