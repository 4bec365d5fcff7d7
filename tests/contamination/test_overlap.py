"""leakage: planted rows of every kind are found, honest neighbours are kept, third-party files
are read as they come.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from kmmlu_fast import leakage
from kmmlu_fast.contamination import overlap, shingles
from kmmlu_fast.contamination.compared_rows import compare_record
from kmmlu_fast.core import digests
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.data import dataset
from kmmlu_fast.data.records import question_and_options, read_records
from kmmlu_fast.data.subjects import find_subject

KMMLU = Path(__file__).resolve().parents[3] / "shared" / "kmmlu"
needs_kmmlu = pytest.mark.skipif(not KMMLU.exists(), reason="../shared/kmmlu is absent")

SUBJECTS = ("회계", "기상", "항해", "조경", "제빵")
THINGS = (
    "감가상각비",
    "이동평균",
    "등압선",
    "나침반",
    "관목",
    "효모",
    "밀가루",
    "적란운",
    "수심",
    "전정",
    "재고자산",
    "해풍",
)
ASPECTS = (
    "측정 시기",
    "표준 단위",
    "보관 온도",
    "검사 주기",
    "기록 방법",
    "허용 오차",
    "담당 부서",
    "작업 순서",
)


def invented(count: int, split: str = "test") -> pl.DataFrame:
    """``count`` distinct questions, wordy enough to be told apart."""
    draw = random.Random(f"{split}:{count}")
    rows, seen = [], set()
    while len(rows) < count:
        subject, thing, aspect, other = (
            draw.choice(SUBJECTS),
            draw.choice(THINGS),
            draw.choice(ASPECTS),
            draw.choice(THINGS),
        )
        number = draw.randint(2, 99)
        text = f"{subject} 실무에서 {thing}의 {aspect}을(를) {number}회 점검할 때 {other}과(와) 함께 확인할 사항은?"  # noqa: E501
        if (key := (subject, thing, aspect, other)) in seen:
            continue
        seen.add(key)
        options = [
            f"{w} {draw.randint(10, 999)}{u}"
            for w, u in zip(draw.sample(THINGS, 4), ("시간", "킬로그램", "미터", "일간"), strict=True)
        ]
        rows.append((f"Accounting/{split}/{len(rows)}", text, *options, draw.choice(LETTERS)))
    return pl.DataFrame(rows, schema=["question_id", "question", *LETTERS, "answer"], orient="row")


def planted(test: pl.DataFrame, change) -> pl.DataFrame:
    """Every test row changed by ``change(question, options)``, under a train id of the same number."""
    rows = []
    for qid, question, *rest in test.iter_rows():
        question, options = change(question, rest[:4])
        rows.append((qid.replace("/test/", "/train/"), question, *options, rest[4]))
    return pl.DataFrame(rows, schema=test.schema, orient="row")


def one_character(text: str, draw: random.Random) -> str:
    position = draw.choice([i for i, c in enumerate(text) if unicodedata.category(c)[0] in "LN"])
    return text[:position] + ("힣" if text[position] != "힣" else "갸") + text[position + 1 :]


CHANGES = {
    "exact": lambda q, o: (q, o),
    "normalised": lambda q, o: (
        " ".join(q.replace(" ", "")) + " .",
        [f"( {x.replace(' ', '')} )" for x in o],
    ),
    "reordered": lambda q, o: (q, o[::-1]),
    "question": lambda q, o: (q, ["가나다라 1", "마바사아 2", "자차카타 3", "파하거너 4"]),
    "near": lambda q, o: (one_character(q, random.Random(q)), o[2:] + o[:2]),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_every_planted_row_is_found_under_its_kind(kind: str):
    test = invented(120)
    pairs = overlap.find_overlapping_rows(planted(test, CHANGES[kind]), test)
    same = pairs.filter(pl.col("train_id") == pl.col("test_id").str.replace("/test/", "/train/"))
    assert dict(same.select("test_id", "kind").iter_rows()) == dict.fromkeys(test["question_id"], kind)
    assert same["similarity"].max() <= 1.0


def test_full_width_and_compatibility_forms_are_the_same():
    test = invented(20).with_columns(A=pl.lit("ABC 12 ㎏"))
    full = planted(test, lambda q, o: (q.replace("실무", "실무"), ["ＡＢＣ １２ kg", *o[1:]]))
    assert set(
        overlap.find_overlapping_rows(full, test).filter(pl.col("kind") == "normalised")["test_id"]
    ) == set(test["question_id"])


def test_an_honest_neighbour_is_kept():
    """Same subject and vocabulary, another question: nothing planted, nothing dropped."""
    rows = [
        (
            "Accounting/train/0",
            "감가상각비를 정액법으로 계산할 때 필요하지 않은 것은?",
            "취득원가",
            "잔존가치",
            "내용연수",
            "시장이자율",
            "D",
        ),
        (
            "Accounting/train/1",
            "다음 중 옳은 것은?",
            "해풍은 낮에 분다",
            "해풍은 밤에 분다",
            "해풍은 겨울에만 분다",
            "해풍은 불지 않는다",
            "A",
        ),
    ]
    test_rows = [
        (
            "Accounting/test/0",
            "재고자산을 이동평균법으로 평가할 때 사용하는 장부는?",
            "매입장",
            "현금출납장",
            "상품재고장",
            "총계정원장",
            "C",
        ),
        (
            "Accounting/test/1",
            "다음 중 옳은 것은?",
            "효모는 빛을 낸다",
            "효모는 당을 분해한다",
            "효모는 금속이다",
            "효모는 기체이다",
            "B",
        ),
    ]
    schema = ["question_id", "question", *LETTERS, "answer"]
    train, test = (pl.DataFrame(r, schema=schema, orient="row") for r in (rows, test_rows))
    assert overlap.find_overlapping_rows(train, test).is_empty()


def test_a_generic_stem_counts_only_with_shared_options():
    schema = ["question_id", "question", *LETTERS, "answer"]
    test = pl.DataFrame(
        [("Accounting/test/0", "옳은 것은?", "하나의 값", "둘의 값", "셋", "넷", "A")],
        schema=schema,
        orient="row",
    )
    for options, expected in (
        (("하나의 값", "둘의 값", "다섯", "여섯"), 1),
        (("하나의 값", "일곱", "다섯", "여섯"), 0),
    ):
        train = pl.DataFrame(
            [("Accounting/train/0", "옳은 것은?", *options, "A")], schema=schema, orient="row"
        )
        pairs = overlap.find_overlapping_rows(train, test, near=1.1)  # question alone, without help from near
        assert pairs["kind"].to_list() == ["question"] * expected


def test_similarity_is_the_true_jaccard_and_the_threshold_holds():
    test = invented(40)
    pairs = overlap.find_overlapping_rows(planted(test, CHANGES["near"]), test)
    near = pairs.filter(pl.col("kind") == "near")
    assert (near["similarity"] >= overlap.NEAR).all() and (near["similarity"] < 1).all()
    higher = float(near["similarity"].median())  # type: ignore[arg-type]
    stricter = overlap.find_overlapping_rows(planted(test, CHANGES["near"]), test, near=higher).filter(
        pl.col("kind") == "near"
    )
    assert set(stricter.iter_rows()) == {row for row in near.iter_rows() if row[3] >= higher}


def records(kind: str, test: pl.DataFrame) -> list[dict]:
    """Test rows in third-party layouts."""
    made = []
    for _, q, a, b, c, d, answer in test.select("question_id", "question", *LETTERS, "answer").iter_rows():
        if kind == "alpaca":
            made.append(
                {
                    "instruction": "다음 문제의 정답을 고르세요.",
                    "input": f"{q}\nA. {a}\nB. {b}\nC. {c}\nD. {d}",
                    "output": answer,
                }
            )
        elif kind == "experiment":
            text = f"문제: {q}\n\n선택지:\n1) {a}\n2) {b}\n3) {c}\n4) {d}"
            made.append(
                {"instruction": text, "input": "", "output": f"정답은 {answer}입니다.", "category": "HUMSS"}
            )
        elif kind == "messages":
            made.append(
                {
                    "messages": [
                        {"role": "user", "content": f"{q} (가) {d} (나) {c} (다) {b} (라) {a}"},
                        {"role": "assistant", "content": "가"},
                    ]
                }
            )
        elif kind == "question only":
            made.append({"prompt": f"질문입니다. {q}", "completion": "잘 모르겠습니다."})
        elif kind == "options list":
            made.append({"question": q, "choices": [d, a, c, b], "answer": 0})
        elif kind == "one character":
            made.append({"text": f"### 질문 {one_character(q, random.Random(q))} ① {a} ② {b} ③ {c} ④ {d}"})
    return made


def record_overlap(rows: list[dict[str, Any]], test: pl.DataFrame) -> pl.DataFrame:
    target = overlap.build_overlap_target(test)
    compared = [compare_record(row, f"row {number}") for number, row in enumerate(rows, 1)]
    anchors = shingles.build_anchors(target.keys, overlap.MIN_STEM)
    return overlap.match_compared_rows(compared, target, anchors)


@pytest.mark.parametrize(
    "kind", ["alpaca", "experiment", "messages", "question only", "options list", "one character"]
)
def test_all_500_leaked_rows_of_a_third_party_file_are_found(kind: str, tmp_path: Path):
    test = invented(500)
    leaked, clean = records(kind, test), records(kind, invented(100, "train"))
    path = tmp_path / "third_party.jsonl"
    path.write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in leaked + clean), encoding="utf-8"
    )
    pairs = record_overlap(read_records(path), test)
    own = {(f"row {i + 1}", f"Accounting/test/{i}") for i in range(500)}
    assert own <= set(pairs.select("train_id", "test_id").iter_rows())


def test_unrelated_free_text_is_not_flagged():
    texts = [{"text": "오늘 회의에서는 다음 달 일정과 예산을 정하였다. 점심은 국밥이었다."}, {"text": "짧다"}]
    assert record_overlap(texts, invented(200)).is_empty()


def test_a_row_that_names_a_test_question_is_flagged_whatever_its_text():
    rows = [
        {"instruction": "x", "input": "바꿔 쓴 글", "output": "A", "source_id": "Math/test/3"},
        {"input": "y", "source_id": "Math/train/3"},
    ]
    assert record_overlap(rows, invented(5)).rows() == [("row 1", "Math/test/3", "source", 1.0)]


def write_dataset(folder: Path, **frames: pl.DataFrame) -> Path:
    (folder / "data").mkdir(parents=True)
    for split, frame in frames.items():
        number = pl.col("answer").replace_strict(dict(zip(LETTERS, "1234", strict=True)))
        frame.select("question", number, *LETTERS).write_csv(folder / "data" / f"Accounting-{split}.csv")
    return folder


def one_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset of one subject: the default is all 45."""
    monkeypatch.setattr(dataset, "SUBJECTS", {"Accounting": find_subject("Accounting")})


