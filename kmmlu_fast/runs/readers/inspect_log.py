"""Reads logs of inspect_ai: ``.eval`` (a zip of JSON) and its JSON form, one run per log and epoch.

In: a log, or a directory of ``.eval`` files. Out: ``Run`` records, question by question. The zip is read
directly: the samples' summaries hold ids, keys, answers and scores, where inspect's own reader would parse
every transcript. That reader is asked only if the zip's compression cannot be read here. Knows nothing of
models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import ConfigError, DataError, InstallError, RunError
from kmmlu_fast.core.letters import MAX_LOGPROB, logprob_margin
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA
from kmmlu_fast.core.reading import parse_json, read_json_zip
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import bounded_repr
from kmmlu_fast.data.subjects import SUBJECTS, find_subject
from kmmlu_fast.runs.readers.letter_cells import read_letter_cell
from kmmlu_fast.runs.readers.prediction_tables import SUBJECT_NAMES, find_column
from kmmlu_fast.runs.readers.source import RunReader, RunSource
from kmmlu_fast.runs.run import Run, count_subject_scores, fill_prediction_columns

OWN_METADATA = "kmmlu_fast"  # in our own export: the run's facts
_SUBJECT_KEYS = (*SUBJECT_NAMES, "category", "subtask")
_ROW_KEYS = ("row", "_row", "doc_id", "index")
_RIGHT, _WRONG = {"C", "1", "1.0", "True"}, {"I", "0", "0.0", "False", "N"}


def is_inspect_log(document: Any) -> bool:
    """Whether a JSON value is one of inspect's logs."""
    if not isinstance(document, dict):
        return False
    spec = document.get("eval")
    return isinstance(spec, dict) and "task" in spec and "model" in spec and "status" in document


def _detect_inspect(source: RunSource) -> bool:
    if source.path.is_dir():
        return next(source.path.glob("*.eval"), None) is not None
    return source.suffix == ".eval" or is_inspect_log(source.document)


def read_inspect_runs(source: RunSource) -> list[Run]:
    """Every log's run, the oldest first; or those of the model or epoch that is chosen."""
    files = sorted(source.path.glob("*.eval")) if source.path.is_dir() else [source.path]
    runs = [run for file in files for run in _read_log(file, source)]
    if source.choice in (None, "*"):
        return runs
    chosen = [run for run in runs if source.choice in (run.name, str(run.facts.get("model")).split("/")[-1])]
    if not chosen:
        names = ", ".join(run.name for run in runs[:10])
        raise RunError(f"{source.argument}: has no log of {source.choice!r}; it holds {names}")
    return chosen


def _read_log(file: Path, source: RunSource) -> list[Run]:
    if file.suffix.lower() == ".eval":
        header, samples = _read_zip(file)
    else:
        header, samples = source.fields, source.fields.get("samples") or []
    if not is_inspect_log(header):
        raise DataError(f"{file}: is not a log of inspect_ai: its header has no 'eval' and 'status'")
    by_epoch: dict[int, list[dict[str, Any]]] = {}
    for number, sample in enumerate(samples):
        if not isinstance(sample, dict) or not isinstance(sample.get("epoch", 1), int):
            raise DataError(f"{file} sample {number}: is not a sample of inspect_ai ({bounded_repr(sample)})")
        by_epoch.setdefault(sample.get("epoch", 1), []).append(sample)
    if not by_epoch:
        raise DataError(
            f"{file}: holds no samples (status {bounded_repr(header['status'])}); log them (--log-samples)"
        )
    several = len(by_epoch) > 1
    return [
        _epoch_run(header, by_epoch[epoch], file, source, f" epoch {epoch}" if several else "")
        for epoch in sorted(by_epoch)
    ]


def _read_zip(file: Path) -> tuple[dict[str, Any], list[Any]]:
    try:
        entries = read_json_zip(file, ("header.json", "summaries.json", "_journal/start.json"), DataError)
    except InstallError:
        return _read_by_inspect(file)
    header = entries.get("header.json")
    if header is None:
        raise DataError(
            f"{file}: has no header.json: the evaluation is still running, or was killed; finish it, or"
            " recover the log with `inspect log recover`"
        )
    samples = entries.get("summaries.json")
    return header, samples if isinstance(samples, list) else []


