"""Exams of any number of options met with verdicts, weights by subject size, early stopping and recipes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from exam_files import write_jsonl
from hypothesis import given
from hypothesis import strategies as st
from made_runs import loaded, predictions, run_directory
from tiny import make_tiny_adapter

from kmmlu_fast import compare, report
from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.endpoints import compare_endpoints
from kmmlu_fast.analysis.exam_comparison import exam_rows
from kmmlu_fast.analysis.gained_and_lost import find_question_features, with_relative_features
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.analysis.paired import asked_share, subject_size_weights
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.letters import REFERENCE_HINT, is_position_bound, position_reference_pattern
from kmmlu_fast.core.prediction_frames import predictions_frame
from kmmlu_fast.core.schema import OPTION_LETTERS, Prediction, Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.exam_rows import frame_from_questions, questions_from_frame
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation import engine_agreement
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.prompting.rotations import ALL, rotation_shifts
from kmmlu_fast.reporting.config import CompareConfig
from kmmlu_fast.reporting.early_pairs import shared_question_order
from kmmlu_fast.reporting.inputs import load_runs
from kmmlu_fast.reporting.terminal.summary import print_summary
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.verdict import verdict_lines
from kmmlu_fast.sampling.pool import read_weakness_source


def question(*options: str) -> Question:
    return Question(
        question_id="x/test/0",
        subject="x",
        supercategory="x",
        split="test",
        row=0,
        question="?",
        options=options,
        answer="A",
    )


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        (("하나", "둘", "셋", "넷", "5번과 같다"), True),  # one of five
        (("하나", "둘", "셋", "5번과 같다"), False),  # four options have no fifth
        (("하나", "둘", "셋", "넷", "A와 E"), True),
        (("하나", "둘", "셋", "A와 E"), False),
        (("가", "나", "위의 모두"), True),
        ((*(f"{place}의 수" for place in "가나다라마바사아자"), "10번뿐"), True),
        ((*(f"{place}의 수" for place in "가나다라마바사아자"), "⑩"), True),
        (("11번뿐", "둘"), False),
    ],
)
def test_what_names_other_options_goes_by_how_many_there_are(options: tuple[str, ...], bound: bool) -> None:
    assert is_position_bound(question(*options)) is bound
    assert rotation_shifts(question(*options), ALL) == ([0] if bound else list(range(len(options))))


@given(st.data(), st.integers(2, 10))
def test_the_hint_is_in_every_text_that_names_other_options(data: st.DataObject, options: int) -> None:
    """polars reads it over all questions at once; the pattern itself is searched only where it is found."""
    text = data.draw(st.from_regex(position_reference_pattern(options)))
    assert pl.Series([text]).str.contains(REFERENCE_HINT)[0]


def test_log_and_brier_score_of_three_and_five_options_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmmlu_fast.analysis.recalibration.FEWEST", 1_000)
    """Even odds over three, and over five: -ln 3 and -ln 5; the columns that a question has no
    option for hold nothing.
    """
    even = np.full(
        (100, 5), -40.0
    )  # the letters are unlikely among all tokens: absent ones must not gain by that
    options = np.array([3, 5] * 50)
    even[options == 3, 3:] = np.nan
    sure = even.copy()
    sure[:, 0] = 0.0
    found = {
        one.name: one
        for one in compare_endpoints(
            np.zeros(100, dtype=np.int64), np.zeros(100, dtype=np.int64), even, sure, options=options
        )
    }
    assert found["log_score"].first == pytest.approx(-(math.log(3) + math.log(5)) / 2)
    assert found["brier"].first == pytest.approx(((2 / 9 + 4 / 9) + (4 / 25 + 16 / 25)) / 2)
    assert found["log_score"].second == pytest.approx(0.0, abs=1e-9) and found["log_score"].better == 1


def five_options(skill: float, seed: int, questions: int = 300) -> pl.DataFrame:
    """Answers to questions of five options, one subject in two groups; E is the key of every fifth."""
    draw, rows = np.random.default_rng(seed), []
    for row in range(questions):
        answer = OPTION_LETTERS[row % 5]
        values = draw.normal(size=5) + np.where(np.arange(5) == row % 5, skill, 0.0)
        values = values - np.log(np.exp(values).sum())
        letter = OPTION_LETTERS[int(values.argmax())]
        four: dict[str, Any] = dict(
            zip(("logprob_A", "logprob_B", "logprob_C", "logprob_D"), map(float, values), strict=False)
        )
        rows.append(
            Prediction(
                question_id=f"five/test/{row}",
                subject="five",
                supercategory=("가", "나")[row % 3 == 0],
                split="test",
                row=row,
                answer=answer,
                prediction=letter,
                correct=letter == answer,
                read_by="loglikelihood",
                **four,
                margin=1.0,
                confidence=0.5,
                num_options=5,
                option_logprobs=values.tolist(),
                prompt_digest=f"{row:016x}",
            )
        )
    return predictions_frame(rows)


@pytest.mark.parametrize("population", ["like", "these"])
def test_five_options_have_a_verdict_endpoints_weights_and_a_letter_split(
    population: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kmmlu_fast.analysis.recalibration.FEWEST", 1_000)
    first, second = loaded("one", five_options(0.5, 1)), loaded("two", five_options(2.5, 2))
    pair = compare_pair(first, second, ComparisonSettings(population=population, sizes={"five": 900}))
    assert pair.significant and pair.population_size == 900
    split = pair.letters  # the key is even, and so are both runs' letters: nothing of it is habit
    assert split is not None and split.method == "logprobs" and split.key_shares == pytest.approx([0.2] * 5)
    part = split.splits[0]
    assert abs(part.letter_prior.value) < 0.05 and part.remaining.significant and part.remaining.value > 0.4
    score = pair.endpoints[0]
    assert score.name == "log_score" and score.better == 1
    logprobs = np.array(first.frame["option_logprobs"].to_list())
    assert score.first == pytest.approx(logprobs[np.arange(300), np.arange(300) % 5].mean())
    for lang in ("en", "ko"):
        lines = " ".join(verdict_lines(pair, get_translator(lang, "report")))
        assert "one" in lines and "two" in lines and ("KMMLU" not in lines)


def test_a_subject_of_two_groups_shares_its_weight_over_them() -> None:
    counts = pl.DataFrame({"subject": ["a", "a", "b"], "n": [10, 30, 40]})
    assert subject_size_weights(counts, {"a": 400, "b": 400}) is None  # already in proportion
    weights = subject_size_weights(counts, {"a": 400, "b": 1200})
    assert weights is not None and weights == pytest.approx([0.0625, 0.1875, 0.75])
    assert asked_share(counts, {"a": 400, "b": 400}) == pytest.approx([0.1, 0.1, 0.1])


def test_another_exam_s_subjects_are_not_weighted_by_the_sizes_of_the_one_in_focus() -> None:
    """KMMLU-HARD has KMMLU's subject names; its questions are its own."""
    sizes = {"Accounting": 4000, "Law": 100, "Math": 100, "Computer-Science": 100}
    one, other = loaded("base", predictions(1, 0.5)), loaded("lora", predictions(2, 2.0))
    runs = [
        replace(
            run,
            name=f"{exam}-{run.name}",
            config={"exam": {"name": exam, "title": exam.upper()}, "adapter": {"name": run.name}},
        )
        for exam in ("kmmlu", "kmmlu-hard")
        for run in (one, other)
    ]
    kmmlu, hard = exam_rows(runs, ComparisonSettings(sizes=sizes), "kmmlu")
    weighted = compare_pair(one, other, ComparisonSettings(sizes=sizes)).micro
    plain = compare_pair(one, other, ComparisonSettings()).micro
    assert weighted.difference != plain.difference
    for row, pair in ((kmmlu, weighted), (hard, plain)):
        base, lora = row.states
        assert lora.pair is not None and lora.pair.micro.difference == pytest.approx(pair.difference)
        assert lora.accuracy - base.accuracy == pytest.approx(pair.difference)