def test_command_exits_1_lists_and_writes_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    one_subject(monkeypatch)
    test = invented(30)
    root = write_dataset(tmp_path / "kmmlu", test=test, dev=invented(5, "dev"), train=invented(30, "train"))
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(records("alpaca", test)[7], ensure_ascii=False), encoding="utf-8")
    output = tmp_path / "ids.json"
    assert leakage.run_leakage_command([str(path), "--dataset", str(root), "--output", str(output)]) == 1
    printed = capsys.readouterr().out
    assert "row 1 ~ Accounting/test/7" in printed
    assert "Accounting/test/7" in json.loads(output.read_text(encoding="utf-8"))["test_ids"]
    path.write_text(json.dumps({"text": "관계없는 글"}, ensure_ascii=False), encoding="utf-8")
    assert leakage.run_leakage_command([str(path), "--dataset", str(root)]) == 0


def test_dev_exemplars_are_guarded_and_stay_off_the_clean_test_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one_subject(monkeypatch)
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    dev = invented(5, "dev")
    root = write_dataset(tmp_path / "kmmlu", test=invented(30), dev=dev, train=invented(10, "train"))
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(records("alpaca", dev)[2], ensure_ascii=False), encoding="utf-8")
    assert "Accounting/dev/2" in overlap.find_file_overlap(path, str(root))["test_id"]
    assert not any("/dev/" in i for i in overlap.overlap_ids(str(root), train_file=path))


