"""Lines of lm-evaluation-harness's ``samples_<task>_*.jsonl`` as predictions.

In: a file, the questions it is over. Out: rows by the name of the filter that read the answers. How a line
was answered (letter log-likelihoods or a text) is told by the shape of its answers, not by task or metric:
``--predict_only`` leaves no metric. Knows nothing of models and results files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.letters import MAX_LOGPROB, argmax_index, exact_match, logprob_margin
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA, logprobs_list
from kmmlu_fast.core.reading import parse_json, read_text
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS, OPTION_LETTERS
from kmmlu_fast.core.untrusted_text import bounded_repr, replace_surrogates
from kmmlu_fast.data.subjects import Subject
from kmmlu_fast.runs.run import fill_prediction_columns

OWN_FIELDS = "kmmlu_fast"  # in our own export: what lm-eval's format has no place for


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTask:
    """What a file of samples is over."""

    subject: Subject
    id_prefix: str  # of question ids: "Law/test", "kmmlu-hard/law/test"
    split: str


def read_samples(file: Path, task: SampleTask) -> dict[str, list[dict[str, Any]]]:
    """Rows of PREDICTION_SCHEMA's columns by filter; DataError names the line that is not a sample."""
    text = read_text(file, DataError)
    if text.lstrip().startswith("["):  # 0.4.0 to 0.4.2
        samples = list(enumerate(parse_json(text, str(file), DataError), 1))
    else:
        # Not splitlines(): it also splits at U+2028 and others, which JSON leaves unescaped in strings.
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        samples = [(number, parse_json(line, f"{file} row {number}", DataError)) for number, line in lines]
    rows: dict[str, list[dict[str, Any]]] = {}
    for number, sample in samples:
        try:
            filter_name = str(sample.get("filter") or "none")
            rows.setdefault(filter_name, []).append(_read_sample(sample, task))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{file} row {number}: is not an lm-eval sample of {task.subject.name}"
                f" ({bounded_repr(error)})"
            ) from error
    return rows


def _read_sample(sample: dict[str, Any], task: SampleTask) -> dict[str, Any]:
    row = _parse_bounded_integer(sample["doc_id"], 0, 2**31 - 1, "doc_id")
    responses = sample["filtered_resps"] if sample.get("filtered_resps") else sample["resps"]
    logprobs = _option_logprobs(responses)
    own = sample.get(OWN_FIELDS) or {}
    letters = OPTION_LETTERS[: len(logprobs)] if logprobs else OPTION_LETTERS[: own.get("num_options", 4)]
    if logprobs and not own and len(logprobs) != len(LETTERS):
        raise ValueError(f"{len(logprobs)} options")
    answer = _answer_letter(sample, letters, by_index=bool(logprobs))
    result: dict[str, Any] = {
        "question_id": f"{task.id_prefix}/{row}",
        "subject": task.subject.name,
        "supercategory": task.subject.supercategory,
        "split": task.split,
        "row": row,
        "answer": answer,
        "num_options": len(letters),
        **_own_fields(own),
    }
    if logprobs:
        return result | _from_logprobs(logprobs, answer, sample.get("acc"))
    return result | _from_text(responses, answer, sample.get("exact_match"), letters)


def _own_fields(own: dict[str, Any]) -> dict[str, str]:
    """What our own export keeps of an exam other than KMMLU."""
    names = ("question_id", "subject", "supercategory", "split")
    fields = {name: own[name] for name in names if name in own}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} is {bounded_repr(value)}, not a text")
        fields[name] = replace_surrogates(value)
    return fields


def _option_logprobs(responses: Any) -> list[float]:
    """One log-likelihood per option if the answers are (log-likelihood, is greedy) pairs, else []."""
    pairs = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in responses]
    if len(pairs) < 2 or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return []
    if not all(isinstance(pair[1], bool) or str(pair[1]) in ("True", "False", "") for pair in pairs):
        return []
    return [float(pair[0]) for pair in pairs]


