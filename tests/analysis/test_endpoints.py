"""endpoints by hand, protocol differences, key audit, what moved, and counted looks."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_runs import loaded, predictions, questions, run_directory

from kmmlu_fast.analysis import protocol_differences
from kmmlu_fast.analysis.base_comparisons import adjust_pair_p_values
from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.endpoints import FLOOR, compare_endpoints
from kmmlu_fast.analysis.error_spending import Ledger
from kmmlu_fast.analysis.gained_and_lost import (
    compare_gained_and_lost,
    find_question_features,
    with_relative_features,
)
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.key_audit import audit_key
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.reporting.pairs import log_and_correct_pairs
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.verdict import verdict_lines
from kmmlu_fast.runs.comparison_log import read_comparison_log
from kmmlu_fast.runs.loading import load_run_argument


def test_scores_by_hand() -> None:
    key, strata = np.array([0, 1, 0, 1]), np.zeros(4, dtype=np.int64)
    even = np.log(np.full((4, 4), 0.1))  # of the four letters, a quarter each
    sure = np.log(np.array([[0.7, 0.1, 0.1, 0.1]] * 4))
    endpoints = {end.name: end for end in compare_endpoints(key, strata, even, sure)}
    log_score = (2 * np.log(0.7) + 2 * np.log(0.1)) / 4
    assert (endpoints["log_score"].first, endpoints["log_score"].second) == pytest.approx(
        (np.log(0.25), log_score)
    )
    assert endpoints["brier"].first == pytest.approx(0.75)
    assert endpoints["brier"].second == pytest.approx(
        (0.3**2 + 3 * 0.1**2 + 0.7**2 + 0.9**2 + 2 * 0.1**2) / 2
    )
    assert endpoints["overconfidence"].second == pytest.approx(0.7 - 0.5)
    values = np.log(np.array([0.7, 0.1, 0.7, 0.1])) - np.log(0.25)
    assert (endpoints["log_score"].high - endpoints["log_score"].low) / 2 == pytest.approx(
        3.1824 * values.std(ddof=1) / 2, rel=1e-4
    )


def test_a_letter_that_was_not_returned_is_not_infinitely_unlikely() -> None:
    logprobs = np.array([[0.0, -np.inf, -np.inf, -np.inf]] * 3)
    endpoints = compare_endpoints(np.ones(3, dtype=np.int64), np.zeros(3, dtype=np.int64), logprobs, logprobs)
    assert (
        endpoints[0].first == pytest.approx(FLOOR)
        and compare_endpoints(
            np.ones(3, dtype=np.int64), np.zeros(3, dtype=np.int64), logprobs * np.nan, logprobs
        )
        == ()
    )


@pytest.mark.parametrize(
    ("skill", "said"),
    [(1.5, "Confidence in the right answer agrees"), (0.62, "Confidence in the right answer")],
)
def test_the_report_says_whether_the_log_score_agrees(skill: float, said: str) -> None:
    pair = compare_pair(
        loaded("base", predictions(1)), loaded("lora", predictions(1, skill=skill)), ComparisonSettings()
    )
    assert any(line.startswith(said) for line in verdict_lines(pair, get_translator("en")))


def test_all_but_the_adapter_is_compared() -> None:
    facts = {
        "model": "m",
        "dtype": "bfloat16",
        "quantization": None,
        "decoding": {"temperature": 0.0},
        "versions": {"vllm": "1"},
    }
    frame = predictions(1)
    base = loaded("base", frame, prompt_style="x", **facts)
    other = loaded(
        "lora",
        frame,
        **{
            **facts,
            "prompt_style": "x",
            "dtype": "float16",
            "decoding": {"temperature": 0.7},
            "adapter_digest": "a",
        },
    )
    assert protocol_differences.setting_differences(base, other) == [
        "dtype bfloat16 -> float16",
        "decoding.temperature 0.0 -> 0.7",
    ]
    pair = compare_pair(base, other, ComparisonSettings())
    lines = verdict_lines(pair, get_translator("en"))
    assert lines[0].startswith("CAUTION: the runs differ in more than the model (dtype bfloat16 -> float16")
    assert any("refers to this adapter, lora, not to its recipe" in line for line in lines)


def test_a_compiled_run_differs_from_one_that_says_nothing_of_it() -> None:
    frame = predictions(1)
    base, compiled = loaded("base", frame, dtype="auto"), loaded("lora", frame, dtype="auto", compiled=True)
    assert protocol_differences.setting_differences(base, compiled) == ["compiled False -> True"]
    assert protocol_differences.setting_differences(compiled, base) == ["compiled True -> False"]
    assert not protocol_differences.setting_differences(compiled, compiled)
    assert not protocol_differences.setting_differences(base, base)
    assert not protocol_differences.setting_differences(loaded("table", frame), compiled)


def test_an_unknown_protocol_and_an_unknown_overlap_are_said() -> None:
    pair = compare_pair(
        loaded("base", predictions(1)),
        loaded("other", predictions(1, skill=1.2), prompt_style="x"),
        ComparisonSettings(overlap_known=False),
    )
    lines = " ".join(verdict_lines(pair, get_translator("en")))
    assert "Unknown protocol: base" in lines and "Overlap unknown" in lines


def test_other_prompts_of_one_model_are_refused() -> None:
    first = predictions(1)
    second = first.with_columns(
        pl.when(pl.col("row") == 3).then(pl.lit("f" * 16)).otherwise("prompt_digest").alias("prompt_digest")
    )
    known = {"model": "m", "prompt_style": "x"}
    with pytest.raises(RunError, match="prompt_digest of 4 questions"):
        compare_pair(loaded("base", first, **known), loaded("lora", second, **known), ComparisonSettings())
    compare_pair(
        loaded("base", first, **known),
        loaded("else", second, **{**known, "model": "n"}),
        ComparisonSettings(),
    )  # another tokenizer


def test_several_runs_are_corrected_and_the_best_is_called_that() -> None:
    base = loaded("base", predictions(1))
    pairs = [
        compare_pair(base, loaded(f"r{i}", predictions(1, skill=0.6 + 0.1 * i)), ComparisonSettings())
        for i in (1, 2, 4)
    ]
    earlier = Ledger(0.9, 0.01, 4, {"earlier": -1.0})
    adjusted = adjust_pair_p_values(pairs, {"r1": earlier})
    assert [pair.tried for pair in adjusted] == [4, 4, 4] and [pair.best_of for pair in adjusted] == [
        False,
        False,
        True,
    ]
    assert all(pair.p_holm >= pair.micro.p_value for pair in adjusted)
    lines = verdict_lines(adjusted[2], get_translator("en"))
    assert "corrected for 4 comparisons" in lines[0]
    [best] = [line for line in lines if "is the best of 4 runs compared" in line]
    assert "its difference is about" in best and adjusted[2].shrunk.value < adjusted[2].micro.difference
    assert adjusted[0].p_holm == 0.9 and adjusted[0].alpha == 0.01
    assert adjust_pair_p_values(pairs[:1])[0].p_holm is None
    better = {"r4": Ledger(0.01, 0.01, 2, {"earlier": 0.9})}
    assert not adjust_pair_p_values(pairs, better)[2].best_of  # an earlier one was better


def test_the_best_of_identical_adapters_is_tied() -> None:
    base = loaded("base", predictions(1))
    pairs = [
        compare_pair(base, loaded(f"r{i}", predictions(1, skill=1.2)), ComparisonSettings()) for i in range(3)
    ]
    adjusted = adjust_pair_p_values(pairs)
    assert [(pair.best_of, pair.tied) for pair in adjusted] == [(False, 2)] * 3
    assert any("tied with 2 other" in line for line in verdict_lines(adjusted[0], get_translator("en")))


def test_looks_at_test_are_counted_beside_the_base(tmp_path: Path) -> None:
    base = load_run_argument(str(run_directory(tmp_path / "base", "base", predictions(1))))[0]
    adapters = [
        load_run_argument(
            str(
                run_directory(
                    tmp_path / f"l{i}", f"l{i}", predictions(1, skill=0.7 + 0.1 * i), adapter_digest=f"d{i}"
                )
            )
        )[0]
        for i in range(3)
    ]
    for turn, other in enumerate(adapters):
        [pair] = log_and_correct_pairs([base, other], [compare_pair(base, other, ComparisonSettings())])
        assert pair.tried == turn + 1
    [logged] = log_and_correct_pairs(
        [base, adapters[0]], [compare_pair(base, adapters[0], ComparisonSettings())]
    )
    assert logged.tried == 3 and [peek.adapter for peek in read_comparison_log(base.path)] == [
        "d0",
        "d1",
        "d2",
    ]  # the same adapter is one look
    (tmp_path / "base" / "peeks.json").write_text("no list", encoding="utf-8")
    assert read_comparison_log(base.path) == []


def test_the_key_is_audited_by_id() -> None:
    frame = predictions(1, skill=3.0)
    wrong = pl.col("question_id") == "Law/test/7"
    other = pl.when(pl.col("answer") == "A").then(pl.lit("B")).otherwise(pl.lit("A"))
    frame = frame.with_columns(
        pl.when(wrong).then(other).otherwise("prediction").alias("prediction"),
        (pl.col("correct") & ~wrong).alias("correct"),
    )
    frame = frame.with_columns(pl.lit(0.9).alias("confidence"))
    names = ("gpt-5", "claude", "llama-3", "phi-4", "qwen3")
    runs = [loaded(name, frame) for name in names]
    audit = audit_key(runs)
    assert audit is not None and "Law/test/7" in [row[0] for row in audit.against_key]
    name, whole, without = audit.accuracy[0]
    assert name == "gpt-5" and without is not None and without > whole
    assert audit_key(runs[:4]) is None
    asked = questions(frame).with_columns(
        pl.lit("다음 가운데 회계 원칙으로 옳은 것은 무엇인가").alias("question")
    )
    twice = audit_key(runs[:1], asked)  # one text for all questions, many keys
    assert twice is not None and "Law/test/7" in twice.conflicting and twice.accuracy[0][2] is None


def test_features_of_what_moved() -> None:
    asked = (
        questions(predictions(1))
        .head(4)
        .with_columns(
            pl.Series(
                "question", ["옳은 것은?", "옳지 않은 것은?", "x^2의 값은?", "다음 그림에서 옳은 것은?"]
            ),
            pl.Series("answer", ["B", "A", "C", "D"]),
            pl.Series("A", ["1", "1", "3.5", "①, ③"]),
            pl.Series("B", ["2", "2", "1", "하나"]),
            pl.Series("C", ["3", "3", "2", "둘"]),
            pl.Series("D", ["4", "4", "9,000", "셋"]),
        )
    )
    features = with_relative_features(find_question_features(asked), frozenset({asked["question_id"][2]}))
    assert features["number_middle"].to_list() == [True, False, True, False]
    assert features["negation"].to_list() == [False, True, False, False]
    assert features["formula"].to_list() == [False, False, True, False]
    assert features["all_of_the_above"].to_list() == [False, False, False, True]
    assert features["overlap"].to_list() == [False, False, True, False]


def test_the_kind_that_was_gained_is_found_and_others_are_not() -> None:
    random = np.random.default_rng(1)
    n = 3000
    negated = random.random(n) < 0.4
    gained = random.random(n) < np.where(negated, 0.75, 0.45)
    joined = pl.DataFrame(
        {"question_id": [f"Law/test/{i}" for i in range(n)], "first": ~gained, "second": gained}
    )
    ending = np.where(negated, "옳지 않은 것은?", "옳은 것은?")
    length = random.integers(1, 30, n)
    asked = pl.DataFrame(
        {
            "question_id": joined["question_id"],
            "question": ["가" * k + " " + e for k, e in zip(length, ending, strict=True)],
            **{letter: [letter] * n for letter in "ABCD"},
            "answer": ["A"] * n,
            "human_accuracy": [None] * n,
        }
    )
    model = compare_gained_and_lost(joined, asked.with_columns(pl.col("human_accuracy").cast(pl.Float64)))
    assert (
        model is not None
        and model.gained == gained.sum()
        and {kind.feature for kind in model.kinds} == {"long", "negation"}
    )
    kinds = {kind.feature: kind for kind in model.kinds}
    assert (
        kinds["negation"].significant
        and kinds["negation"].low < (0.75 / 0.25) / (0.45 / 0.55) < kinds["negation"].high
    )
    assert not kinds["long"].significant
    assert (
        compare_gained_and_lost(
            joined.head(100), asked.with_columns(pl.col("human_accuracy").cast(pl.Float64))
        )
        is None
    )
