"""The public API: lazy, silent, and the same findings as the command line; in a program and in
a Jupyter kernel.
"""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from made_runs import predictions, run_directory
from tiny import make_tiny_adapter, make_tiny_model

import kmmlu_fast
from kmmlu_fast import (
    ConfigError,
    KmmluError,
    compare_runs,
    diagnose_machine,
    draw_rows,
    evaluate,
    export_runs,
    find_overlap,
    load_run,
    plan_training,
    score_subjects,
    train_adapter,
    write_report,
)
from kmmlu_fast.compare import run_compare_command as compare_main


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    base = run_directory(tmp_path / "base", "base", predictions(1, skill=0.5))
    lora = run_directory(tmp_path / "lora", "lo<ra>", predictions(1, skill=1.5))
    return base, lora


def test_every_public_name_is_there_and_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, kmmlu_fast; print([m for m in ('polars', 'numpy', 'pydantic', 'rich', 'torch') if m in"
        " sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert all(getattr(kmmlu_fast, name) is not None for name in kmmlu_fast.__all__)
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        kmmlu_fast.evalute  # noqa: B018
    assert all(
        (getattr(kmmlu_fast, name).__doc__ or "").strip()
        for name in kmmlu_fast.__all__
        if name != "__version__"
    )


def test_faults_are_raised_all_at_once_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluate(modle="demo", num_fewshot=9, limit=0)  # type: ignore[call-arg]
    text = str(caught.value)
    assert (
        "unknown key 'modle', did you mean model?" in text and "num_fewshot 9" in text and "limit 0" in text
    )
    assert isinstance(caught.value, KmmluError) and "--" not in text
    assert capsys.readouterr() == ("", "")


def test_a_comparison_says_what_the_command_says(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare_runs(*runs)
    assert capsys.readouterr() == ("", "")
    file = tmp_path / "pair.json"
    assert compare_main([*map(str, runs), "--json-file", str(file)]) == 0
    written = json.loads(file.read_text(encoding="utf-8"))["comparisons"][0]
    assert found.micro.difference == written["micro"]["difference"] > 0
    assert found.verdict().splitlines() == written["verdict"]
    assert json.loads(json.dumps(found.to_dict()))["micro"] == written["micro"]
    assert isinstance(found.subjects, pl.DataFrame) and "p_holm" in found.subjects.columns
    assert "better" in found.verdict() and "낫습니다" in found.verdict(lang="ko")


def test_objects_show_themselves_in_a_terminal_and_a_notebook(runs: tuple[Path, Path]) -> None:
    from rich.console import Console

    base, lora = map(load_run, runs)
    found = compare_runs(base, lora)
    screen = io.StringIO()
    for thing in (lora, found):
        Console(file=screen, width=100).print(thing)
        assert "lo<ra>" in repr(thing) and "<table>" in thing._repr_html_()
        assert "lo&lt;ra&gt;" in thing._repr_html_() and "<ra>" not in thing._repr_html_()
    assert f"{lora.micro:.2%}" in screen.getvalue() and "is better than" in screen.getvalue()


def test_a_report_and_what_holds_several_runs(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, lora = map(load_run, runs)
    path = write_report([base, lora], tmp_path / "report.html", lang="ko")
    assert '<html lang="ko"' in path.read_text(encoding="utf-8") and capsys.readouterr() == ("", "")
    table = tmp_path / "table.csv"
    rows = base.frame.select(
        pl.col("subject").alias("_config"),
        pl.col("row").alias("_row"),
        "answer",
        pl.col("prediction").alias("m1"),
    )
    rows.with_columns(pl.col("m1").alias("m2")).write_csv(table)
    for source in (str(table), f"{table}:*"):
        with pytest.raises(KmmluError, match=r"holds 2 runs \(m1, m2\); name one, such as .*table\.csv:m1$"):
            load_run(source)
    assert load_run(f"{table}:m2").correct == base.correct


def test_rows_are_drawn_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("subject,correct,total\nLaw,1,20\nMath,19,20\n", encoding="utf-8")
    drawn = draw_rows(
        source=scores,
        size=9,
        dataset="sample",
        subjects=["Law", "Math"],
        out=tmp_path / "rows.jsonl",
        max_repeats=4,
    )
    assert (
        len(drawn.rows) == 9
        and drawn.path.exists()
        and drawn.plan.filter(pl.col("subject") == "Law")["drawn"].item() > 4
    )
    assert find_overlap(drawn.path, dataset="sample").is_empty()
    with pytest.raises(ConfigError, match="exists"):
        draw_rows(source=scores, size=9, dataset="sample", out=tmp_path / "rows.jsonl")
    assert capsys.readouterr() == ("", "")


def test_training_raises_the_error_of_its_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, logger="kmmlu_fast"),
        pytest.raises(KmmluError, match=r"none\.jsonl: no such file or folder; give a \.jsonl"),
    ):
        train_adapter(data=tmp_path / "none.jsonl", output_dir=tmp_path / "lora", dataset="sample")
    with pytest.raises(ConfigError, match="num_train_epochs 0"):
        train_adapter(data=tmp_path / "none.jsonl", num_train_epochs=0)


@pytest.mark.engine
def test_the_lines_of_the_readme_in_a_jupyter_kernel(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    make_tiny_model(tmp_path / "base")
    make_tiny_adapter(tmp_path / "base", tmp_path / "lora", scale=20.0)
    cells = [
        "from kmmlu_fast import evaluate, compare_runs, write_report",
        "base, lora = evaluate(model='base', dataset='sample', adapter=['lora'], limit=1, output_dir='runs')",
        "base",
        "found = compare_runs(base, lora); found",
        "print(found.verdict(lang='ko')); write_report([base, lora], 'report.html')",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(
        book, timeout=540, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    html = [
        out["data"]["text/html"]
        for cell in book.cells
        for out in cell.outputs
        if "text/html" in out.get("data", {})
    ]
    assert any("micro" in text and "45" in text for text in html) and any("change" in text for text in html)
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_page_about_the_api_is_what_the_docstrings_say() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, root / "scripts" / "api_docs.py"],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
    )
    assert done.stdout == (root / "docs" / "api.md").read_text(encoding="utf-8"), (
        "run: python scripts/api_docs.py > docs/api.md"
    )


def test_settings_have_the_configs_names_and_types() -> None:
    """mypy checks the keyword arguments: the misspelled one above needs its ``type: ignore``."""
    root = Path(kmmlu_fast.__file__).parents[1]
    made = subprocess.run(
        [sys.executable, root / "scripts" / "api_settings.py"], capture_output=True, text=True, check=True
    ).stdout
    message = "run: python scripts/api_settings.py > kmmlu_fast/api_settings.py"
    assert (root / "kmmlu_fast" / "api_settings.py").read_text(encoding="utf-8") == made, message


def test_paths_are_taken_where_names_are(tmp_path: Path) -> None:
    with pytest.raises(KmmluError, match="nowhere"):
        evaluate(model=tmp_path / "nowhere", dataset="sample", adapter=tmp_path / "lora")


def test_runs_have_the_names_of_the_command_line(tmp_path: Path) -> None:
    for name, skill in (("model-base", 0.5), ("model-lora", 1.5)):
        run_directory(tmp_path / f"{name}-{'f' * 12}", f"{name}-sample", predictions(1, skill=skill))
    runs = sorted(tmp_path.iterdir())
    assert "lora is better than base" in compare_runs(*runs).verdict()
    page = write_report(runs, tmp_path / "report.html")
    assert "lora is better than base" in page.read_text(encoding="utf-8")


def test_exports_and_subjects(runs: tuple[Path, Path], tmp_path: Path) -> None:
    files = export_runs(runs, tmp_path / "numbers", formats=["csv", "json"])
    assert {path.name for path in files} >= {"predictions.csv", "report.json"}, files
    assert all(path.is_file() for path in files)
    with pytest.raises(ConfigError, match="folder"):
        export_runs(runs, tmp_path / "numbers")
    assert export_runs(runs, tmp_path / "numbers", overwrite=True)
    with pytest.raises(ConfigError, match="unknown format 'cvs'"):
        export_runs(runs, tmp_path / "more", formats=["cvs"])
    subjects = score_subjects(runs[0])
    assert subjects["accuracy"].is_sorted() and (subjects["low"] < subjects["accuracy"]).all()


def test_a_plan_and_a_diagnosis_without_a_gpu(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    assert "fits:" in plan_training(model=model, gpu_memory=24)
    assert diagnose_machine(str(model)).machine.memory_total_bytes > 0
