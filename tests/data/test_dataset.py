"""Reading the hub's layout: what is survived, what is refused, and what is counted in the real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS, find_subject, find_subjects

HEAD = "question,answer,A,B,C,D,Category,Human Accuracy\n"
ROW = "하늘의 색은?,3,빨강,검정,파랑,하양,Law,0.5\n"
REAL = Path(__file__).resolve().parents[2].parent / "shared" / "kmmlu"
real_data = pytest.mark.skipif(not REAL.is_dir(), reason="the KMMLU data is not beside the checkout")


def write(folder: Path, name: str, text: str) -> None:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / name).write_text(text, encoding="utf-8")


def test_answers_become_letters_and_lower_case_stems_are_found(tmp_path: Path) -> None:
    write(tmp_path, "korean-history-test.csv", HEAD + ROW)
    [question] = dataset.load_questions(str(tmp_path), "test", [SUBJECTS["Korean-History"]])
    expected = ("Korean-History/test/0", "HUMSS", "C", ("빨강", "검정", "파랑", "하양"), 0.5)
    assert (
        question.question_id,
        question.supercategory,
        question.answer,
        question.options,
        question.human_accuracy,
    ) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (HEAD + ROW.replace(",3,", ",5,"), "row 0: answer '5' is not allowed"),
        (HEAD + ROW + ROW.replace(",3,", ",,"), "row 1: answer '' is not allowed"),
        (HEAD + ROW.replace("하늘의 색은?", " "), "row 0: question is empty"),
        (HEAD + ROW.replace("파랑", ""), "row 0: C is empty"),
        ("question,answer,A,B,C\nx,1,a,b,c\n", "lacks column D"),
        ("", "is empty"),
    ],
)
def test_bad_files_are_refused_with_file_and_row(tmp_path: Path, text: str, part: str) -> None:
    write(tmp_path, "Law-test.csv", text)
    with pytest.raises(DataError, match=r"Law-test\.csv") as caught:
        dataset.load_frame(str(tmp_path), "test", [SUBJECTS["Law"]])
    assert part in str(caught.value)


def test_two_files_of_one_subject_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "math-test.csv", HEAD + ROW)
    write(tmp_path, "Math-test.csv", HEAD + ROW)
    with pytest.raises(DataError, match="second file for Math"):
        dataset.load_frame(str(tmp_path), "test", [SUBJECTS["Math"]])


def test_missing_train_files_are_survived_with_one_note_and_missing_test_files_are_not(
    tmp_path: Path,
) -> None:
    write(tmp_path, "Law-train.csv", HEAD + ROW)
    write(tmp_path, "Law-test.csv", HEAD + ROW)
    found = dataset.read_frame(str(tmp_path), "train", find_subjects(["Law", "Math"]))
    assert len(found.value) == 1
    assert found.notes == (f"{tmp_path}: no train file for Math; continuing without",)
    with pytest.raises(DataError, match="no test file for Math"):
        dataset.load_frame(str(tmp_path), "test", find_subjects(["Law", "Math"]))


@pytest.mark.parametrize("name", ["/no/such/dir", "nosuchdataset", "./missing"])
def test_an_unknown_dataset_is_one_line(name: str) -> None:
    with pytest.raises(DataError, match="no such directory"):
        dataset.load_frame(name, "test")


def test_a_file_that_is_no_table_is_pointed_to_exam(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("{}\n")
    with pytest.raises(DataError, match=r"is one file, and no table.*by --exam"):
        dataset.load_frame(str(path), "test")


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(DataError, match="hub cannot be reached"):
        dataset.load_frame("someone/something", "test")


def questions(subject: str, count: int) -> list[Question]:
    return [
        Question(
            question_id=f"{subject}/test/{i}",
            subject=subject,
            supercategory="HUMSS",
            split="test",
            row=i,
            question=f"문항 {i}",
            options=("a", "b", "c", "d"),
            answer="A",
        )
        for i in range(count)
    ]


def test_random_selection_is_stable_nested_and_in_file_order() -> None:
    pool = questions("Law", 50) + questions("Math", 3)
    five, nine = (dataset.select_questions(pool, n, "random", 7) for n in (5, 9))
    assert {q.question_id for q in five} <= {q.question_id for q in nine}
    assert [q.row for q in five if q.subject == "Law"] == sorted(q.row for q in five if q.subject == "Law")
    assert sum(q.subject == "Math" for q in five) == 3
    assert (
        dataset.select_questions(pool, 5, "random", 7)
        == five
        != dataset.select_questions(pool, 5, "random", 8)
    )
    assert [q.row for q in dataset.select_questions(pool, 2, "first", 7)] == [0, 1, 0, 1]


def test_digest_sees_a_changed_key() -> None:
    from dataclasses import replace

    one = questions("Law", 2)
    assert (
        dataset.questions_digest(one)
        == dataset.questions_digest(questions("Law", 2))
        != dataset.questions_digest([one[0], replace(one[1], answer="B")])
    )


def test_exemplars_keep_the_files_order_and_say_when_there_are_too_few() -> None:
    shots = dataset.load_kmmlu_exemplars("sample", [SUBJECTS["Law"]], 2)
    assert [q.question_id for q in shots["Law"]] == ["Law/dev/0", "Law/dev/1"]
    with pytest.raises(DataError, match="Law has 2 dev questions"):
        dataset.load_kmmlu_exemplars("sample", [SUBJECTS["Law"]], 5)


def test_subject_names_forgive_case_and_supercategories_expand() -> None:
    assert find_subject("korean_history").name == "Korean-History"
    assert len(find_subjects(["STEM"])) == 11 and len(find_subjects([])) == 45
    with pytest.raises(ConfigError, match="did you mean Accounting"):
        find_subject("Acounting")


@real_data
def test_real_data_counts() -> None:
    test = dataset.load_frame(str(REAL), "test")
    assert len(test) == 35030 and test["subject"].n_unique() == 45
    sizes = dict(test.group_by("supercategory").len().iter_rows())
    assert sizes == {"STEM": 9900, "Applied Science": 11600, "HUMSS": 5130, "Other": 8400}
    train = dataset.read_frame(str(REAL), "train")
    assert len(train.value) == 155332 and len(train.notes) == 1
    assert "Computer-Science, Construction, Industrial-Engineer" in train.notes[0]


def test_a_frames_digest_is_its_records_digest() -> None:
    frame = dataset.load_frame("sample", "test")
    assert dataset.frame_digest(frame) == dataset.questions_digest(dataset.kmmlu_questions_from_frame(frame))
    assert dataset.frame_digest(frame.head(3)) != dataset.frame_digest(frame)
