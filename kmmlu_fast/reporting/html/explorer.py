"""The error explorer's data: every question, what each run answered, and (with a dataset) the texts, small
enough for one page.

In: runs with predictions, and the dataset's frame if there is one. Out: one JSON document, gzipped and
base64-encoded, which ``assets/report.js`` unpacks in the browser. Column by column, because that compresses
well: a run's 35,030 answers are one string of letters. Knows nothing of HTML.

Only generated texts can outgrow a page: each is cut at TEXT_CHARS, and texts are kept, wrong answers first,
up to TEXT_BUDGET_BYTES; the document counts those left out.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from typing import Any

import polars as pl

from kmmlu_fast.analysis.accuracy import letters_of_frame
from kmmlu_fast.core.prediction_frames import logprobs_list
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.reporting import human_accuracy
from kmmlu_fast.reporting.wording.language import Translator
from kmmlu_fast.runs.run import Run

TEXT_CHARS = 2_000
TEXT_BUDGET_BYTES = 12_000_000  # before compression, all runs together; compresses to a quarter or less
UNPARSED = "-"
# Probabilities as printable characters: chr(40) = 0, chr(120) = 1, chr(39) = unknown.
_ZERO, _STEPS = 40, 80


def explorer_document(
    runs: list[Run],
    questions: pl.DataFrame | None,
    overlap: frozenset[str],
    t: Translator,
    text_budget_bytes: int = TEXT_BUDGET_BYTES,
) -> dict[str, Any]:
    """The explorer's data, JSON-able. Questions are those of any run, in the order of the first run that has
    them.
    """
    frames = [(run.name, run.frame) for run in runs if run.predictions is not None]
    columns = ("question_id", "subject", "supercategory", "row", "answer")
    index = pl.concat([frame.select(columns) for _, frame in frames])
    index = index.unique("question_id", keep="first", maintain_order=True).with_row_index("place")
    subjects = index["subject"].unique(maintain_order=True).to_list()
    subject_places = {name: place for place, name in enumerate(subjects)}
    groups = dict(index.select("subject", "supercategory").unique().iter_rows())
    budget = [text_budget_bytes]
    split = frames[0][1]["split"][0] if len(index) else "test"
    answers = []
    for name, frame in frames:
        joined = index.join(frame, on="question_id", how="left", maintain_order="left")
        answers.append({"name": name, **_run_answers(joined, budget)})
    has_kmmlu_ids = index["question_id"].equals(_kmmlu_ids(index, split))
    return {
        "subjects": [
            {"id": name, "name": t.subject(name), "group": t.supercategory(groups[name])} for name in subjects
        ],
        "split": split,
        "subject": index["subject"].replace_strict(subject_places, return_dtype=pl.Int32).to_list(),
        "row": index["row"].to_list(),
        "ids": None if has_kmmlu_ids else index["question_id"].to_list(),
        "key": "".join(index["answer"]),
        "letters": "".join(OPTION_LETTERS[: max(len(letters_of_frame(frame)) for _, frame in frames)]),
        "overlap": index.filter(pl.col("question_id").is_in(overlap))["place"].to_list(),
        "runs": answers,
        "texts": _question_texts(index, questions),
    }


def _kmmlu_ids(index: pl.DataFrame, split: str) -> pl.Series:
    """The ids made of subject, split and row; other exams' ids are written out."""
    return index.select(pl.format("{}/{}/{}", "subject", pl.lit(split), "row")).to_series()


def _run_answers(joined: pl.DataFrame, budget: list[int]) -> dict[str, Any]:
    prediction = joined["prediction"].fill_null(UNPARSED)
    missing = joined["correct"].is_null()  # the run was not asked this question
    letters = pl.select(pl.when(missing).then(pl.lit(" ")).otherwise(prediction)).to_series().to_list()
    result: dict[str, Any] = {"letters": "".join(letters), "asked": _prompts_digest(joined)}
    probabilities = _encode_probabilities(joined)
    if probabilities is not None:
        result["probabilities"] = probabilities
    forced = joined.with_row_index("at").filter(pl.col("forced"))["at"].to_list()
    if forced:
        result["forced"] = forced
    texts, left_out = _generated_texts(joined, budget)
    if texts:
        result |= {"texts": texts, "texts_left_out": left_out}
    return result