def _read_by_inspect(file: Path) -> tuple[dict[str, Any], list[Any]]:
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise InstallError(
            f"{file}: is compressed with Zstandard; to read it: pip install 'kmmlu-fast[files]' (or"
            " inspect_ai)"
        ) from error
    try:
        document = parse_json(read_eval_log(str(file)).model_dump_json(), str(file), DataError)
    except Exception as error:  # pydantic, zip and JSON errors of any kind
        raise DataError(f"{file}: inspect_ai cannot read it ({bounded_repr(error)})") from error
    return document, document.get("samples") or []


def _epoch_run(
    header: dict[str, Any], samples: list[dict[str, Any]], file: Path, source: RunSource, epoch: str
) -> Run:
    spec = header["eval"]
    notes = []
    scored = [sample for sample in samples if sample.get("scores")]
    if len(scored) < len(samples):
        notes.append(
            f"{file}: {len(samples) - len(scored)} of {len(samples)} samples have no score (the evaluation's"
            f" status is {header['status']}); they are left out"
        )
    if not scored:
        raise DataError(f"{file}: no sample has a score (status {bounded_repr(header['status'])})")
    expected = _object(spec, "dataset").get("samples")
    if header["status"] != "success":
        notes.append(
            f"{file}: its status is {header['status']}: {len(scored)} of {expected} samples are there"
        )
    task = str(spec["task"]).rsplit("/", 1)[-1]
    rows = [_read_sample_row(sample, task, f"{file} sample {i}") for i, sample in enumerate(scored)]
    notes += _number_rows(rows, source.split, task, file)
    frame = _rows_frame(rows, file)
    own = _object(_object(header, "metadata"), OWN_METADATA)
    facts = {"model": str(spec["model"]), "output_type": "generate_until", **_object(own, "facts")}
    return Run(
        name=str(own.get("name") or spec["model"]) + epoch,
        kind="inspect",
        source=str(source.argument),
        predictions=frame,
        scores=count_subject_scores(frame),
        facts=facts,
        config={"exam": _object(own, "exam")} if _object(own, "exam") else {},
        notes=tuple(notes),
    )


