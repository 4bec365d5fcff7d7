"""The quickstart notebook runs from end to end on the demo model (or, quicker, on any that
KMMLU_NOTEBOOK_MODEL names).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"


def _code(name: str) -> list[str]:
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat (requirements/dev.txt)")
    book = nbformat.read(FOLDER / name, 4)
    assert all(not cell.get("outputs") for cell in book.cells)  # kept small: outputs come when it is run
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


def test_both_languages_run_the_same_code() -> None:
    english, korean = _code("quickstart.ipynb"), _code("quickstart.ko.ipynb")
    assert len(english) == 11
    assert [source.replace('"en"', '"ko"') for source in english] == korean
    for source in english:
        compile(source, "cell", "exec")
        assert "from kmmlu_fast." not in source and "import kmmlu_fast." not in source  # public names only


@pytest.mark.engine
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel (requirements/dev.txt)")
    import nbformat

    monkeypatch.setenv("KMMLU_NOTEBOOK_WORK", str(tmp_path / "work"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    again = nbformat.read(FOLDER / "quickstart.ipynb", 4)
    book = nbformat.read(FOLDER / "quickstart.ipynb", 4)
    for each in (book, again):  # "Run all" twice in one folder: what is finished is not computed again
        resources = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(each, timeout=1_500, kernel_name="python3", resources=resources).execute()
    cells = {
        cell.id: "".join(str(out.get("text", out.get("data", ""))) for out in cell.outputs)
        for cell in book.cells
        if "outputs" in cell
    }
    assert "fits:" in cells["plan"] and "pp" in cells["verdict"]
    assert {"report.html", "lora"} <= {path.name for path in (tmp_path / "work").iterdir()}
    assert {"report.xlsx", "subjects.csv"} <= {
        path.name for path in (tmp_path / "work" / "numbers").iterdir()
    }
