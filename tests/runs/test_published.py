"""The shipped table of published figures, and how a figure is found."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.runs.published import find_published_figures, is_published_argument, load_published_figures

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_published.py"


def test_the_table_passes_its_own_check(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr()
    assert ended.value.code == 0 and printed.err == ""
    assert len(printed.out.splitlines()) == len(load_published_figures()) >= 10


@pytest.mark.parametrize("name", ["skt/A.X-4.0-Light", "a.x-4.0-light", "SKT/a.x-4.0-LIGHT"])
def test_a_model_is_found_by_its_id_or_its_name(name: str) -> None:
    (figure,) = find_published_figures(f"published:{name}")
    assert (figure.model, figure.figure) == ("skt/A.X-4.0-Light", 64.15)


def test_an_unknown_model_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"did you mean skt/A\.X-4\.0-Light\?; known are .*openai/gpt-4o"):
        find_published_figures("published:A.X-4.0-Lite")
    assert not is_published_argument("runs/published")