def test_repeated_rows_and_contradicting_keys():
    schema = ["question_id", "question", *LETTERS, "answer"]
    rows = [
        ("a", "물음 하나", "가", "나", "다", "라", "A"),
        ("b", "물음 하나 ", "라", "다", "나", "가", "D"),  # the same, reordered, same right option
        ("c", "물음 둘", "가", "나", "다", "라", "A"),
        ("d", "물음 둘", "가", "나", "다", "라", "B"),  # another key
        ("e", "물음 셋", "가", "나", "다", "라", "B"),
    ]
    assert overlap.repeated_rows(pl.DataFrame(rows, schema=schema, orient="row")) == (["b"], ["c", "d"])


def test_overlap_ids_are_cached_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one_subject(monkeypatch)
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    test = invented(30)
    root = write_dataset(
        tmp_path / "one", test=test, dev=invented(5, "dev"), train=planted(test.head(4), CHANGES["reordered"])
    )
    first = overlap.overlap_ids(str(root))
    assert {f"Accounting/test/{i}" for i in range(4)} <= first
    assert len(list((tmp_path / "cache" / "overlap").glob("*.parquet"))) == 1
    monkeypatch.setattr(overlap, "find_overlapping_rows", lambda *_: pytest.fail("computed again"))
    assert overlap.overlap_ids(str(root)) == first
    monkeypatch.undo()
    one_subject(monkeypatch)
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    other = write_dataset(tmp_path / "two", test=test, dev=invented(5, "dev"), train=invented(10, "train"))
    assert overlap.overlap_ids(str(other)) != first


