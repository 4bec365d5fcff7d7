"""The quickstart notebook runs from end to end on the demo model (or, quicker, on any that
KMMLU_NOTEBOOK_MODEL names).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"


def _code(name: str) -> list[str]:
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat (requirements/dev.txt)")
    book = nbformat.read(FOLDER / name, 4)
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


def test_both_languages_run_the_same_code() -> None:
    english, korean = _code("quickstart.ipynb"), _code("quickstart.ko.ipynb")
    assert len(english) == 11
    assert [source.replace('"en"', '"ko"') for source in english] == korean
    for source in english:
        compile(source, "cell", "exec")
        assert "from kmmlu_fast." not in source and "import kmmlu_fast." not in source  # public names only


@pytest.mark.parametrize("name", ["quickstart.ipynb", "quickstart.ko.ipynb"])
def test_stored_outputs_are_small_and_of_nobodys_machine(name: str) -> None:
    """Made by scripts/notebooks.py: a reader sees results without running anything."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert len(text) < 150_000 and not re.search(r"/(tmp|home|root|work)/|Traceback", text)
    cells = {cell["id"]: cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"}
    if not any(cell["outputs"] for cell in cells.values()):
        pytest.skip("no outputs are stored yet: python scripts/notebooks.py")
    assert all(cell["execution_count"] for cell in cells.values())
    shown = {name: json.dumps(cell["outputs"], ensure_ascii=False) for name, cell in cells.items()}
    assert "fits:" in shown["plan"] and "text/html" in text
    assert ("%p" if name.endswith("ko.ipynb") else " pp") in shown["verdict"]


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
