"""One source per exam: the same questions for every verb, whichever reader the exam has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.data.dataset import load_questions, questions_digest
from kmmlu_fast.data.exam_lookup import find_exam
from kmmlu_fast.data.exam_source import ExamSource, find_exam_sources

ROWS = [
    {"question": f"{n} 더하기 1은?", "options": [str(n + 1), "0", "99"], "answer": "A", "subject": subject}
    for subject in ("덧셈", "산수")
    for n in range(1, 4)
]


@pytest.fixture()
def own_exam(tmp_path: Path) -> Path:
    """A declared exam with test and dev, two subjects, three options."""
    for split in ("test", "dev"):
        lines = (json.dumps(row, ensure_ascii=False) for row in ROWS)
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    declared = (
        "path: .\nquestion: question\noptions: options\nanswer: answer\ncoding: letter\nsubject: subject\n"
    )
    (tmp_path / "plus.yaml").write_text(declared + "splits: {test: test, dev: dev}\n", encoding="utf-8")
    return tmp_path / "plus.yaml"


def sample() -> ExamSource:
    return ExamSource(find_exam("kmmlu"), "sample")


def test_kmmlus_questions_are_the_datasets(own_exam: Path) -> None:
    read = sample().read_questions("test", ["Law", "Math"]).value
    assert {question.subject for question in read} == {"Law", "Math"}
    everything = load_questions("sample", "test")
    assert questions_digest(read) == questions_digest(q for q in everything if q.subject in ("Law", "Math"))
    assert sample().split_digest("test") == questions_digest(everything)


def test_another_exams_questions_are_its_own(own_exam: Path) -> None:
    (source,) = find_exam_sources([str(own_exam)], "HAERAE-HUB/KMMLU")
    assert source.dataset is None and Path(source.place) == own_exam.parent
    assert [q.subject for q in source.read_questions("test", ["산수"]).value] == ["산수"] * 3
    assert source.split_digest("test") is not None and source.split_digest("train") is None
    with pytest.raises(ConfigError, match="--subjects 물리"):
        source.read_questions("test", ["물리"])


def test_exemplars(own_exam: Path) -> None:
    source = ExamSource(find_exam(str(own_exam)))
    assert [q.row for q in source.load_exemplars(["산수"], 2)["산수"]] == [3, 4]
    assert source.load_exemplars(["산수"], 0) == {"산수": []}
    with pytest.raises(DataError, match="has only 3 dev questions"):
        source.load_exemplars(["산수"], 4)
    assert list(sample().load_exemplars(["Math", "Law"], 1)) == ["Law", "Math"]  # the table's order


def test_exemplars_of_an_exam_without_dev(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(json.dumps(ROWS[0], ensure_ascii=False), encoding="utf-8")
    with pytest.raises(ConfigError, match="has no dev split"):
        ExamSource(find_exam(str(tmp_path / "mine.jsonl"))).load_exemplars(["덧셈"], 1)


def test_slug_and_label_name_the_rows() -> None:
    kmmlu = find_exam("kmmlu")
    assert ExamSource(kmmlu, "sample").slug == "sample"
    assert ExamSource(kmmlu, "HAERAE-HUB/KMMLU").slug == ExamSource(kmmlu, "x/kmmlu").slug == "kmmlu"
    assert ExamSource(find_exam("click"), "/somewhere/else").slug == "click"
    assert ExamSource(find_exam("click")).label == "CLIcK"


def test_only_real_kmmlu_has_public_results() -> None:
    kmmlu = find_exam("kmmlu")
    assert ExamSource(kmmlu, "HAERAE-HUB/KMMLU").has_public_results
    assert not ExamSource(kmmlu, "sample").has_public_results
    assert not ExamSource(find_exam("click")).has_public_results


def test_groups_count_subjects_without_rows(own_exam: Path) -> None:
    frame = sample().read_split("test", ["Law"]).value
    assert len(sample().subject_groups(frame)) == 45
    assert sample().subject_groups(frame, ["Law"]) == {"Law": "HUMSS"}
    source = ExamSource(find_exam(str(own_exam)))
    assert list(source.subject_groups(source.read_split("test").value)) == ["덧셈", "산수"]
    assert source.resolve_subjects(["산수"], {"덧셈": "plus", "산수": "plus"}) == ["산수"]
    assert source.resolve_subjects(["plus"], {"덧셈": "plus", "산수": "plus"}) == ["덧셈", "산수"]


def test_input_files_are_those_that_are_read(own_exam: Path) -> None:
    names = {path.name for path in ExamSource(find_exam(str(own_exam))).input_files()}
    assert names >= {"test.jsonl", "dev.jsonl"}
    assert sample().input_files() == []
    table = ExamSource(find_exam(str(own_exam)), str(own_exam.parent / "test.jsonl"))
    assert table.input_files() == [own_exam.parent / "test.jsonl"]
