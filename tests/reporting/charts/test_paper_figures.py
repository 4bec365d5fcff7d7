"""Figures as files: one for every pair, a heat map, the asked width, titles on request."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_runs import QUICK, loaded, predictions

from kmmlu_fast.reporting.charts.figure_files import save_figure
from kmmlu_fast.reporting.charts.paper_figures import paper_figures
from kmmlu_fast.reporting.report_data import ReportData, collect_report_data
from kmmlu_fast.reporting.wording.language import get_translator


@pytest.fixture(scope="module")
def report() -> ReportData:
    names = (("base", 0.5), ("로라/하나", 1.5), ("로라:하나", 0.7))
    return collect_report_data([loaded(name, predictions(1, skill=skill)) for name, skill in names], QUICK)


def test_every_pair_has_a_figure_and_all_runs_a_heat_map(report: ReportData) -> None:
    figures = {figure.id: figure for figure in paper_figures(report, None, get_translator("ko", "report"))}
    pairs = [name for name in figures if name.startswith("changes")]
    assert len(pairs) == 2 and pairs[0] == "changes" and pairs[1].startswith("changes-로라-하나")
    assert "heatmap" in figures and {"groups", "letters"} <= set(figures)
    alone = collect_report_data([report.runs[0]], QUICK)
    ids = [figure.id for figure in paper_figures(alone, None, get_translator("en", "report"))]
    assert "heatmap" not in ids and "changes" not in ids


@pytest.mark.parametrize("name", ["groups", "heatmap"])
def test_a_file_has_the_asked_width_and_a_title_on_request(
    report: ReportData, tmp_path: Path, name: str
) -> None:
    figures = {figure.id: figure for figure in paper_figures(report, None, get_translator("en", "report"))}
    for with_title in (True, False):
        folder = tmp_path / str(with_title)
        svg, png, pdf = save_figure(figures[name], folder, 3.3, with_title=with_title)
        text = svg.read_text(encoding="utf-8")
        assert f'width="{3.3 * 96:.2f}"' in text
        assert (figures[name].title in text) == with_title
        assert png.stat().st_size > 1_000 and pdf.read_bytes().startswith(b"%PDF")
