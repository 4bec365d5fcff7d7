"""Names outputs of OpenCompass, and says how to bring them along.

In: its output directory, or one of its JSON files. Out: RunError with the way to convert: its files hold
prompts and texts by running number, and no subject of KMMLU. Knows nothing more.
"""

from __future__ import annotations

from kmmlu_fast.core.errors import RunError
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.run import Run


def _detect_opencompass(source: RunSource) -> bool:
    if source.path.is_dir():
        folders = [source.path, *(path for path in source.path.glob("*") if path.is_dir())]
        return any((path / "predictions").is_dir() and (path / "summary").is_dir() for path in folders)
    if {"dataset", "version", "metric", "mode"} <= set(_table_columns(source)):
        return True
    first = source.fields.get("0")
    details = source.fields.get("details")
    has_details = isinstance(details, (dict, list)) and "accuracy" in source.fields
    return has_details or (isinstance(first, dict) and "prediction" in first and "origin_prompt" in first)


def _table_columns(source: RunSource) -> list[str]:
    return source.table.columns if source.table is not None else []


def _read_opencompass(source: RunSource) -> list[Run]:
    raise RunError(
        f"{source.argument}: is output of OpenCompass, which names no KMMLU questions; write its"
        " predictions/<model>/<subject>.json as a table with the columns _config (subject), _row (the entry's"
        " number), answer (gold) and one column of letters per model"
    )


READER = RunReader(program="OpenCompass", detect=_detect_opencompass, read=_read_opencompass)
