"""Names Weights & Biases folders, and points to the tables in them. A ``*.table.json`` itself is read as the
table that it is (``table_files``).

In: a run's folder. Out: RunError that names its tables. Knows nothing of their columns.
"""

from __future__ import annotations

from pathlib import Path

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.run import Run


def _detect_wandb(source: RunSource) -> bool:
    path = source.path
    if not path.is_dir():
        return source.suffix == ".wandb"
    return any(path.glob("*.wandb")) or (path / "files" / "wandb-metadata.json").is_file() or _is_root(path)


def _is_root(path: Path) -> bool:
    return path.name == "wandb" and any(path.glob("run-*"))


def _read_wandb(source: RunSource) -> list[Run]:
    folder = source.path if source.path.is_dir() else source.path.parent
    tables = sorted(folder.rglob("*.table.json"))
    if tables:
        names = ", ".join(str(table) for table in tables[:3])
        raise RunError(f"{source.argument}: is a folder of Weights & Biases; name one of its tables: {names}")
    raise RunError(
        f"{source.argument}: is a folder of Weights & Biases without a table (*.table.json); export the"
        " run's table as CSV or JSON with the columns _config, _row, answer and one per model"
    )


READER = RunReader(program="Weights & Biases", detect=_detect_wandb, read=_read_wandb)
