"""Run the quickstart notebooks from top to bottom and store them with small outputs.

    python scripts/notebooks.py [docs/notebooks/quickstart.ipynb ...]

On a machine without a GPU: the demo model and the packaged sample, about ten minutes on two cores. Progress,
widgets, times and paths of this machine are left out, and charts are stored as pictures. Nothing is stored
of a notebook that fails.
"""

from __future__ import annotations

import base64
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 6_000  # characters of a text or HTML output
VEGA = "application/vnd.vegalite"


def run_notebook(path: Path) -> Any:
    """The executed notebook, its outputs made small."""
    import nbclient

    nbformat: Any = importlib.import_module("nbformat")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    book = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(book, timeout=1_800, kernel_name="python3", resources=resources)
        client.execute()
        private = {folder: ".", str(ROOT): ".", str(Path.home()): "~"}
    for cell in book.cells:
        if cell.cell_type == "code":
            outputs = [_make_small(output, private) for output in cell.outputs]
            cell.outputs = [output for output in outputs if output is not None]
            cell.metadata.pop("execution", None)
    book.metadata.pop("widgets", None)
    book.metadata["language_info"] = {"name": "python"}
    return book


def _make_small(output: Any, private: dict[str, str]) -> Any:
    """The output without progress and paths of this machine; None if nothing is left of it."""
    if output.output_type == "stream":
        if output.name == "stderr":
            return None
        output.text = _replace_paths(output.text, private)[:LONGEST]
        return output if output.text.strip() else None
    data = output.get("data", {})
    chart = next((kind for kind in data if kind.startswith(VEGA)), None)
    if chart is not None:
        import vl_convert

        picture = vl_convert.vegalite_to_png(data[chart], scale=1.0)
        output.data = {"image/png": base64.b64encode(picture).decode("ascii")}
        return output
    kept = {}
    for kind in ("text/plain", "text/html"):
        text = _replace_paths(data.get(kind, ""), private)
        if text and len(text) <= LONGEST:
            kept[kind] = text
    output.data = kept
    return output if kept else None


def _replace_paths(text: str, private: dict[str, str]) -> str:
    for path, instead in private.items():
        text = text.replace(path, instead)
    return text


def main(argv: list[str]) -> int:
    nbformat: Any = importlib.import_module("nbformat")
    paths = [Path(word) for word in argv] or sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    for path in paths:
        book = run_notebook(path)
        nbformat.write(book, path)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
