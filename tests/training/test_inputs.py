"""What is trained on: forms mixed, held out, checked against every exam at hand, before anything heavy
starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from exam_files import write_exam, write_jsonl

from kmmlu_fast.contamination.check import find_training_overlap, load_guarded_exams
from kmmlu_fast.core.errors import ConfigError, DataError, TrainError
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import find_subjects
from kmmlu_fast.data.training_rows import read_training_rows
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.inputs import data_digest, read_training_inputs, source_digest

ALPACA = [{"instruction": f"{i}에 1을 더하면?", "input": "", "output": str(i + 1)} for i in range(30)]


def config(*data: object, **settings: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"data": [str(d) for d in data], "dataset": "sample", "guard": ["none"], **settings}
    )


def test_foreign_rows_are_held_out_and_kmmlus_letters_are_asked(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*ALPACA, ALPACA[0]])
    found = read_training_inputs(config(path, held_out=6, forgetting=10))
    assert len(found.held_out) == 6 and len(found.rows) + 6 in (30, 31)
    said = {row.text for row in found.rows}  # type: ignore[union-attr]
    assert not said & {row.text for row in found.held_out}  # type: ignore[union-attr]
    assert len(found.asked) == 10 and found.asked_of == "sample train" and found.shares[0].duplicates == 1
    assert len({row.question.subject for row in found.asked}) > 5
    again = read_training_inputs(config(path, held_out=6, forgetting=10))
    assert again.asked == found.asked and again.held_out == found.held_out


def test_our_own_rows_are_what_they_always_were(tmp_path: Path) -> None:
    questions = dataset.load_questions("sample", "train", find_subjects(["STEM"]))[:24]
    path = tmp_path / "sft.jsonl"
    sft.write_sft_rows(path, [sft.SftRow(question=question, strategy="uniform") for question in questions])
    found = read_training_inputs(config(path, held_out=4))
    assert {type(row) for row in [*found.rows, *found.held_out]} == {sft.SftRow} and not found.asked
    assert len(found.rows) == 20 == len(found.questions)


def test_explanations_are_trained_on_where_asked(tmp_path: Path) -> None:
    rows = [
        {"question": f"{i}?", "options": ["가", "나"], "answer": "B", "explanation": f"까닭 {i}"}
        for i in range(8)
    ]
    path = write_jsonl(tmp_path / "q.jsonl", rows)
    plain = read_training_inputs(config(path, held_out=0, keep="last"))
    given = read_training_inputs(config(path, held_out=0, keep="last", rationale="given"))
    assert [row.response for row in plain.questions] == [None] * 8
    assert given.questions[3].response == "까닭 3\n정답: B"
    write_jsonl(path, [{k: v for k, v in row.items() if k != "explanation"} for row in rows])
    with pytest.raises(TrainError, match=r"q\.jsonl row 1: --rationale given needs an explanation"):
        read_training_inputs(config(path, held_out=0, keep="last", rationale="given"))


def quoting_chat(question: Any) -> dict[str, Any]:
    options = "\n".join(f"{i}) {text}" for i, text in enumerate(question.options, 1))
    return {
        "messages": [
            {"role": "user", "content": "안녕하세요. 오늘 시험을 준비하고 있습니다."},
            {"role": "assistant", "content": "무엇을 도와드릴까요?"},
            {
                "role": "user",
                "content": f"이 문제가 어렵습니다.\n{question.question}\n{options}\n왜 그런가요?",
            },
            {"role": "assistant", "content": "차근차근 살펴보겠습니다."},
        ]
    }


def test_a_test_question_quoted_in_the_middle_of_a_chat_is_found(tmp_path: Path) -> None:
    question = dataset.load_questions("sample", "test", find_subjects(["Accounting"]))[1]
    path = write_jsonl(tmp_path / "chat.jsonl", [quoting_chat(question)])
    with pytest.raises(TrainError) as caught:
        read_training_inputs(config(path, ALPACA and write_jsonl(tmp_path / "a.jsonl", ALPACA)))
    assert f"chat.jsonl row 1 ~ {question.question_id}" in str(caught.value) and "contained 1" in str(
        caught.value
    )


def test_every_named_exam_is_guarded_and_every_form_is_looked_at(tmp_path: Path) -> None:
    folder = write_exam(tmp_path / "click", "click", 12)
    declaration = tmp_path / "mine.yaml"
    declaration.write_text(
        f"path: {folder / 'train.jsonl'}\nquestion: question\noptions: choices\nanswer: answer\ncoding:"
        " text\n",
        encoding="utf-8",
    )
    guarded = load_guarded_exams("sample", [str(declaration)])
    assert guarded.exams == ["sample test", "mine test"] and "E" in guarded.frame.columns
    kmmlu = dataset.load_questions("sample", "test", find_subjects(["Math"]))[0]
    mine = guarded.frame.filter(pl.col("question_id").str.starts_with("mine")).row(1, named=True)
    options = [mine[letter] for letter in "ABCDE" if mine[letter] is not None]
    rows = [
        ALPACA[0],
        {"question": mine["question"], "options": options[::-1], "answer": "A"},
        {"prompt": f"다음을 보라: {kmmlu.question} {' '.join(kmmlu.options)}", "completion": "네"},
        {
            "conversations": [
                {"from": "human", "value": "그냥 묻는 말"},
                {"from": "gpt", "value": mine["question"] + " ".join(options)},
            ]
        },
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    pairs = find_training_overlap(read_training_rows(str(path)), guarded.frame)
    found = {(train.rsplit(" ", 1)[1], kind) for train, kind in pairs.select("train_id", "kind").iter_rows()}
    assert ("2", "reordered") in found and ("3", "contained") in found and ("4", "contained") in found
    assert not any(row == "1" for row, _ in found)
    with pytest.raises(ConfigError, match="unknown exam"):
        load_guarded_exams("sample", ["nonsense"])


def test_pieces_give_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kmmlu_fast.contamination import check

    questions = dataset.load_questions("sample", "test")
    path = write_jsonl(tmp_path / "chat.jsonl", [quoting_chat(question) for question in questions[::9]])
    target = load_guarded_exams("sample", ["none"]).frame
    whole = find_training_overlap(read_training_rows(str(path)), target)
    monkeypatch.setattr(check, "ROWS_AT_ONCE", 3)
    assert find_training_overlap(read_training_rows(str(path)), target).equals(whole)
    assert set(whole["test_id"]) >= {question.question_id for question in questions[::9]}


def test_the_digest_of_one_file_is_what_it_was_and_of_a_mixture_counts_all(tmp_path: Path) -> None:
    from kmmlu_fast.core.digests import hash_file

    one, two = write_jsonl(tmp_path / "1.jsonl", ALPACA), write_jsonl(tmp_path / "2.jsonl", ALPACA[:5])
    assert data_digest(config(one)) == hash_file(one)
    assert (
        len({data_digest(config(*data)) for data in ((one,), (one, two), (one, f"{two}:0.5"), (two, one))})
        == 4
    )


def test_a_folders_digest_counts_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_jsonl(folder / "0.jsonl", ALPACA[:5])
    before = data_digest(config(folder))
    assert source_digest(f"{folder}/*.jsonl") == source_digest(str(folder)) == before
    write_jsonl(folder / "1.jsonl", ALPACA[5:])
    assert data_digest(config(folder)) != before
    assert len(read_training_inputs(config(folder, held_out=2)).rows) == 28


def test_questions_of_two_files_with_the_same_number_are_two_questions(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "options": ["가", "나"], "answer": "B"} for i in range(10)]
    paths = [
        write_jsonl(tmp_path / name, [row | {"question": f"{name} {row['question']}"} for row in rows])
        for name in ("a.jsonl", "b.jsonl")
    ]
    found = read_training_inputs(config(*paths, held_out=4))
    assert len(found.held_out) == 4 and len(found.rows) == 16  # none is lost with its namesake


def test_turns_last_bad_rows_and_coding_reach_the_rows(tmp_path: Path) -> None:
    turns = [("user", "하나?"), ("assistant", "둘."), ("user", "셋?"), ("assistant", "넷.")]
    chat = {"messages": [{"role": role, "content": text} for role, text in turns]}
    ones = [{"question": f"{i}?", "options": ["가", "나", "다"], "answer": 1} for i in range(3)]
    path = write_jsonl(tmp_path / "a.jsonl", [chat, {"messages": []}, *ones])
    settings = {"held_out": 0, "keep": "last", "bad_rows": "drop", "answer_coding": "From-1", "turns": "last"}
    found = read_training_inputs(config(path, **settings))
    assert [turn.trained for turn in found.rows[0].turns if turn.role == "assistant"] == [False, True]  # type: ignore[union-attr]
    assert [row.question.answer for row in found.questions] == ["A"] * 3
    assert found.shares[0].left_out.total() == 1
    later = ("bad_rows", "answer_coding", "turns")
    assert not set(later) & config("x").result_settings().keys()


def test_settings_that_cannot_work_are_refused_with_the_reason() -> None:
    for settings, said in (
        ({"init_lora_weights": "loftq"}, "changes the base's weights"),
        ({"modules_to_save": ["lm_head"]}, "vLLM"),
        ({"target_modules": ["q_proj", "v_prj", "lm_head"]}, "lm_head: .*leave them out; .*v_prj: .*v_proj"),
    ):
        with pytest.raises(ValueError, match=said):
            config("x", **settings)
    assert (
        "columns" not in config("x").result_settings()
        and "columns" in config("x", columns=["prompt=a"]).result_settings()
    )


def test_what_cannot_be_read_stops_before_anything_heavy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl row 2: output is empty"):
        read_training_inputs(
            config(write_jsonl(tmp_path / "a.jsonl", [ALPACA[0], {**ALPACA[1], "output": ""}]))
        )


@pytest.mark.parametrize("hub", ["LGAI-EXAONE/KMMLU-Pro", "haerae-hub/KMMLU-HARD:0.5"])
def test_an_exam_that_forbids_training_is_refused_by_its_hub_id(hub: str) -> None:
    with pytest.raises(
        ConfigError, match=r"must not be trained on: its declaration says 'training: forbidden'"
    ):
        read_training_inputs(config(hub))
