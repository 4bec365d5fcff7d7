"""Comparisons of invented runs: refusals, what the verdict says, and the numbers behind it."""

import polars as pl
import pytest
from made_runs import loaded, predictions

from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.core.errors import RunError
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.letter_habit import classify_letter_prior
from kmmlu_fast.reporting.wording.verdict import verdict_lines
from kmmlu_fast.runs.run import Run

QUICK = ComparisonSettings()


def small(name: str, right: dict[str, tuple[int, int]], **facts: object) -> Run:
    """Per subject (right, total): the first questions right, the others wrong; the key is B, C, D in turn."""
    from kmmlu_fast.core.prediction_frames import predictions_frame
    from kmmlu_fast.core.schema import Prediction
    from kmmlu_fast.data.subjects import SUBJECTS

    rows = []
    for subject, (correct, total) in right.items():
        for row in range(total):
            answer = "BCD"[row % 3]
            prediction = answer if row < correct else "CDB"[row % 3]
            rows.append(
                Prediction(
                    question_id=f"{subject}/test/{row}",
                    subject=subject,
                    supercategory=SUBJECTS[subject].supercategory,
                    split="test",
                    row=row,
                    answer=answer,
                    prediction=prediction,
                    correct=row < correct,
                    read_by="exact_match",
                )
            )
    return loaded(name, predictions_frame(rows), **facts)


def test_micro_rises_and_macro_falls_and_the_verdict_says_so() -> None:
    first = small("base", {"Law": (500, 1000), "Math": (80, 100)})
    second = small("lora", {"Law": (600, 1000), "Math": (40, 100)})
    pair = compare_pair(first, second, QUICK)
    assert pair.micro.difference == pytest.approx(60 / 1100) and pair.macro.difference == pytest.approx(-0.15)
    assert (pair.micro.b, pair.micro.c) == (40, 100)
    assert pair.micro_macro_opposed
    lines = verdict_lines(pair, get_translator("en"))
    assert (
        "opposite directions from base to lora: +5.45 pp over questions" in lines[0]
        and "−15.00 pp over subjects" in lines[0]
    )
    assert not any("is better than" in line for line in lines)  # it replaces the headline


def test_opposite_signs_that_chance_gives_are_not_said() -> None:
    pair = compare_pair(
        small("base", {"Law": (50, 100), "Math": (8, 10)}),
        small("lora", {"Law": (54, 100), "Math": (6, 10)}),
        QUICK,
    )
    assert pair.micro.difference > 0 > pair.macro.difference and not pair.micro_macro_opposed


def test_a_whole_gain_of_letter_prior_is_called_that() -> None:
    first = loaded("base", predictions(1, skill=0.8, bias=(2.5, 0, 0, 0), sizes={"Law": 900}))
    second = loaded("lora", predictions(1, skill=0.8, bias=(-0.8, 0, 0, 0), sizes={"Law": 900}))
    pair = compare_pair(first, second, QUICK)
    assert pair.micro.significant and pair.micro.difference > 0.1
    assert pair.letters.method == "logprobs"
    assert pair.letters.splits[0].letter_prior.value == pytest.approx(pair.micro.difference, abs=0.01)
    assert classify_letter_prior(pair) == "all_prior"
    lines = verdict_lines(pair, get_translator("en"))
    assert "is better than base" in lines[0]
    assert any("no change beyond it is shown" in line for line in lines)
    assert any("남는 변화는 확인되지 않습니다" in line for line in verdict_lines(pair, get_translator("ko")))


def test_knowledge_is_not_called_letter_habit() -> None:
    first = loaded("base", predictions(1, skill=0.5, sizes={"Law": 900}))
    second = loaded("lora", predictions(1, skill=1.5, sizes={"Law": 900}))
    assert classify_letter_prior(compare_pair(first, second, QUICK)) == "not_prior"


def test_no_significant_difference_is_a_sentence() -> None:
    pair = compare_pair(small("base", {"Law": (50, 100)}), small("lora", {"Law": (52, 100)}), QUICK)
    assert verdict_lines(pair, get_translator("en"))[0].startswith(
        "No significant difference between base and lora: +2.00 pp"
    )
    assert "유의한 차이가 없습니다" in verdict_lines(pair, get_translator("ko"))[0]
    assert (
        "5.5 pp or more would usually be found; 1.0 pp would take about 3,000."
        in (verdict_lines(pair, get_translator("en"))[0])
    )


def test_equal_runs() -> None:
    pair = compare_pair(small("base", {"Law": (5, 10)}), small("same", {"Law": (5, 10)}), QUICK)
    assert pair.micro.p_value == 1.0 and not pair.micro.significant
    assert (
        verdict_lines(pair, get_translator("en"))[0] == "base and same got exactly the same questions right."
    )