def test_files_that_lie_there_as_before_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_subject(monkeypatch)
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_YOUNG_SEC", 0.0)
    test, dev = invented(30), invented(5, "dev")
    root = write_dataset(
        tmp_path / "one", test=test, dev=dev, train=planted(test.head(4), CHANGES["reordered"])
    )
    first = overlap.overlap_ids(str(root))
    with monkeypatch.context() as reading:
        reading.setattr(dataset, "read_frame", lambda *_, **__: pytest.fail("read again"))
        assert overlap.overlap_ids(str(root)) == first
    for damaged in (tmp_path / "cache" / "overlap").iterdir():
        damaged.write_bytes(b"../../elsewhere.parquet")
    assert overlap.overlap_ids(str(root)) == first  # found once more
    more = write_dataset(
        tmp_path / "two", test=test, dev=dev, train=planted(test.head(6), CHANGES["reordered"])
    )
    (more / "data" / "Accounting-train.csv").replace(root / "data" / "Accounting-train.csv")
    assert overlap.overlap_ids(str(root)) > first
    with monkeypatch.context() as young:
        young.setattr(digests, "_YOUNG_SEC", 3600.0)
        young.setattr(dataset, "read_frame", lambda *_, **__: pytest.fail("not trusted"))
        with pytest.raises(pytest.fail.Exception, match="not trusted"):
            overlap.overlap_ids(str(root))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        ('{"a": 1}\n{oops', "row 2: is not valid JSON"),
        ("[1, 2]", "row 1: is a int"),
        ("\n", "has no rows"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, content: str, message: str):
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(message)) as raised:
        read_records(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def kmmlu() -> tuple[pl.DataFrame, pl.DataFrame]:
    return dataset.load_frame(str(KMMLU), "train"), dataset.load_frame(str(KMMLU), "test")


@needs_kmmlu
def test_rows_planted_into_the_real_pool_are_all_found(kmmlu: tuple[pl.DataFrame, pl.DataFrame]):
    """The whole pool of 155,332 rows, and 2,000 leaked rows among them."""
    train, test = kmmlu
    ids = random.Random(1).sample(test["question_id"].to_list(), 2000)
    chosen = test.select("question_id", "question", *LETTERS, "answer").filter(
        pl.col("question_id").is_in(ids)
    )
    parts = [planted(chosen.slice(i * 400, 400), change) for i, change in enumerate(CHANGES.values())]
    pool = pl.concat(
        [
            train.select(chosen.columns),
            *[
                p.with_columns((pl.lit("planted/") + pl.col("question_id")).alias("question_id"))
                for p in parts
            ],
        ]
    )
    pairs = overlap.find_overlapping_rows(pool, test)
    own = pairs.filter(
        pl.col("train_id") == pl.lit("planted/") + pl.col("test_id").str.replace("/test/", "/train/")
    )
    missed = set(chosen["question_id"]) - set(own["test_id"])
    short = {
        q
        for q, stem in chosen.select("question_id", "question").iter_rows()
        if len(re.sub(r"[\W_]", "", stem)) < overlap.MIN_STEM
    }
    generic = short & set(chosen["question_id"][1200:1600])  # other options under a short stem: kept by rule
    assert missed == generic


@needs_kmmlu
def test_plain_python_agrees_on_what_is_the_same_in_the_real_data(kmmlu: tuple[pl.DataFrame, pl.DataFrame]):
    """Whitespace removed, sets and dictionaries only: every test row found so is on our list too."""
    train, test = kmmlu

    def squeezed(frame: pl.DataFrame) -> dict[str, str]:
        columns = frame.select("question", *LETTERS, "question_id").iter_rows()
        return {
            qid: "|".join(["".join(q.split()), *sorted("".join(o.split()) for o in options)])
            for q, *options, qid in columns
        }

    pool = set(squeezed(train).values())
    plain = {qid for qid, text in squeezed(test).items() if text in pool}
    assert len(plain) == 601
    assert plain <= set(overlap.find_overlapping_rows(train, test)["test_id"])


def test_training_rows_come_back_as_questions(tmp_path: Path):
    """Kept here as well as in test_sft: the guard must see the same question and options that
    training sees.
    """
    question = Question(
        question_id="Math/train/3",
        subject="Math",
        supercategory="STEM",
        split="train",
        row=3,
        question="식 1 + 1의 값은?",
        options=("1", "2", "3", "4"),
        answer="B",
    )
    row = sft.SftRow(question=question, strategy="uniform")
    assert question_and_options(sft.sft_row_to_record(row)) == (question.question, *question.options)
