"""Four copies of a question are one observation."""

import numpy as np
import polars as pl
from made_runs import loaded, predictions

from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.repeats import drop_repeated_questions
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.verdict import verdict_lines


def four_copies(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(
        frame.with_columns(pl.format("{}0{}", "question_id", pl.lit(copy)).alias("question_id"))
        for copy in range(4)
    )


def test_each_question_counts_once_and_it_is_said() -> None:
    frames = [predictions(1, skill=skill) for skill in (0.6, 0.9)]
    once = compare_pair(loaded("base", frames[0]), loaded("lora", frames[1]), ComparisonSettings())
    runs = [loaded(name, four_copies(frame)) for name, frame in zip(("base", "lora"), frames, strict=True)]
    pair = compare_pair(runs[0], runs[1], ComparisonSettings())
    assert (pair.micro.n, pair.repeated) == (200, 600) and pair.micro == once.micro
    said = " ".join(verdict_lines(pair, get_translator("en")))
    assert "600 of the 800 questions repeat another one; each question is counted once" in said


def test_a_few_repeats_stay() -> None:
    digests = [f"{row:016x}" for row in np.minimum(np.arange(200), 196)]
    joined = pl.DataFrame({"question_id": digests, "subject": "Law", "answer": "A", "prompt_digest": digests})
    kept, repeats = drop_repeated_questions(joined)
    assert len(kept) == 200 and repeats == 0
    unknown = joined.with_columns(pl.lit("").alias("prompt_digest"))
    assert drop_repeated_questions(unknown)[1] == 0


def test_the_same_text_with_another_key_is_another_question() -> None:
    joined = pl.DataFrame(
        {"question_id": list("abcd"), "subject": "Law", "answer": list("AABB"), "prompt_digest": ""}
    )
    texts = pl.DataFrame({"question_id": list("abcd"), "question": ["x?", "X !", "x", "y"], "A": "1"})
    kept, repeats = drop_repeated_questions(joined, texts)
    assert repeats == 1 and kept["question_id"].to_list() == ["a", "c", "d"]


def test_repeats_are_found_whatever_options_the_questions_share() -> None:
    """Only questions with an option in common are read whole; that loses no repeat."""
    words, random = ["물", "불 ", "흙!", "흙"], np.random.default_rng(3)
    columns = {
        name: [words[i] for i in random.integers(0, 4, 300)] for name in ("question", "A", "B", "C", "D")
    }
    ids = [f"Law/test/{row}" for row in range(300)]
    texts = pl.DataFrame({"question_id": ids, "subject": "Law", **columns, "answer": "A"})
    joined = pl.DataFrame({"question_id": ids, "subject": "Law", "answer": "A", "prompt_digest": ""})
    plain = [tuple(cell.strip(" !") for cell in row) for row in zip(*columns.values(), strict=True)]
    assert drop_repeated_questions(joined, texts)[1] == 300 - len(set(plain)) > 9