def _from_logprobs(logprobs: list[float], answer: str, own_metric: Any) -> dict[str, Any]:
    if not all(math.isfinite(value) and value <= MAX_LOGPROB for value in logprobs):
        raise ValueError(f"log-probabilities {logprobs} are not finite numbers up to 0")
    prediction: str | None = OPTION_LETTERS[argmax_index(logprobs)]
    if _contradicts(own_metric, prediction == answer):
        prediction = answer if own_metric else None  # lm-eval's own metric takes precedence
    columns = dict(zip(LOGPROB_COLUMNS, logprobs, strict=False))
    if len(logprobs) > len(LETTERS):
        columns["option_logprobs"] = logprobs  # type: ignore[assignment]
    return {
        **columns,
        "margin": logprob_margin(logprobs),
        "read_by": "loglikelihood",
        "prediction": prediction,
        "correct": prediction == answer,
    }


def _from_text(responses: Any, answer: str, own_metric: Any, letters: tuple[str, ...]) -> dict[str, Any]:
    text = responses[0] if isinstance(responses[0], str) else responses[0][0]
    if not isinstance(text, str):
        raise TypeError("the answer is not a text")
    prediction = exact_match(text, letters)
    if _contradicts(own_metric, prediction == answer):
        prediction = answer if own_metric else None  # lm-eval's own metric takes precedence
    return {
        "texts": [replace_surrogates(text)],
        "read_by": "exact_match" if prediction else None,
        "prediction": prediction,
        "correct": prediction == answer,
    }


def _contradicts(own_metric: Any, correct: bool) -> bool:
    """Whether the sample's own metric, if it has one, says otherwise (999 stands for none)."""
    return isinstance(own_metric, (int, float)) and own_metric in (0, 1) and bool(own_metric) != correct


def _answer_letter(sample: dict[str, Any], letters: tuple[str, ...], by_index: bool) -> str:
    """The key. For log-likelihoods ``target`` is what lm-eval scored against: an index from 0, or a letter.
    Otherwise the document's answer: a number from 1, or a letter.
    """
    target = sample.get("target")
    if isinstance(target, str) and target.strip().upper() in letters:
        return target.strip().upper()
    if by_index and isinstance(target, (int, str)) and str(target).strip().isdigit():
        return letters[_parse_bounded_integer(target, 0, len(letters) - 1, "the target")]
    answer = sample["doc"]["answer"]
    if isinstance(answer, str) and answer.strip().upper() in letters:
        return answer.strip().upper()
    return letters[_parse_bounded_integer(answer, 1, len(letters), "the answer") - 1]


def _parse_bounded_integer(value: Any, low: int, high: int, what: str) -> int:
    """A whole number within bounds, as a number or as digits (the datasets library writes some like that)."""
    number = int(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    if number is None or not low <= number <= high:
        raise ValueError(f"{what} is {bounded_repr(value)}, not a whole number from {low} to {high}")
    return number


def samples_frame(rows: list[dict[str, Any]], path: Path) -> pl.DataFrame:
    """The rows as PREDICTION_SCHEMA; DataError if there are none, or if two are of one question."""
    if not rows:
        raise DataError(f"{path}: its samples_*.jsonl hold no samples; give lm-eval's whole output")
    names = [name for name in PREDICTION_SCHEMA if any(name in row for row in rows)]
    schema = {name: PREDICTION_SCHEMA[name] for name in names}
    frame = pl.DataFrame({name: [row.get(name) for row in rows] for name in names}, schema=schema)
    repeated = frame.filter(pl.col("question_id").is_duplicated())["question_id"]
    if len(repeated):
        raise DataError(f"{path}: {repeated[0]} appears in two samples; give one lm-eval output")
    frame = fill_prediction_columns(frame).with_columns(logprobs_list())
    shares = pl.col("logprobs").list.eval((pl.element() - pl.element().max()).exp())
    confidence = pl.when(pl.col("logprobs").list.len() > 1).then(1 / shares.list.sum())
    return frame.with_columns(confidence.alias("confidence")).select(PREDICTION_SCHEMA.names())