def _object(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _read_sample_row(sample: dict[str, Any], task: str, where: str) -> dict[str, Any]:
    try:
        choices = sample.get("choices") or []
        letters = OPTION_LETTERS[: len(choices)] if choices else OPTION_LETTERS[:4]
        key = _key_letter(sample["target"], choices, letters)
        answer, value = _answer_and_value(sample["scores"])
        prediction = read_letter_cell(answer)[0] if answer else None
        prediction = prediction if prediction in letters else None
        if value is not None and value != (prediction == key):
            prediction = key if value else None  # inspect's own score takes precedence
        metadata = sample.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise TypeError("its metadata is not an object")
        return {
            "id": sample["id"],
            "metadata": metadata,
            "answer": key,
            "prediction": prediction,
            "correct": prediction == key,
            "num_options": len(letters),
            **_logprob_columns(metadata, letters),
            **_subject_columns(metadata, task),
        }
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{where}: is not a multiple-choice sample ({bounded_repr(error)})") from error


def _logprob_columns(metadata: dict[str, Any], letters: tuple[str, ...]) -> dict[str, Any]:
    """The options' log-probabilities, which our own export keeps; {} for inspect's logs."""
    values = metadata.get("logprobs")
    if not isinstance(values, dict) or tuple(values) != letters:
        return {}
    logprobs = [float(values[letter]) for letter in letters]
    if not all(value <= MAX_LOGPROB for value in logprobs):
        raise ValueError(f"log-probabilities {logprobs} are not numbers up to 0")
    columns: dict[str, Any] = dict(zip(LOGPROB_COLUMNS, logprobs, strict=False))
    if len(logprobs) > len(LOGPROB_COLUMNS):
        columns["option_logprobs"] = logprobs
    return {**columns, "margin": logprob_margin(logprobs), "read_by": "loglikelihood"}


def _key_letter(target: Any, choices: list[Any], letters: tuple[str, ...]) -> str:
    text = str(target[0] if isinstance(target, list) and target else target).strip()
    if text in letters:
        return text
    letter = letters[choices.index(text)] if text in choices else read_letter_cell(text)[0]
    if letter not in letters:
        raise ValueError(f"its target {bounded_repr(target)} is not one of {', '.join(letters)}")
    return str(letter)


def _answer_and_value(scores: dict[str, Any]) -> tuple[str | None, bool | None]:
    """The answer that was read, and whether it was right: by ``choice`` if several scorers ran."""
    score = scores.get("choice") or next(iter(scores.values()))
    text = str(score["value"])
    value = True if text in _RIGHT else False if text in _WRONG else None
    answer = score.get("answer")
    if value is None and answer is None:
        raise ValueError(f"its score {bounded_repr(score['value'])} is neither C nor I")
    return (None if answer is None else str(answer)), value


def _subject_columns(metadata: dict[str, Any], task: str) -> dict[str, Any]:
    """Subject and supercategory by its metadata, or by the end of the task's name."""
    column = find_column(list(metadata), _SUBJECT_KEYS)
    text = str(metadata[column]) if column else ""
    if "supercategory" in metadata:  # our own export
        return {"subject": text, "supercategory": str(metadata["supercategory"])}
    try:
        subject = find_subject(text or _subject_in_task_name(task))
    except ConfigError:
        return {"subject": text or task, "supercategory": task}
    return {"subject": subject.name, "supercategory": subject.supercategory}


def _subject_in_task_name(task: str) -> str:
    """The longest subject that the name ends with; the name itself if there is none."""
    name = task.lower().replace("-", "_")
    endings = [subject for subject in SUBJECTS if name.endswith(subject.lower().replace("-", "_"))]
    return max(endings, key=len, default=task)


def _number_rows(rows: list[dict[str, Any]], split: str, task: str, file: Path) -> list[str]:
    """Fill question_id, split and row. Returns notes on numbers that are inspect's own."""
    if all(isinstance(row["id"], str) and f"/{split}/" in row["id"] for row in rows):
        for place, row in enumerate(rows):
            text = row["id"].rsplit("/", 1)[1]
            known = int(text) if text.isdigit() and len(text) < 10 else place
            row |= {"question_id": row["id"], "split": split, "row": known}
        return []
    first = _first_number(rows)
    for place, row in enumerate(rows):
        row["split"] = split
        number = _row_number(row)
        if first is None or number is None:
            row |= {"question_id": f"{task}/{split}/{row['id']}", "row": place}
        else:
            row |= {"question_id": f"{row['subject']}/{split}/{number - first}", "row": number - first}
    if first is None:
        return [
            f"{file}: its samples' ids are no rows of subjects, so it compares only with logs of the same"
            " task; give each sample the metadata subject and row"
        ]
    if first:
        return [f"{file}: its ids count from 1; they are taken as rows 0 to {len(rows) - 1} of the subject"]
    return []


def _first_number(rows: list[dict[str, Any]]) -> int | None:
    """Where the samples' numbers begin within each subject, 0 or 1; None if they are no rows of subjects:
    inspect numbers samples that bring no id from 1, over the whole data set.
    """
    numbers: dict[str, list[int]] = {}
    for row in rows:
        number = _row_number(row)
        if row["subject"] not in SUBJECTS or number is None:
            return None
        numbers.setdefault(row["subject"], []).append(number)
    if all(find_column(list(row["metadata"]), _ROW_KEYS) for row in rows):
        return 0
    if len(numbers) > 1:
        return 0 if all(min(group) == 0 for group in numbers.values()) else None
    (only,) = numbers.values()
    return 1 if sorted(only) == list(range(1, len(rows) + 1)) else 0


def _row_number(row: dict[str, Any]) -> int | None:
    column = find_column(list(row["metadata"]), _ROW_KEYS)
    value = row["metadata"][column] if column else row["id"]
    text = str(value).strip()
    return int(text) if text.isdigit() and len(text) < 10 else None


def _rows_frame(rows: list[dict[str, Any]], file: Path) -> pl.DataFrame:
    names = [name for name in PREDICTION_SCHEMA if any(name in row for row in rows)]
    schema = {name: PREDICTION_SCHEMA[name] for name in names}
    frame = pl.DataFrame({name: [row.get(name) for row in rows] for name in names}, schema=schema)
    repeated = frame.filter(pl.col("question_id").is_duplicated())["question_id"]
    if len(repeated):
        raise DataError(f"{file}: {repeated[0]} appears in two samples of one epoch; give one log")
    return fill_prediction_columns(frame.sort("subject", "row"))


READER = RunReader(program="inspect_ai", detect=_detect_inspect, read=read_inspect_runs)