def test_subjects_that_changed_carry_their_corrected_p() -> None:
    pair = compare_pair(
        small("base", {"Law": (20, 100), "Math": (50, 100)}),
        small("lora", {"Law": (60, 100), "Math": (50, 100)}),
        QUICK,
    )
    assert pair.changed_subjects()["subject"].to_list() == ["Law"]
    assert "1 of 2 subjects changed significantly (Holm-corrected): 1 up, 0 down (Law +40.0 pp)" in " ".join(
        verdict_lines(pair, get_translator("en"))
    )


def test_different_prompts_are_refused_and_said_loudly_on_request() -> None:
    first, second = (
        small("base", {"Law": (5, 10)}, prompt_style="lm-eval"),
        small("lora", {"Law": (6, 10)}, prompt_style="chat"),
    )
    with pytest.raises(RunError, match=r"prompt_style lm-eval -> chat.*--different-prompts"):
        compare_pair(first, second, QUICK)
    pair = compare_pair(first, second, ComparisonSettings(different_prompts=True))
    assert verdict_lines(pair, get_translator("en"))[0].startswith("CAUTION")


def test_an_unknown_protocol_is_no_difference() -> None:
    compare_pair(
        small("base", {"Law": (5, 10)}, prompt_style="lm-eval"), small("table", {"Law": (6, 10)}), QUICK
    )


def test_same_ids_over_other_texts_are_refused() -> None:
    first, second = (
        small("base", {"Law": (5, 10)}, dataset_digest="aa"),
        small("lora", {"Law": (6, 10)}, dataset_digest="bb"),
    )
    with pytest.raises(RunError, match="other texts or exemplars"):
        compare_pair(first, second, QUICK)


def test_other_questions_are_refused_or_compared_on_the_intersection() -> None:
    first, second = small("base", {"Law": (5, 10)}), small("lora", {"Law": (6, 12)})
    with pytest.raises(RunError, match="0 questions only in the first, 2 only in the second"):
        compare_pair(first, second, QUICK)
    pair = compare_pair(first, second, ComparisonSettings(intersection=True))
    assert pair.micro.n == 10 and pair.dropped == (0, 2, 0)
    assert "shared questions only" in verdict_lines(pair, get_translator("en"))[0]


def test_conflicting_keys_are_refused_or_left_out() -> None:
    first, second = small("base", {"Law": (5, 10)}), small("lora", {"Law": (6, 10)})
    changed = second.frame.with_columns(
        pl.when(pl.col("row") == 9).then(pl.lit("A")).otherwise(pl.col("answer")).alias("answer")
    )
    other = loaded("lora", changed)
    with pytest.raises(RunError, match="1 with two different keys"):
        compare_pair(first, other, QUICK)
    assert compare_pair(first, other, ComparisonSettings(intersection=True)).micro.n == 9


def test_nothing_shared() -> None:
    with pytest.raises(RunError, match="share no question"):
        compare_pair(
            small("base", {"Law": (5, 10)}),
            small("lora", {"Math": (5, 10)}),
            ComparisonSettings(intersection=True),
        )


def test_clean_leaves_out_the_overlap() -> None:
    first, second = small("base", {"Law": (4, 10)}), small("lora", {"Law": (6, 10)})
    overlap = frozenset({"Law/test/4", "Law/test/5", "Law/test/9", "Math/test/1"})
    pair = compare_pair(first, second, ComparisonSettings(overlap=overlap))
    assert pair.clean is not None and pair.overlapping == 3
    assert (pair.clean.n, pair.clean.difference) == (7, 0.0)  # the whole gain stood in the overlap
    assert any(
        line.startswith("Without the 3 questions") for line in verdict_lines(pair, get_translator("en"))
    )


def test_debiased_difference_where_rotations_exist() -> None:
    first, second = small("base", {"Law": (4, 10)}), small("lora", {"Law": (6, 10)})
    assert compare_pair(first, second, QUICK).debiased is None
    both = [
        loaded(run.name, run.frame.with_columns(pl.col("answer").alias("debiased_prediction")))
        for run in (first, second)
    ]
    debiased = compare_pair(both[0], both[1], QUICK).debiased
    assert debiased is not None and debiased.first == 1.0 and debiased.difference == 0.0


def test_unparsed_counts_as_wrong_and_in_the_open() -> None:
    first = small("base", {"Law": (6, 10)})
    hidden = first.frame.with_columns(
        pl.when(pl.col("row") < 3)
        .then(pl.lit(None, dtype=pl.String))
        .otherwise(pl.col("prediction"))
        .alias("prediction"),
        (pl.col("correct") & (pl.col("row") >= 3)).alias("correct"),
    )
    pair = compare_pair(loaded("silent", hidden), first, QUICK)
    assert (pair.made_readable, pair.made_unreadable) == (3, 0) and pair.micro.c == 3