def _prompts_digest(joined: pl.DataFrame) -> str | None:
    """One digest of all prompts: runs with the same digest got the same prompts. None if unknown."""
    digests = joined["prompt_digest"]
    if digests.is_empty() or digests.null_count():
        return None
    return hashlib.sha256("".join(digests.to_list()).encode()).hexdigest()[:16]


def _encode_probabilities(joined: pl.DataFrame) -> list[str] | None:
    """One string per letter: the softmax over each question's letters, in steps of 1/80; None if no question
    has any.
    """
    frame = joined.select(logprobs_list(), pl.int_range(pl.len()).alias("at"))
    count = int(frame["logprobs"].list.len().max() or 0)  # type: ignore[arg-type]
    if not count:
        return None
    weights = (pl.element() - pl.element().max()).exp()
    shares = frame.select(pl.col("logprobs").list.eval(weights / weights.sum()))
    values = pl.col("logprobs").list
    columns = [values.get(place, null_on_oob=True).alias(str(place)) for place in range(count)]
    steps = shares.select(columns).select((pl.all() * _STEPS).round(0).fill_nan(None).cast(pl.Int32))
    return [
        "".join(chr(_ZERO + step) if step is not None else chr(_ZERO - 1) for step in steps[name].to_list())
        for name in steps.columns
    ]


def _generated_texts(joined: pl.DataFrame, budget: list[int]) -> tuple[dict[str, list[str]], int]:
    """Generated texts by place, wrong answers first while the budget lasts; and how many were left out."""
    rows = joined.filter(pl.col("texts").list.len() > 0).sort("correct", maintain_order=True)
    kept: dict[str, list[str]] = {}
    left_out = 0
    for place, texts in rows.select("place", "texts").iter_rows():
        cut = [text if len(text) <= TEXT_CHARS else text[:TEXT_CHARS] + " …" for text in texts if text]
        size = sum(len(text.encode()) for text in cut)
        if size > budget[0]:
            left_out += 1
            continue
        if cut:
            budget[0] -= size
            kept[str(place)] = cut
    return kept, left_out


def _question_texts(
    index: pl.DataFrame, questions: pl.DataFrame | None
) -> dict[str, list[Any] | None] | None:
    if questions is None:
        return None
    letters = [letter for letter in OPTION_LETTERS if letter in questions.columns]
    columns = ["question", *letters, "human_accuracy"]
    known = human_accuracy.with_known_human_accuracy(questions).select("question_id", *columns)
    joined = index.join(known, on="question_id", how="left", maintain_order="left")
    # JSON has no NaN: with one, the browser could not read any of it
    finite = joined.with_columns(pl.col("human_accuracy").fill_nan(None))
    texts: dict[str, list[Any] | None] = {name: finite[name].to_list() for name in columns}
    if not finite["human_accuracy"].count():  # the exam has none
        texts["human_accuracy"] = None
    return texts


class PackedJson:
    """A document as base64 of gzip of JSON: only letters, digits and + / =, so HTML needs no escaping. Packed
    as its parts come, so that the first can be packed while the rest is computed.
    """

    def __init__(self, first: dict[str, Any]) -> None:
        """``first``: the document's first keys, at least one."""
        # level 6 takes twice as long for 3 % less; 16 + the largest window: gzip
        self._compressor = zlib.compressobj(5, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self._packed = self._compressor.compress(_json_bytes(first)[:-1])

    def finish(self, rest: dict[str, Any]) -> str:
        """The packed text, with the other keys; called once."""
        last = _json_bytes(rest)[1:] if rest else b"}"
        tail = self._compressor.compress((b"," if rest else b"") + last) + self._compressor.flush()
        return base64.b64encode(self._packed + tail).decode()


def _json_bytes(data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def pack_json(data: dict[str, Any]) -> str:
    """The whole document at once."""
    return PackedJson(data).finish({})


def unpack_json(text: str) -> dict[str, Any]:
    """The document that ``pack_json`` packed."""
    return dict(json.loads(gzip.decompress(base64.b64decode(text))))
