"""Rows drawn from exams other than KMMLU: any number of options, the exam's own test guarded, its terms on
the card, weak subjects by a run over its train split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exam_files import ROW_OF, write_jsonl
from tiny import make_tiny_model

from kmmlu_fast import sample
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.contamination import compared_rows
from kmmlu_fast.contamination.check import find_table_overlap
from kmmlu_fast.core.letters import reorder_question
from kmmlu_fast.core.schema import OPTION_LETTERS, Question
from kmmlu_fast.data.alpaca import SftRow, read_sft_rows, sft_row_from_record, sft_row_to_record
from kmmlu_fast.data.exam_lookup import find_exam
from kmmlu_fast.data.exam_rows import load_exam, questions_from_frame
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.sampling import draw
from kmmlu_fast.sampling.config import SampleConfig
from kmmlu_fast.sampling.job import draw_training_rows
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.inputs import read_training_inputs

TRAIN, TEST = 60, 10


def numbered(row: int, count: int, subject: str) -> dict[str, Any]:
    options = [f"{row}번 문제의 {place}째 보기는 {row * 7 + place}" for place in range(count)]
    return {
        "question": f"{subject}에서 {row}번째로 묻는 것은 무엇인가?",
        "options": options,
        "answer": OPTION_LETTERS[row % count],
        "subject": subject,
    }


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A declared exam of 2 to 10 options in two subjects; three of its train rows are test questions."""
    test = [numbered(row, 2 + row % 9, "국어" if row % 2 else "산수") for row in range(TEST)]
    train = [numbered(100 + row, 2 + row % 9, "국어" if row % 2 else "산수") for row in range(TRAIN)]
    write_jsonl(tmp_path / "mine" / "test.jsonl", test)
    write_jsonl(tmp_path / "mine" / "train.jsonl", [*train, *test[:3]])
    lines = (
        "title: 내 시험",
        "path: mine",
        "question: question",
        "options: options",
        "answer: answer",
        "coding: letter",
        "subject: subject",
        "splits: {test: test, train: train}",
        "licence: CC-BY-ND-4.0",
    )
    (tmp_path / "mine.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(tmp_path / "mine.yaml")


def drawn(mine: str, tmp_path: Path, *more: str) -> Any:
    argv = ["--exam", mine, "--out", str(tmp_path / "sft.jsonl"), "--overwrite", *more]
    return draw_training_rows(parse_config(SampleConfig, argv, "sample"))


def test_rows_of_two_to_ten_options_come_from_train_and_never_from_test(
    mine: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="kmmlu_fast"):
        found = drawn(mine, tmp_path, "--strategy", "uniform", "--size", "40")
    assert "licence is CC-BY-ND-4.0: check whether it allows training" in caplog.text
    source = {q.question_id: q for q in questions_from_frame(load_exam(find_exam(mine), "train"))}
    assert len(found.rows) == 40 and {len(row.question.options) for row in found.rows} > {2, 5, 10}
    for row in found.rows:
        assert (
            row.exam == "mine"
            and reorder_question(source[row.question.question_id], row.option_order) == row.question
        )
    assert set(found.dropped["train_id"]) == {f"mine/train/{TRAIN + place}" for place in range(3)}
    assert not {row.question.question_id for row in found.rows} & set(found.dropped["train_id"])
    assert dict(found.plan.select("subject", "drawn").iter_rows()) == {"국어": 20, "산수": 20}
    card = (tmp_path / "sft.md").read_text(encoding="utf-8")
    assert "exam: 내 시험 (its declaration on training: ask)" in card and "must not be published" in card
    assert read_sft_rows(tmp_path / "sft.jsonl") == found.rows
    assert drawn(mine, tmp_path, "--strategy", "uniform", "--size", "40").rows == found.rows


def test_what_was_drawn_is_trained_on_and_read_by_the_guard(mine: str, tmp_path: Path) -> None:
    rows = drawn(mine, tmp_path, "--strategy", "uniform", "--size", "30").rows
    argv = ["--data", str(tmp_path / "sft.jsonl"), "--dataset", "sample", "--held-out", "5"]
    material = read_training_inputs(parse_config(TrainConfig, argv, "train"))
    assert len(material.questions) + len(material.held_out) == 30 and len(material.held_out) == 5
    assert {row.question.question_id for row in material.questions} < {r.question.question_id for r in rows}
    guarded = load_exam(find_exam(mine), "train")
    pairs, count = find_table_overlap(str(tmp_path / "sft.jsonl"), guarded)
    assert count == 30 and pairs["train_id"].n_unique() == 30
    assert set(pairs.filter(pairs["similarity"] == 1)["kind"]) <= {"exact", "reordered", "normalised"}


def test_a_run_over_train_says_which_subject_is_weak_and_its_questions_stay_out(
    mine: str, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "base", letters="".join(OPTION_LETTERS))
    argv = ["--model", str(model), "--exam", mine, "--split", "train", "--limit", "6", "--output-dir"]
    config = parse_config(EvalConfig, [*argv, str(tmp_path / "runs"), "--adapter-mode", "serve"], "eval")
    (run,) = run_evaluation(config, lambda adapters, length, path: FakeEngine())
    found = drawn(mine, tmp_path, "--from", str(run.path), "--size", "20")
    asked = set(run.predictions["question_id"])
    assert len(asked) == 12 and found.facts["excluded"] == len(asked - set(found.dropped["train_id"]))
    assert not asked & {row.question.question_id for row in found.rows}
    assert found.facts["source_split"] == "train" and found.facts["weak_prior"].startswith("none")
    assert found.plan["weight"].sum() == pytest.approx(1)
    assert found.plan["errors"].sum() == (~run.predictions["correct"]).sum()
    assert (
        sample.run_sample_command(
            ["--from", str(run.path), "--out", str(tmp_path / "x.jsonl"), "--dataset", "sample"]
        )
        == 2
    )


@pytest.mark.parametrize("name", ["kormedmcqa", "kobest"])
def test_shipped_exams_with_a_train_split(name: str, tmp_path: Path) -> None:
    if name == "kormedmcqa":
        for split, first in (("test", 0), ("train", 500), ("fewshot", 900)):
            rows = [ROW_OF[name](first + row) for row in range(30 if split == "train" else 5)]
            write_jsonl(tmp_path / "data" / "doctor" / f"{split}.jsonl", rows)
    else:
        for split, first in (("test", 0), ("train", 500), ("validation", 900)):
            rows = [
                {
                    "paragraph": hashlib.sha256(f"{first + row}".encode()).hexdigest(),
                    "question": f"{first + row}번째 물음은 참인가?",
                    "label": row % 2,
                }
                for row in range(30 if split == "train" else 5)
            ]
            write_jsonl(tmp_path / "data" / f"boolq-{split}.jsonl", rows)
    argv = ["--exam", name, "--dataset", str(tmp_path / "data"), "--strategy", "proportional", "--size", "8"]
    found = draw_training_rows(
        parse_config(SampleConfig, [*argv, "--out", str(tmp_path / "x.jsonl")], "sample")
    )
    options = 5 if name == "kormedmcqa" else 2
    assert len(found.rows) == 8 and {len(row.question.options) for row in found.rows} == {options}
    letters = Counter(row.question.answer for row in found.rows)
    assert max(letters.values()) - min(letters.values()) <= 1 and len(letters) == options
    assert find_exam(name).licence in (tmp_path / "x.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [2, 3, 5, 6, 10])
def test_uses_of_a_question_differ_and_their_letters_are_balanced(count: int) -> None:
    options = tuple(f"{place}째 말" for place in range(count))
    question = Question(
        question_id="own/train/0",
        subject="own",
        supercategory="own",
        split="train",
        row=0,
        question="무엇인가?",
        options=options,
        answer="B",
    )
    uses = draw.count_allowed_uses(question, 24)
    assert uses == min(24, {2: 2, 3: 6}.get(count, 24)) == draw.subject_capacity([question], 24)["own"]
    orders = draw.option_orders([(question, repeat) for repeat in range(uses)], seed=1)
    assert len(set(orders)) == uses and all(sorted(order) == list(question.letters) for order in orders)
    letters = Counter(reorder_question(question, order).answer for order in orders)
    assert max(letters.values()) - min(letters.values()) <= 1 and len(letters) == min(count, uses)


def test_a_row_of_another_exam_is_read_back_and_its_faults_are_named() -> None:
    question = Question(
        question_id="own/가/train/7",
        subject="가",
        supercategory="나",
        split="train",
        row=7,
        question="A. 무엇인가?",
        options=("하나", "둘"),
        answer="B",
    )
    row = SftRow(question=question, strategy="uniform", option_order="BA", exam="own")
    record = sft_row_to_record(row)
    assert record["instruction"] == "다음 객관식 문제를 읽고 A, B 중 정답을 고르시오."
    assert sft_row_from_record(json.loads(json.dumps(record)), "x") == row
    for change, message in (
        ({"answer": "C"}, "answer 'C' is not A or B"),
        ({"option_order": "ABC"}, "not a question and three lines"),
        ({"source_id": "other/train/7"}, "is not own/.../<split>/<row>"),
        ({"exam": 5}, "is not the name of an exam"),
    ):
        with pytest.raises(Exception, match=message):
            sft_row_from_record(record | change, "x")


def test_a_row_that_says_it_is_a_test_question_of_a_shipped_exam_is_believed() -> None:
    claims = compared_rows.is_held_out_source
    assert claims("Math/test/3") and claims("kormedmcqa/doctor/test/3")
    assert claims("kobalt/test/0") and not claims("kobalt/train/0")
    assert not claims("my-data/test/3") and not claims(3)