ROWS: list[dict[str, Any]] = [
    {
        "question_id": "x/test/0",
        "subject": "x",
        "supercategory": "x",
        "split": "test",
        "row": 0,
        "question": "?",
        "answer": "B",
        "A": "1",
        "B": "2",
        "C": "3",
    },
    {
        "question_id": "x/test/1",
        "subject": "x",
        "supercategory": "x",
        "split": "test",
        "row": 1,
        "question": "?",
        "answer": "E",
        "A": "1",
        "B": "2",
        "C": "3",
        "D": "4",
        "E": "5",
    },
    {
        "question_id": "x/test/2",
        "subject": "x",
        "supercategory": "x",
        "split": "test",
        "row": 2,
        "question": "?",
        "answer": "A",
        "A": "5번과 같다",
        "B": "나",
        "C": "다",
        "D": "라",
        "E": "마",
    },
]


def test_features_and_digest_of_questions_with_other_than_four_options() -> None:
    frame = frame_from_questions(ROWS)
    found = with_relative_features(find_question_features(frame), frozenset())
    assert found["number_middle"].to_list() == [True, False, False]
    assert found["all_of_the_above"].to_list() == [False, False, True]
    assert found["chars"].null_count() == 0
    assert dataset.frame_digest(frame) == dataset.questions_digest(questions_from_frame(frame))


@pytest.fixture(scope="module")
def model(ten_letter_model: Path) -> Path:
    return ten_letter_model


