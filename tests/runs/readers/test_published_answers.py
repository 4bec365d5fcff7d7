"""The public answers that ship: their known counts, what they hold, and that they behave as runs."""

from __future__ import annotations

import polars as pl
import pytest

from kmmlu_fast import load_run
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.runs.loading import load_all_runs, load_run_argument, run_input_files
from kmmlu_fast.runs.lookup import resolve_run_names
from kmmlu_fast.runs.published import ANSWERS_TABLE, load_published_answers
from kmmlu_fast.runs.readers.published_answers import read_published_runs


def test_known_counts() -> None:
    first, second = load_all_runs(["published:gpt-4.1", "published:gpt-4.1-mini"])
    joined = first.frame.join(second.frame, on="question_id", validate="1:1")
    one, other = joined["correct"], joined["correct_right"]
    assert (len(joined), (one & ~other).sum(), (~one & other).sum()) == (35_030, 5034, 2852)
    assert (first.name, first.source) == ("gpt-4.1", "published:gpt-4.1")
    assert first.facts["num_fewshot"] == 0


def test_what_was_not_read_stays_unread_and_counts_as_wrong() -> None:
    (run,) = load_run_argument("published:llama-3.1-8b-5shot")
    unread = run.frame.filter(pl.col("prediction").is_null())
    assert len(unread) == 9248 and not unread["correct"].any()
    assert run.correct == 7081


def test_the_table_holds_ids_and_letters_only() -> None:
    table = pl.read_parquet(ANSWERS_TABLE)
    assert table.columns == [
        "subject",
        "row",
        "answer",
        *[each.name for each in load_published_answers().runs],
    ]
    assert table.schema["row"] == pl.Int32 and table["subject"].n_unique() == 45
    for name in table.columns[2:]:
        assert set(table[name].cast(pl.String).drop_nulls().unique()) <= set("ABCD")
    assert ANSWERS_TABLE.stat().st_size < 150_000


def test_every_run_at_once() -> None:
    runs = read_published_runs("published:*")
    assert [run.name for run in runs] == [each.name for each in load_published_answers().runs]
    with pytest.raises(RunError, match=r"holds 8 runs .*, \.\.\.\); name one, such as published:phi-3-mini$"):
        load_run("published:*")


def test_no_output_and_no_short_name_is_meant() -> None:
    assert resolve_run_names(["published:phi-4"], ANSWERS_TABLE.parent) == ["published:phi-4"]
    assert run_input_files(["published:phi-4"]) == []


def test_another_dataset_under_the_same_ids_is_refused() -> None:
    frame = load_run_argument("published:phi-4")[0].frame.select("question_id", "answer").head(3)
    assert read_published_runs("published:phi-4", frame)[0].total == 35_030
    turned = frame.with_columns(pl.lit("A").alias("answer"))
    with pytest.raises(RunError, match="this dataset is another: Accounting/test/0 has key B there, A here"):
        read_published_runs("published:phi-4", turned)


def test_a_figure_is_not_a_run() -> None:
    with pytest.raises(ConfigError, match="not the answers; compare sets it beside a run"):
        load_run_argument("published:gpt-4o")


def test_another_split_is_not_answered_with_test() -> None:
    with pytest.raises(ConfigError, match="has answers to KMMLU's test split; leave out --split dev"):
        load_all_runs(["published:phi-4"], split="dev")
