"""Hand-computed numbers with different micro and macro accuracy, letters, features, and the public
reference runs.
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from kmmlu_fast.analysis import accuracy as analysis
from kmmlu_fast.analysis import error_profile
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA
from kmmlu_fast.data.subjects import SUBJECTS

SHARED = Path(__file__).resolve().parents[3] / "shared"
REFERENCE = SHARED / "reference" / "predictions_25_models_test.csv"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="../shared/reference is absent")


def predictions(rows: list[tuple[str, str, str | None]], **columns: list) -> pl.DataFrame:
    """rows of (subject, answer, prediction) as a frame with PREDICTION_SCHEMA."""
    seen: dict[str, int] = {}
    records = []
    for i, (subject, answer, prediction) in enumerate(rows):
        row = seen[subject] = seen.get(subject, -1) + 1
        record = dict.fromkeys(PREDICTION_SCHEMA) | {
            "question_id": f"{subject}/test/{row}",
            "subject": subject,
            "supercategory": SUBJECTS[subject].supercategory,
            "split": "test",
            "row": row,
            "answer": answer,
            "prediction": prediction,
            "correct": prediction == answer,
            "forced": False,
            "prompt_tokens": 10,
            "output_tokens": 1,
            "prompt_digest": "",
        }
        records.append(record | {name: values[i] for name, values in columns.items()})
    return pl.DataFrame(records, schema=PREDICTION_SCHEMA, orient="row")


# Accounting (HUMSS): 8 questions, 6 right. Math (STEM): 2 questions, 0 right, one unparsed.
ROWS = (
    [("Accounting", "A", "A")] * 3
    + [("Accounting", "B", "B")] * 3
    + [("Accounting", "C", "A"), ("Accounting", "D", "A")]
)
ROWS += [("Math", "D", None), ("Math", "D", "A")]


def test_micro_is_not_macro_by_hand():
    summary = analysis.summarise_predictions(predictions(ROWS)).to_json()
    assert summary["num_questions"] == 10
    assert summary["micro"]["correct"] == 6
    assert summary["micro"]["accuracy"] == pytest.approx(0.6)
    assert summary["macro"]["accuracy"] == pytest.approx((6 / 8 + 0 / 2) / 2)  # 0.375
    assert summary["micro"]["stderr"] == pytest.approx((0.6 * 0.4 / 9) ** 0.5)
    assert summary["macro"]["stderr"] == pytest.approx((0.75 * 0.25 / 7) ** 0.5 / 2)


def test_wilson_interval_by_hand():
    """6 of 10: the textbook interval is 0.3127 to 0.8318; 0 of 2 is 0 to 0.6576."""
    summary = analysis.summarise_predictions(predictions(ROWS)).to_json()
    assert summary["micro"]["ci_low"] == pytest.approx(0.31267, abs=5e-5)
    assert summary["micro"]["ci_high"] == pytest.approx(0.83182, abs=5e-5)
    assert summary["subjects"]["Math"]["ci_low"] == 0.0
    assert summary["subjects"]["Math"]["ci_high"] == pytest.approx(0.65762, abs=5e-5)


def test_unparsed_is_wrong_and_counted():
    summary = analysis.summarise_predictions(predictions(ROWS)).to_json()
    assert summary["unparsed"] == 1
    assert summary["subjects"]["Math"] == {
        "total": 2,
        "correct": 0,
        "accuracy": 0.0,
        "stderr": 0.0,
        "ci_low": 0.0,
        "ci_high": pytest.approx(0.65762, abs=5e-5),
        "unparsed": 1,
    }
    assert summary["predicted_letter_share"] == pytest.approx(
        {"A": 0.6, "B": 0.3, "C": 0.0, "D": 0.0, "unparsed": 0.1}
    )
    assert set(summary["supercategories"]) == {"HUMSS", "STEM"}


def test_baselines_and_recall_by_hand():
    summary = analysis.summarise_predictions(predictions(ROWS)).to_json()
    assert summary["answer_letter_share"] == pytest.approx({"A": 0.3, "B": 0.3, "C": 0.1, "D": 0.3})
    assert summary["baselines"]["always_C"] == pytest.approx(0.1)
    assert summary["baselines"]["best_constant"] == {"letter": "A", "accuracy": pytest.approx(0.3)}
    assert summary["baselines"]["subject_majority"] == pytest.approx(
        (3 + 2) / 10
    )  # A or B for Accounting, D for Math
    assert summary["recall"] == pytest.approx({"A": 1.0, "B": 1.0, "C": 0.0, "D": 0.0})
    assert summary["balanced_accuracy"] == pytest.approx(0.5)


def test_forced_and_debiased():
    plain = analysis.summarise_predictions(predictions(ROWS)).to_json()
    assert (
        plain["accuracy_debiased"] is None
        and plain["forced"] == 0
        and plain["accuracy_without_forced"] == pytest.approx(0.6)
    )
    columns: dict[str, list] = {
        "forced": [True, True] + [False] * 8,
        "debiased_prediction": ["A", "B"] + [None] * 8,
    }
    summary = analysis.summarise_predictions(predictions(ROWS, **columns)).to_json()
    assert summary["forced"] == 2
    assert summary["accuracy_without_forced"] == pytest.approx(0.4)
    assert summary["accuracy_debiased"] == pytest.approx(0.5)


def test_summary_is_json_and_survives_edges():
    for rows in (ROWS, ROWS[:1], []):
        summary = analysis.summarise_predictions(predictions(rows)).to_json()
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    empty = analysis.summarise_predictions(predictions([])).to_json()
    assert empty["micro"]["accuracy"] is None  # accuracy of nothing is not 0
    one = analysis.summarise_predictions(predictions(ROWS[:1])).to_json()
    assert one["micro"]["stderr"] is None and one["recall"]["B"] is None


def test_confusion_counts_every_question():
    table = analysis.letter_confusion_table(predictions(ROWS))
    assert table.rows() == [
        ("A", 3, 0, 0, 0, 0),
        ("B", 0, 3, 0, 0, 0),
        ("C", 1, 0, 0, 0, 0),
        ("D", 2, 0, 0, 0, 1),
    ]


def test_by_group_takes_a_model_column():
    frame = pl.concat([predictions(ROWS).with_columns(model=pl.lit(m)) for m in "xy"])
    table = analysis.accuracy_by_group(frame, ["model", "subject"])
    assert table.select("model", "subject", "total", "correct", "errors").rows() == [
        ("x", "Accounting", 8, 6, 2),
        ("x", "Math", 2, 0, 2),
        ("y", "Accounting", 8, 6, 2),
        ("y", "Math", 2, 0, 2),
    ]
    assert analysis.macro_accuracy(frame, "model")["accuracy"].to_list() == pytest.approx([0.375, 0.375])


def questions() -> pl.DataFrame:
    texts = [f"장부의 {i}번째 항목으로 옳은 것은?" for i in range(8)] + [
        "다음 그림에서 옳지 않은 것은?",
        "x^2 = 4의 해를 고르시오.",
    ]
    ids = [f"Accounting/test/{i}" for i in range(8)] + ["Math/test/0", "Math/test/1"]
    human = [0.3, 0.5, 0.7, 0.9, None, 0.9, 0.9, 0.9, 0.1, 0.2]
    return pl.DataFrame(
        {
            "question_id": ids,
            "question": texts,
            "A": ["가"] * 10,
            "B": ["나"] * 10,
            "C": ["다"] * 10,
            "D": ["4"] * 10,
            "human_accuracy": human,
        }
    )


def test_features_mark_negation_figures_and_formulas():
    marked = error_profile.with_question_features(questions()).collect()
    assert marked["negation"].to_list() == [False] * 8 + [True, False]
    assert marked["figure"].to_list() == [False] * 8 + [True, False]
    assert marked["formula"].to_list() == [False] * 9 + [True]
    assert marked["human_band"].to_list()[:5] == [
        "below 0.4",
        "0.4-0.6",
        "0.6-0.8",
        "0.8 and above",
        "not given",
    ]


@pytest.mark.parametrize(
    "text",
    ["옳지 않은 것은?", "해당하지 않는 것은?", "아닌 것은?", "틀린 것은?", "거리가 먼 것은?", "잘못된 것은?"],
)
def test_negations_are_found(text: str):
    row = questions().head(1).with_columns(question=pl.lit("다음 중 " + text))
    assert error_profile.with_question_features(row).collect()["negation"].item() is True


@pytest.mark.parametrize(
    "text",
    [
        "않은 일을 모두 마친 뒤 다음 날 아침에 가장 먼저 적어야 하는 장부로 옳은 것은?",
        "최대 간격은? (단, 외벽은 아닌 경우)",
    ],
)
def test_a_negation_beside_the_asking_is_none(text: str):
    row = questions().head(1).with_columns(question=pl.lit(text))
    assert error_profile.with_question_features(row).collect()["negation"].item() is False


def test_error_profile_adds_up():
    table = error_profile.error_profile(predictions(ROWS), questions())
    assert table.group_by("feature").agg(pl.col("total").sum())["total"].unique().to_list() == [10]
    figure = table.filter(pl.col("feature") == "figure").select("value", "total", "errors").rows()
    assert figure == [("no", 9, 3), ("yes", 1, 1)]


def test_confident_errors_are_wrong_and_sorted():
    margins = [9.0] * 6 + [1.0, 3.0, None, 2.0]
    table = error_profile.confident_errors(predictions(ROWS, margin=margins), limit=2)
    assert table["margin"].to_list() == [3.0, 2.0]
    assert (table["answer"] != table["prediction"]).all()


def test_answers_that_state_no_confidence_are_no_confident_errors():
    assert error_profile.confident_errors(predictions(ROWS)).is_empty()
    stated = error_profile.confident_errors(predictions(ROWS, confidence=[0.9] * 9 + [0.7]))
    assert stated["confidence"].to_list() == [0.9, 0.9, 0.7]


def test_a_human_accuracy_of_zero_is_none():
    asked = questions().with_columns(human_accuracy=pl.lit(0.0))
    table = error_profile.error_profile(predictions(ROWS), asked).filter(pl.col("feature") == "human_band")
    assert table["value"].to_list() == ["not given"]


def test_sorts_of_error_by_hand():
    # The four errors: C and D answered A (Accounting), D unread and D answered A (Math).
    sure = [0.5] * 6 + [0.95, 0.6, None, 0.8]
    logprobs = {
        "logprob_A": [0.0] * 6 + [-0.1, -0.5, -1.0, -0.2],
        "logprob_B": [-9.0] * 6 + [-3.0, -2.0, -1.0, -2.0],
        "logprob_C": [-9.0] * 6 + [-4.0, -3.0, -1.0, -2.5],
        "logprob_D": [-9.0] * 6 + [-5.0, -1.0, -1.0, -3.0],
    }
    frame = predictions(ROWS, confidence=sure, **logprobs)
    whole = error_profile.error_kinds(frame).row(0, named=True)
    assert whole == {
        "total": 10,
        "errors": 4,
        "unparsed": 1,
        "forced": 0,
        "confident": 2,
        "close": 1,  # D was second to A in the second
        "letter": "A",
        "letter_errors": 3,
    }
    by_subject = error_profile.error_kinds(frame, ("subject",))
    assert by_subject.select("subject", "errors", "unparsed", "confident", "close").rows() == [
        ("Accounting", 2, 0, 1, 1),
        ("Math", 2, 1, 1, 0),
    ]
    unknown = error_profile.error_kinds(predictions(ROWS)).row(0, named=True)
    assert unknown["confident"] is None and unknown["close"] is None and unknown["errors"] == 4


def reference() -> pl.DataFrame:
    """The 25 public runs, long: model, subject, supercategory, answer, prediction (null = unparsed)."""
    wide = pl.read_csv(REFERENCE, infer_schema=False).rename({"_config": "subject", "_row": "row"})
    long = wide.unpivot(index=["subject", "row", "answer"], variable_name="model", value_name="prediction")
    letter = pl.when(pl.col("prediction").is_in(["A", "B", "C", "D"])).then("prediction").alias("prediction")
    group = (
        pl.col("subject")
        .replace_strict({s.name: s.supercategory for s in SUBJECTS.values()})
        .alias("supercategory")
    )
    return long.with_columns(letter, group)


@needs_reference
def test_reference_runs_have_their_published_accuracy():
    frame = reference()
    micro = dict(analysis.accuracy_by_group(frame, "model").select("model", "accuracy").iter_rows())
    assert len(micro) == 25
    for name, expected in {
        "gpt-4.1-2025-04-14": 0.655,
        "gpt-4.1-mini-2025-04-14": 0.593,
        "gpt-4o-mini-240718": 0.526,
        "phi-4-0shot": 0.503,
    }.items():
        assert round(micro[name], 3) == expected
    assert round(micro["llama-3-1-8b-instruct"], 3) == 0.385
    one = frame.filter(pl.col("model") == "gpt-4.1-2025-04-14")
    summary = analysis.summarise_predictions(one).to_json()
    assert {name: group["total"] for name, group in summary["supercategories"].items()} == {
        "STEM": 9900,
        "Applied Science": 11600,
        "HUMSS": 5130,
        "Other": 8400,
    }
    assert summary["baselines"]["best_constant"]["letter"] == "D"
    assert round(summary["baselines"]["best_constant"]["accuracy"], 3) == 0.305
    assert round(summary["baselines"]["subject_majority"], 3) == 0.317


@needs_reference
def test_plain_python_agrees_on_a_reference_run():
    one = reference().filter(pl.col("model") == "llama-3-1-8b-instruct")
    rows = list(one.select("subject", "answer", "prediction").iter_rows())
    right: dict[str, list[bool]] = {}
    for subject, answer, prediction in rows:
        right.setdefault(subject, []).append(prediction == answer)
    summary = analysis.summarise_predictions(one).to_json()
    assert summary["micro"]["correct"] == sum(map(sum, right.values()))
    assert summary["macro"]["accuracy"] == pytest.approx(sum(sum(r) / len(r) for r in right.values()) / 45)
    assert summary["unparsed"] == sum(prediction is None for _, _, prediction in rows)