@pytest.fixture(scope="module")
def early(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The first 30 of two exams' questions, of base and adapter."""
    root = tmp_path_factory.mktemp("runs")
    rows = [
        {"question": f"{i}번째 물음", "options": list("가나다라마")[: 2 + i % 4], "answer": "AB"[i % 2]}
        for i in range(60)
    ]
    exam = write_jsonl(root / "own.jsonl", rows)
    lora = make_tiny_adapter(model, root / "lora")
    argv = [
        "--model",
        str(model),
        "--adapter",
        str(lora),
        "--adapter-mode",
        "serve",
        "--output-dir",
        str(root / "runs"),
    ]
    argv += ["--exam", "kmmlu", "--exam", str(exam), "--dataset", "kmmlu=sample", "--questions", "30"]
    return run_evaluation(parse_config(EvalConfig, argv, "eval"), lambda adapters, length, path: FakeEngine())


def test_several_exams_stop_early_each_along_its_own_order(
    early: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [(run.exam, run.state, run.total, run.prefix is not None) for run in early] == [
        ("kmmlu", "base", 30, True),
        ("kmmlu", "lora", 30, True),
        ("own", "base", 30, True),
        ("own", "lora", 30, True),
    ]
    assert early[2].prefix.total == 60 and set(early[2].frame["num_options"]) == {2, 3, 4, 5}
    assert shared_question_order(early[2:]).ease is None  # KMMLU's public difficulty is not this exam's
    print_summary(early)
    shown = capsys.readouterr().out
    assert "KMMLU:" in shown and "own:" in shown and shown.count("run directory") == 4


def test_early_runs_of_several_exams_are_compared_one_exam_at_a_time(
    early: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(run.path) for run in early]
    assert compare.run_compare_command(paths) == 2
    said = capsys.readouterr().err
    assert "one exam at a time" in said and "kmmlu, own" in said and "Traceback" not in said
    assert compare.run_compare_command([*paths, "--exam", "own"]) == 0
    assert "of 60" in capsys.readouterr().out
    assert compare.run_compare_command([paths[0], paths[3], "--exam", "own"]) == 2
    assert "only run of its exam" in capsys.readouterr().err


def test_a_recipe_of_another_exam_than_the_base_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = predictions(1)
    base, one, two = (run_directory(tmp_path / name, name, frame) for name in ("base", "s1", "s2"))
    document = json.loads((two / "config.json").read_text())
    (two / "config.json").write_text(json.dumps({**document, "exam": {"name": "click", "title": "CLIcK"}}))
    assert compare.run_compare_command([str(base), "--group", f"lora={one},{two}", "--overlap", "none"]) == 2
    assert "name runs of one exam" in capsys.readouterr().err


def test_rows_are_not_drawn_by_another_exam_s_weak_subjects(tmp_path: Path) -> None:
    run = run_directory(tmp_path / "own", "own", five_options(0.5, 1))
    document = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**document, "exam": {"name": "own", "title": "Own"}}))
    with pytest.raises(
        ConfigError, match=r"is a run over Own, whose subjects \(five, \.\.\.\) are not KMMLU's"
    ):
        read_weakness_source([str(run)], "strategic")


def test_two_engines_are_compared_over_all_letters_of_a_question() -> None:
    sink = engine_agreement.LetterSink()
    values = [-5.0, -4.0, -3.0, -2.0, -1.0]
    frame = five_options(0.5, 1, 1)
    row = {**frame.row(0, named=True), "option_logprobs": values}
    sink.append(Prediction(**row))
    assert sink.scores == {"five/test/0": tuple(values)}
    found = engine_agreement.compare_engine_scores(sink.scores, {"five/test/0": (*values[:4], -9.0)}, 0.01)
    assert found.lines()[-1].startswith("five/test/0: transformers E, vLLM D")


def test_a_table_is_of_the_exam_whose_questions_it_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of any other exam it would be refused, as if it were KMMLU's."""
    exam = tmp_path / "own.jsonl"
    rows = [{"question": f"{i} + 1?", **{o: str(i + n) for n, o in enumerate("ABCDE")}} for i in range(40)]
    write_jsonl(exam, [{**row, "answer": "B", "subject": "회계"} for row in rows])
    tables = [tmp_path / f"{name}.csv" for name in ("one", "two")]
    for shift, path in enumerate(tables):
        cells = [f"own/test/{i},{'ABCDE'[(i * (1 + shift)) % 5]}" for i in range(40)]
        path.write_text("\n".join(["question_id,m", *cells, ""]), encoding="utf-8")
    argv = [*map(str, tables), "--exam", str(exam)]
    assert compare.run_compare_command(argv) == 0, capsys.readouterr().err
    capsys.readouterr()
    run, _ = load_runs(parse_config(CompareConfig, argv, "compare"), at_least=2)[0]
    assert (run.exam, run.total) == ("own", 40)


def test_scores_of_more_questions_than_an_exam_has_are_not_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An exam of one's own may have a subject with the name of one of KMMLU's."""
    exam, scores = tmp_path / "own.jsonl", tmp_path / "scores.csv"
    rows = [{"question": f"{i} + 1?", **dict(zip("ABCD", "1234", strict=True))} for i in range(40)]
    write_jsonl(exam, [{**row, "answer": "B", "subject": "Math"} for row in rows])
    argv = [str(scores), "--exam", str(exam), "--output", str(tmp_path / "page.html"), "--overwrite"]
    scores.write_text("subject,correct,total\nMath,20,40\n", encoding="utf-8")
    assert report.run_report_command(argv) == 0, capsys.readouterr().err
    scores.write_text("subject,correct,total\nMath,100,300\n", encoding="utf-8")
    assert report.run_report_command(argv) == 2
    assert "none of the runs is of it; they are of kmmlu" in capsys.readouterr().err
