"""sample: the command end to end, on the packaged sample and on the shared data, and one clear
line for each mistake.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from kmmlu_fast import sample
from kmmlu_fast.contamination import overlap
from kmmlu_fast.core.notes import WithNotes
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA
from kmmlu_fast.core.schema import LETTERS
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.sampling import card as data_card
from kmmlu_fast.sampling.pool import QuestionPool, read_weakness_source

SHARED = Path(__file__).resolve().parents[3] / "shared"
KMMLU, REFERENCE = SHARED / "kmmlu", SHARED / "reference" / "ax4_light_zeroshot.json"
needs_shared = pytest.mark.skipif(not (KMMLU.exists() and REFERENCE.exists()), reason="../shared is absent")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for the module: the overlap of the whole data is computed once."""
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path_factory.getbasetemp() / "sample-cache"))


def score_file(path: Path, **wrong: int) -> Path:
    """A score file of all subjects, 10 questions each, 2 wrong by default."""
    rows = [
        {"subject": name, "total": 10, "correct": 10 - wrong.get(name.replace("-", "_"), 2)}
        for name in SUBJECTS
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def run_directory(path: Path, split: str = "train", rows: int = 2) -> Path:
    """A complete run over the first ``rows`` sample questions of each subject; Math and Law all
    wrong, the rest right.
    """
    frame = dataset.load_frame("sample", split).filter(pl.col("row") < rows)
    wrong = pl.col("subject").is_in(["Math", "Law"])
    other = pl.when(pl.col("answer") == "A").then(pl.lit("B")).otherwise(pl.lit("A"))
    known = frame.with_columns(
        pl.when(wrong).then(other).otherwise("answer").alias("prediction"),
        (~wrong).alias("correct"),
        pl.lit(1.5).alias("margin"),
        pl.lit("loglikelihood").alias("read_by"),
        pl.lit(False).alias("forced"),
    )
    columns = [
        pl.col(n).cast(t) if n in known.columns else pl.lit(None, dtype=t).alias(n)
        for n, t in PREDICTION_SCHEMA.items()
    ]
    path.mkdir(parents=True)
    known.select(columns).write_parquet(path / "predictions.parquet")
    for name in ("config", "environment", "metrics"):
        (path / f"{name}.json").write_text(
            json.dumps({"name": "base", "fingerprint_parts": {"model": "tiny"}}), encoding="utf-8"
        )
    return path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = sample.run_sample_command([str(a) for a in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a mistake gives."""
    code, _, err = call(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err
    return lines[0]


def test_a_score_file_gives_rows_plan_and_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "data" / "sft.jsonl"
    scores = score_file(tmp_path / "scores.json", Math=9, Law=7)
    code, printed, err = call(capsys, "--from", scores, "--dataset", "sample", "--size", 30, "--out", out)
    assert code == 0
    rows = sft.read_sft_rows(out)
    assert len(rows) == 30 and {row.strategy for row in rows} == {"strategic"}
    assert {row.question.split for row in rows} == {"train"}
    plan = pl.read_parquet(out.with_suffix(".plan.parquet"))
    assert plan["quota"].sum() == plan["drawn"].sum() == 30
    assert set(plan.filter("weak")["subject"]) == {"Math", "Law"}
    assert Counter(row.question.subject for row in rows) == {
        n: c for n, c in plan.select("subject", "drawn").iter_rows() if c
    }
    card = out.with_suffix(".md").read_text(encoding="utf-8")
    for text in ("seed: 42", "CC0", "taken to be of test", str(scores), "| Math |"):
        assert text in card
    assert "taken to be of test" in err
    for text in ("Math", "quota", "supply", "drawn", "weight", "errors"):
        assert text in printed


@pytest.mark.parametrize(("width", "shown"), [(80, 4), (120, 9), (200, 15)])
def test_a_narrow_terminal_keeps_the_key_columns(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    shown: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out = tmp_path / "sft.jsonl"
    scores = score_file(tmp_path / "s.json")
    code, printed, _ = call(capsys, "--from", scores, "--dataset", "sample", "--size", 20, "--out", out)
    printed = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    head = next(line for line in printed.splitlines() if "subject" in line)
    assert code == 0 and max(len(line) for line in printed.splitlines() if line[0] in "│├┌└") <= width
    assert {"subject", "drawn"} <= set(head.replace("┃", " ").split()) and head.count("┃") == shown + 1


def test_the_same_input_gives_the_same_bytes_and_another_seed_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    scores = score_file(tmp_path / "s.json", Math=9)
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.jsonl"
        assert (
            call(capsys, "--from", scores, "--dataset", "sample", "--size", 20, "--out", out, "--seed", seed)[
                0
            ]
            == 0
        )
        files.append(out.read_bytes())
    assert files[0] == files[1] != files[2]


def test_a_train_run_is_excluded_from_the_pool_and_gives_no_warning_of_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = run_directory(tmp_path / "run")
    out = tmp_path / "sft.jsonl"
    code, _, err = call(capsys, "--from", run, "--dataset", "sample", "--size", 40, "--out", out)
    assert code == 0 and "optimistic" not in err
    held_out = set(pl.read_parquet(run / "predictions.parquet")["question_id"])
    assert not held_out & {row.question.question_id for row in sft.read_sft_rows(out)}
    assert set(pl.read_parquet(out.with_suffix(".plan.parquet")).filter("weak")["subject"]) == {"Math", "Law"}
    assert "optimistic" not in out.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.parametrize("strategy", ["strategic", "errors"])
def test_several_sources_are_pooled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    """Two runs that share the first row of each subject: each question counts once, none is drawn again."""
    few, more = (
        run_directory(tmp_path / "runs" / name, rows=rows) for name, rows in (("few", 1), ("more", 2))
    )
    out = tmp_path / "sft.jsonl"
    flags = ["--dataset", "sample", "--size", 4, "--out", out, "--strategy", strategy]
    assert call(capsys, "--from", few, more, *flags)[0] == 0
    plan = pl.read_parquet(out.with_suffix(".plan.parquet"))
    assert set(plan["total"]) == {2}
    assert dict(plan.filter(pl.col("correct") == 0).select("subject", "correct").iter_rows()) == {
        "Math": 0,
        "Law": 0,
    }
    asked = set(pl.read_parquet(more / "predictions.parquet")["question_id"])
    drawn = {row.question.question_id for row in sft.read_sft_rows(out)}
    assert len(drawn) == 4 and (drawn <= asked if strategy == "errors" else not drawn & asked)
    card = out.with_suffix(".md").read_text(encoding="utf-8")
    assert f"{few}, {more}" in card


def test_runs_and_score_files_go_together(tmp_path: Path) -> None:
    run = run_directory(tmp_path / "run")
    scores = score_file(tmp_path / "scores.json", Math=9)
    source = read_weakness_source([str(run), str(scores)], "strategic")
    assert source.run is not None and source.split == "train, test"
    counted = {name: (right, total) for name, _, right, total in source.run.scores.iter_rows()}
    assert counted["Math"] == (1, 12) and counted["Law"] == (8, 12) and counted["Accounting"] == (10, 12)
    assert len(source.run.frame) == 90 and any("taken to be of test" in text for text in source.warnings)


def test_where_two_runs_disagree_the_mean_counts(tmp_path: Path) -> None:
    first, second = (run_directory(tmp_path / name) for name in ("a", "b"))
    path = second / "predictions.parquet"
    is_math = pl.col("subject") == "Math"
    answer = pl.when(is_math).then("answer").otherwise("prediction").alias("prediction")
    pl.read_parquet(path).with_columns(answer, (is_math | pl.col("correct")).alias("correct")).write_parquet(
        path
    )
    run = read_weakness_source([str(first), str(second)], "errors").run
    assert run is not None
    counted = {name: (correct, total) for name, _, correct, total in run.scores.iter_rows()}
    assert counted["Math"] == (1, 2) and counted["Law"] == (0, 2) and counted["Accounting"] == (2, 2)
    assert not run.frame.filter(pl.col("subject") == "Math")["correct"].any()  # --strategy errors draws these


def test_a_test_run_is_allowed_with_a_warning_in_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "sft.jsonl"
    code, _, err = call(
        capsys,
        "--from",
        run_directory(tmp_path / "run", "test"),
        "--dataset",
        "sample",
        "--size",
        10,
        "--out",
        out,
    )
    assert code == 0 and "a run over test" in err
    assert "a run over test" in out.with_suffix(".md").read_text(encoding="utf-8")


def test_a_run_over_another_dataset_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = run_directory(tmp_path / "run")
    (run / "config.json").write_text(
        json.dumps({"name": "base", "config": {"dataset": "elsewhere"}}), encoding="utf-8"
    )
    code, _, err = call(
        capsys, "--from", run, "--dataset", "sample", "--size", 5, "--out", tmp_path / "sft.jsonl"
    )
    assert code == 0 and "the run was over --dataset elsewhere" in err


def test_errors_strategy_draws_only_wrong_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = run_directory(tmp_path / "run")
    out = tmp_path / "sft.jsonl"
    assert (
        call(capsys, "--from", run, "--dataset", "sample", "--size", 3, "--strategy", "errors", "--out", out)[
            0
        ]
        == 0
    )
    wrong = pl.read_parquet(run / "predictions.parquet").filter(~pl.col("correct"))["question_id"]
    assert {row.question.question_id for row in sft.read_sft_rows(out)} <= set(wrong)
    assert "larger than the" in error(
        capsys,
        "--from",
        run,
        "--dataset",
        "sample",
        "--size",
        300,
        "--strategy",
        "errors",
        "--out",
        tmp_path / "x.jsonl",
    )


def test_repeats_fill_a_small_subject_under_other_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "sft.jsonl"
    flags = (
        "--dataset",
        "sample",
        "--strategy",
        "uniform",
        "--subjects",
        "Math,Law",
        "--size",
        16,
        "--out",
        out,
    )
    assert "larger than" in error(capsys, *flags)
    assert call(capsys, *flags, "--max-repeats", 4)[0] == 0
    rows = sft.read_sft_rows(out)
    assert len({(row.question.question_id, row.option_order) for row in rows}) == 16
    assert set(Counter(row.question.answer for row in rows).values()) == {4}


def test_mistakes_are_one_clear_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scores = score_file(tmp_path / "s.json", Math=9)
    base = ("--dataset", "sample", "--out", tmp_path / "x.jsonl")
    assert "--size 500 is larger than the" in error(capsys, *base, "--from", scores)
    assert "unknown subject 'Maths'" in error(capsys, *base, "--from", scores, "--subjects", "Maths")
    assert "does not exist" in error(capsys, *base, "--from", tmp_path / "absent")
    assert "--strategy strategic needs --from" in error(capsys, *base)
    broken = tmp_path / "broken.json"
    broken.write_text('{"subset_scores": [{"subset": "Math",', encoding="utf-8")
    assert "broken.json" in error(capsys, *base, "--from", broken)
    broken.write_text('[{"subject": "Math", "total": 5, "correct": 9}]', encoding="utf-8")
    assert "Math" in error(capsys, *base, "--from", broken)
    assert "needs a run directory with predictions" in error(
        capsys, *base, "--from", scores, "--strategy", "errors"
    )
    assert "--weak-fraction" in error(
        capsys, *base, "--from", scores, "--weak-fraction", "0.3", "--weak-subjects", "Math"
    )
    assert "--permute-options" in error(
        capsys, *base, "--from", scores, "--max-repeats", 3, "--no-permute-options"
    )
    (tmp_path / "x.jsonl").write_text("kept", encoding="utf-8")
    assert "--overwrite" in error(capsys, *base, "--from", scores, "--size", 10)
    assert (tmp_path / "x.jsonl").read_text(encoding="utf-8") == "kept"


def test_a_pool_that_is_all_leaked_is_empty_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(
        "KMMLU_FAST_CACHE", str(tmp_path / "cache")
    )  # where the true files' overlap is not known
    whole = dataset.read_frame
    monkeypatch.setattr(
        dataset,
        "read_frame",
        lambda name, split, subjects=None, revision=None: WithNotes(
            whole(name, "test", subjects, revision).value.with_columns(
                pl.col("question_id").str.replace("/test/", f"/{split}/"), pl.lit(split).alias("split")
            )
        ),
    )
    message = error(
        capsys, "--dataset", "sample", "--strategy", "uniform", "--size", 5, "--out", tmp_path / "x.jsonl"
    )
    assert "pool is empty" in message


def bare(text: str) -> str:
    """Independent of the guard: NFKC, letters and digits only, plain Python."""
    return "".join(
        c for c in unicodedata.normalize("NFKC", text).lower() if unicodedata.category(c)[0] in "LN"
    )


@needs_shared
def test_500_rows_from_the_reference_scores_share_nothing_with_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The independent check: Python sets over the files as they are."""
    out = tmp_path / "sft.jsonl"
    code, printed, _ = call(capsys, "--from", REFERENCE, "--dataset", KMMLU, "--size", 500, "--out", out)
    assert code == 0 and "Electrical-Engineering" in printed
    records = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line]
    assert len(records) == 500 and len({r["source_id"] for r in records}) == 500
    items, stems = set(), set()
    import csv

    for path in sorted((KMMLU / "data").glob("*-test.csv")) + sorted((KMMLU / "data").glob("*-dev.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                items.add((bare(row["question"]), *sorted(bare(row[letter]) for letter in LETTERS)))
                stems.add(bare(row["question"]))
    assert len(items) > 34_000
    for record in records:
        question, *options = (
            record["input"]
            .replace("\nA. ", "\x00")
            .replace("\nB. ", "\x00")
            .replace("\nC. ", "\x00")
            .replace("\nD. ", "\x00")
            .split("\x00")
        )
        assert (bare(question), *sorted(map(bare, options))) not in items
        assert len(bare(question)) < overlap.MIN_STEM or bare(question) not in stems
        assert "/train/" in record["source_id"]
    letters = Counter(r["output"] for r in records)
    assert max(letters.values()) - min(letters.values()) <= 2
    plan = pl.read_parquet(out.with_suffix(".plan.parquet"))
    quota = dict(plan.select("subject", "quota").iter_rows())
    hard = (
        "Electrical-Engineering",
        "Energy-Management",
        "Environmental-Science",
        "Agricultural-Sciences",
        "Biology",
    )
    assert min(quota[s] for s in hard) > 500 / 45 > min(quota.values()) and sum(quota.values()) == 500
    card = out.with_suffix(".md").read_text(encoding="utf-8")
    assert (
        "public results of other models on KMMLU's test split" in card and "| shrunk | low | high |" in card
    )
    assert plan.filter(pl.col("subject").is_in(["Construction", "Computer-Science", "Industrial-Engineer"]))[
        "drawn"
    ].to_list() == [0, 0, 0]


def test_the_card_states_the_licence_of_the_source(tmp_path: Path):
    assert "CC0" in data_card.source_licence_text("sample")
    assert "must not be published" in data_card.source_licence_text("HAERAE-HUB/KMMLU")
    assert "not stated" in data_card.source_licence_text(str(tmp_path))
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    assert data_card.source_licence_text(str(tmp_path)).startswith("mit,")


def test_what_was_dropped_is_listed_with_its_reason():
    pairs = pl.DataFrame(
        [("Math/train/0", "Math/test/1", "near", 0.8)], schema=overlap.PAIR_SCHEMA, orient="row"
    )
    pool = QuestionPool(
        questions=[],
        size=9,
        overlapping=pairs,
        repeated=["Math/train/1"],
        conflicting=["Math/train/2"],
        excluded=0,
    )
    assert pool.dropped.select("train_id", "kind").rows() == [
        ("Math/train/0", "near"),
        ("Math/train/1", "repeated"),
        ("Math/train/2", "conflicting"),
    ]


@needs_shared
def test_the_written_rows_carry_their_source_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "sft.jsonl"
    assert (
        call(
            capsys,
            "--strategy",
            "proportional",
            "--dataset",
            KMMLU,
            "--size",
            60,
            "--out",
            out,
            "--subjects",
            "Math,Law",
        )[0]
        == 0
    )
    train = dataset.read_frame(str(KMMLU), "train")
    assert any("no train file" in text for text in train.notes)
    source = {q.question_id: q for q in dataset.kmmlu_questions_from_frame(train.value)}
    for row in sft.read_sft_rows(out):
        original = source[row.question.question_id]
        assert row.question.question == original.question.strip()
        assert sorted(row.question.options) == sorted(original.options)
        assert (
            row.question.options[LETTERS.index(row.question.answer)]
            == original.options[LETTERS.index(original.answer)]
        )
