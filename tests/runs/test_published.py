"""What is published and ships, and how a name finds it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.runs.published import (
    find_published_figures,
    find_published_runs,
    is_published_argument,
    load_published_answers,
    load_published_figures,
)

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_published.py"


def test_the_table_passes_its_own_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr()
    assert ended.value.code == 0 and printed.err == ""
    figures, runs = load_published_figures(), load_published_answers().runs
    assert len(printed.out.splitlines()) == len(figures) + len(runs) >= 18


@pytest.mark.parametrize("name", ["skt/A.X-4.0-Light", "a.x-4.0-light", "SKT/a.x-4.0-LIGHT"])
def test_a_model_is_found_by_its_id_or_its_name(name: str) -> None:
    (figure,) = find_published_figures(f"published:{name}")
    assert (figure.model, figure.figure) == ("skt/A.X-4.0-Light", 64.15)


def test_an_unknown_model_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"did you mean published:skt/A\.X-4\.0-Light\?; .*openai/gpt-4o"):
        find_published_figures("published:A.X-4.0-Lite")
    with pytest.raises(
        ConfigError, match=r"did you mean published:phi-4\?; runs with answers are phi-3-mini, "
    ):
        find_published_runs("published:fhi-4")
    with pytest.raises(ConfigError, match=r"^published: names nothing; runs with answers are phi-3-mini, "):
        find_published_runs("published:")
    assert not is_published_argument("runs/published")


@pytest.mark.parametrize("name", ["phi-4", "PHI-4", "microsoft/phi-4"])
def test_a_run_is_found_by_its_name_or_its_model(name: str) -> None:
    assert [each.name for each in find_published_runs(f"published:{name}")] == ["phi-4"]
    assert find_published_figures(f"published:{name}") == []


def test_a_model_of_several_runs_is_ambiguous_and_a_figure_is_not_a_run() -> None:
    with pytest.raises(
        ConfigError, match=r"name one of published:phi-3\.5-mini, published:phi-3\.5-mini-5shot"
    ):
        find_published_runs("published:Phi-3.5-mini-instruct")
    assert find_published_runs("published:gpt-4o") == []