def test_a_collapse_onto_one_letter_is_said() -> None:
    first, second = small("base", {"Law": (5, 30)}), small("lora", {"Law": (5, 30)})
    stuck = second.frame.with_columns(
        pl.lit("D").alias("prediction"), (pl.col("answer") == "D").alias("correct")
    )
    lines = verdict_lines(compare_pair(first, loaded("lora", stuck), QUICK), get_translator("en"))
    assert "lora answers D to 100.0 % of the questions (the key: 33.3 %): it hardly reads them." in lines
    assert not any("base answers" in line for line in lines)


def test_a_limited_runs_micro_is_weighted_to_the_full_sizes() -> None:
    from kmmlu_fast.analysis.headline import compute_headline

    run = small("base", {"Law": (8, 10), "Patent": (2, 10)})
    assert compute_headline(run).micro == 0.5 and not compute_headline(run).weighted
    row = compute_headline(run, sizes={"Law": 900, "Patent": 100})
    assert (
        row.micro == pytest.approx(0.9 * 0.8 + 0.1 * 0.2) and row.weighted and row.low < row.micro < row.high
    )
    pair = compare_pair(
        run,
        small("lora", {"Law": (8, 10), "Patent": (4, 10)}),
        ComparisonSettings(sizes={"Law": 900, "Patent": 100}),
    )
    assert pair.micro.first == pytest.approx(row.micro) and pair.micro.difference == pytest.approx(0.02)
    assert any(
        "weights each subject by its full number" in line
        for line in verdict_lines(pair, get_translator("en"))
    )


def test_reading_is_counted_once_and_named_as_what_hides() -> None:
    """Half of the first run's answers could not be read: no letter prior, and what remains is 0."""
    frame = predictions(1, skill=0.8, sizes={"Law": 900, "Math": 900})
    lost = pl.col("row") % 2 == 0
    hidden = frame.with_columns(
        pl.when(lost).then(None).otherwise("prediction").alias("prediction"),
        (pl.col("correct") & ~lost).alias("correct"),
    )
    pair = compare_pair(loaded("base", hidden), loaded("lora", frame), QUICK)
    assert pair.letters is not None and pair.letters.method == "logprobs"
    [split] = pair.letters.splits
    assert pair.letters.reading == pytest.approx(pair.micro.difference, abs=0.02)
    assert abs(split.letter_prior.value) < 0.02 and abs(split.remaining.value) < 0.02
    better = predictions(1, skill=1.3, sizes={"Law": 900, "Math": 900})
    unread = better.with_columns(
        pl.when(lost).then(None).otherwise("prediction").alias("prediction"),
        (pl.col("correct") & ~lost).alias("correct"),
    )
    pair = compare_pair(loaded("base", frame), loaded("lora", unread), QUICK)
    said = " ".join(verdict_lines(pair, get_translator("en")))
    assert "answers that became unreadable hide a gain" in said and "a worse habit" not in said


def test_the_verdict_is_a_headline_and_at_most_three_sentences_without_flags() -> None:
    import re

    from kmmlu_fast.reporting.wording.language import text_table
    from kmmlu_fast.reporting.wording.verdict import word_verdict

    first = loaded("base", predictions(1, skill=0.5))
    pair = compare_pair(first, loaded("lora", predictions(1, skill=1.5)), QUICK)
    verdict = word_verdict(pair, get_translator("en"))
    assert "is better than" in verdict.headline and 1 <= len(verdict.sentences) <= 3 and verdict.details
    for lang in ("en", "ko"):
        flags = {key for key, text in text_table("common", lang).items() if re.search(r"--[a-z]", text)}
        assert flags <= {"exams_left_out"}  # a note under a table, not a verdict


def test_detectable_differences_follow_the_printed_error() -> None:
    """One big subject, 44 of three questions: the weighted error decides, not the number of questions."""
    from kmmlu_fast.data.subjects import SUBJECTS

    names = list(SUBJECTS)
    sizes = {names[0]: (400, 900), **dict.fromkeys(names[1:], (1, 3))}
    second = {names[0]: (420, 900), **dict.fromkeys(names[1:], (2, 3))}
    equal = ComparisonSettings(sizes=dict.fromkeys(names, 1000))
    pair = compare_pair(small("base", sizes), small("lora", second), equal)
    effect = pair.micro.detectable_effect(0.05 / 4)
    assert effect == pytest.approx((2.4977 + 0.8416) * pair.micro.error, rel=1e-3)
    assert effect > 0.05


def test_a_gap_not_two_significances_makes_the_leak_caution() -> None:
    """A uniform gain is less significant on part of the questions: that alone is no leak."""
    cautioned = 0
    for seed in range(12):
        frames = [predictions(seed, skill=skill, sizes={"Law": 400, "Math": 400}) for skill in (0.6, 0.75)]
        ids = frames[0]["question_id"].to_list()
        overlap = frozenset(ids[seed % 3 :: 3])
        pair = compare_pair(
            loaded("base", frames[0]), loaded("lora", frames[1]), ComparisonSettings(overlap=overlap)
        )
        cautioned += pair.only_leaked
    assert cautioned <= 1
