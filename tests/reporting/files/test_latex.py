"""LaTeX output: escaped, whole tables, and (if pdflatex is here) it compiles."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_runs import QUICK, loaded, predictions

from kmmlu_fast.reporting.files.latex import escape_latex, report_data_to_latex
from kmmlu_fast.reporting.report_data import ReportData, collect_report_data
from kmmlu_fast.reporting.wording.language import get_translator

HOSTILE = r"lo_ra & 50% $x^2$ #1 {a} \input{/etc/passwd} ~<b>|"


@pytest.fixture(scope="module")
def report() -> ReportData:
    names = (("base", 0.5), (HOSTILE, 1.5), ("third", 0.2))
    runs = [loaded(name, predictions(1, skill=skill)) for name, skill in names]
    return collect_report_data(runs, QUICK)


def test_nothing_that_a_name_holds_is_a_command() -> None:
    escaped = escape_latex(HOSTILE)
    assert r"\input" not in escaped and r"\textbackslash{}input\{/etc/passwd\}" in escaped
    assert re.search(r"(?<!\\)[&%#_^~]", escaped) is None
    assert escape_latex("−1 ± 2 → 한글") == r"$-$1 $\pm$ 2 $\rightarrow$ 한글"


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_every_row_has_every_column(report: ReportData, lang: str) -> None:
    text = report_data_to_latex(report, get_translator(lang, "methods"), by_subject=True)
    blocks = re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(blocks) == 1 + 2 * 2 + 1  # leaderboard, two per pair, subjects x models
    for sides, body in blocks:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 1
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(sides) - 1}
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(blocks)
    assert ("kotex" in text) == (lang == "ko")
    assert "[+" in text or "[$-$" in text  # intervals in brackets


def test_it_compiles(report: ReportData, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex with booktabs (Debian: texlive-latex-recommended)")
    text = report_data_to_latex(report, get_translator("en", "methods"), by_subject=True)
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "paper.tex").write_text(f"{head}\n{text}\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (tmp_path / "paper.pdf").is_file(), done.stdout[-1500:]
