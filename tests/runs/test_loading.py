"""What compare and report take as a run, and what they refuse."""

import json
from pathlib import Path

import polars as pl
import pytest
from made_runs import SIZES, loaded, predictions, questions, run_directory
from score_runs import read_score_run

from kmmlu_fast.core.errors import DataError, RunError
from kmmlu_fast.core.files import write_files_together
from kmmlu_fast.core.prediction_frames import PREDICTION_SCHEMA
from kmmlu_fast.core.schema import LOGPROB_COLUMNS
from kmmlu_fast.runs.lm_eval_export import lm_eval_files
from kmmlu_fast.runs.loading import load_all_runs, load_run_argument


def table(path: Path, rows: str) -> Path:
    path.write_text("_config,_row,answer,one,two\n" + rows, encoding="utf-8")
    return path


def test_predictions_table(tmp_path: Path) -> None:
    file = table(
        tmp_path / "t.csv", "Accounting,0,B,B,a\nAccounting,1,A,FILTERED,\nKorean-History,0,C, c ,D\n"
    )
    one, two = load_run_argument(str(file))
    assert (one.name, two.name, one.kind) == ("one", "two", "table")
    assert one.frame.schema == PREDICTION_SCHEMA
    assert one.frame["question_id"].to_list() == [
        "Accounting/test/0",
        "Accounting/test/1",
        "Korean-History/test/0",
    ]
    assert one.frame["prediction"].to_list() == ["B", None, "C"] and one.frame["correct"].to_list() == [
        True,
        False,
        True,
    ]
    assert two.frame["prediction"].to_list() == ["A", None, "D"]
    assert one.scores.row(0) == ("Accounting", "HUMSS", 1, 2)
    assert [run.name for run in load_run_argument(f"{file}:two")] == ["two"]
    assert [run.name for run in load_all_runs([f"{file}:one", f"{file}:one"])] == ["one", "one (2)"]


def test_table_faults_name_file_and_row(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "Accounting,0,B,B,A\n")
    with pytest.raises(RunError, match="no column 'three'; its predictions are one, two"):
        load_run_argument(f"{file}:three")
    with pytest.raises(DataError, match="row 1: _row 'x' is not a whole number"):
        load_run_argument(str(table(tmp_path / "u.csv", "Accounting,0,B,B,A\nAccounting,x,B,B,A\n")))
    with pytest.raises(DataError, match="Accounting/test/0 appears in two rows"):
        load_run_argument(str(table(tmp_path / "v.csv", "Accounting,0,B,B,A\nAccounting,0,B,B,A\n")))
    with pytest.raises(DataError, match="row 0: answer is 5; give numbers from 1"):
        load_run_argument(str(table(tmp_path / "w.csv", "Accounting,0,5,B,A\n")))


def test_the_dataset_brings_or_checks_the_key(tmp_path: Path) -> None:
    key = pl.DataFrame({"question_id": ["Accounting/test/0"], "answer": ["B"]})
    file = tmp_path / "t.csv"
    file.write_text("_config,_row,one\nAccounting,0,B\n", encoding="utf-8")
    assert load_run_argument(str(file), key)[0].frame["correct"].to_list() == [True]
    with pytest.raises(DataError, match="has answer A, but B in --dataset"):
        load_run_argument(str(table(tmp_path / "u.csv", "Accounting,0,A,B,A\n")), key)


def test_run_directory(tmp_path: Path) -> None:
    frame = predictions(1)
    run = load_run_argument(str(run_directory(tmp_path / "base", "base", frame, dataset_digest="dd")))[0]
    assert run.kind == "run" and run.name == "base" and len(run.frame) == sum(SIZES.values())
    assert run.protocol == {
        "prompt_style": "lm-eval",
        "template_digest": "t",
        "output_type": "multiple_choice",
        "num_fewshot": 0,
    }


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"does not exist; give a run directory, an lm-eval output"):
        load_run_argument(str(tmp_path / "nothing"))
    with pytest.raises(RunError, match="neither config"):
        load_run_argument(str(tmp_path))
    file = tmp_path / "x.txt"
    file.write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match="is not a run directory"):
        load_run_argument(str(file))


def test_score_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"subset": "Accounting", "correct": 56, "total": 100},
        {"subset": "Math", "accuracy": 0.25, "total": 300},
    ]
    whole = tmp_path / "scores.json"
    whole.write_text(json.dumps({"model_id": "some/model", "subset_scores": rows}), encoding="utf-8")
    run = load_run_argument(str(whole))[0]
    assert (
        run.predictions is None
        and run.scores["correct"].to_list() == [56, 75]
        and run.facts == {"model": "some/model"}
    )
    with pytest.raises(RunError, match="scores by subject only"):
        _ = run.frame
    cut = tmp_path / "cut.json"
    cut.write_text(whole.read_text(encoding="utf-8").rstrip("}"), encoding="utf-8")
    found = read_score_run(cut)
    assert found.scores.equals(read_score_run(whole).scores) and found.facts == {"model": "some/model"}
    assert len(found.notes) == 1 and "ends without its closing" in found.notes[0]
    assert load_run_argument(str(cut))[0].notes == found.notes and read_score_run(whole).notes == ()
    with caplog.at_level("INFO", "kmmlu_fast"):
        load_all_runs([str(cut)])
    assert [record.getMessage() for record in caplog.records] == [f"warning: {found.notes[0]}"]
    csv = tmp_path / "scores.csv"
    csv.write_text("subject,correct,total\nLaw,3,4\n", encoding="utf-8")
    assert read_score_run(csv).scores.row(0) == ("Law", "HUMSS", 3, 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no scores"),
        ("{no", "not valid JSON"),
        ('[{"subject": "Law", "correct": 5, "total": 4}]', "5 of 4"),
        ('[{"subject": "Law"}]', "entry 0"),
        (
            '[{"subject": "Law", "correct": 1, "total": 4}, {"subject": "law", "correct": 1, "total": 4}]',
            "twice",
        ),
    ],
)
def test_score_file_faults(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "s.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_score_run(file)


@pytest.mark.parametrize("logprobs", [True, False])
def test_lm_eval_files_come_back_as_they_went(tmp_path: Path, logprobs: bool) -> None:
    frame = predictions(
        1, logprobs=logprobs, text=None if logprobs else "정답은 B.", sizes={"Law": 20, "Korean-History": 10}
    )
    from kmmlu_fast.reporting.files.lm_eval_output import lm_eval_documents

    documents = lm_eval_documents(questions(frame))
    run = loaded("some/model", frame, num_fewshot=5)
    files = lm_eval_files(tmp_path / "out", run, frame, documents, "2026-01-01T00-00-00.000001")
    (tmp_path / "out").mkdir()
    write_files_together(files)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    prefix = "kmmlu" if logprobs else "kmmlu_direct"
    assert names[1] == f"samples_{prefix}_korean_history_2026-01-01T00-00-00.000001.jsonl"
    run = load_run_argument(str(tmp_path / "out"))[0]
    assert (run.name, run.kind, run.facts["num_fewshot"]) == ("some/model", "lm-eval", 5)
    both = run.frame.sort("question_id"), frame.sort("question_id")
    for column in ("question_id", "answer", "prediction", "correct", *(LOGPROB_COLUMNS if logprobs else ())):
        assert (
            both[0][column].to_list() == pytest.approx(both[1][column].to_list())
            if column in LOGPROB_COLUMNS
            else both[0][column].equals(both[1][column])
        )
    for path in (tmp_path / "out").glob("samples_*"):
        path.unlink()
    alone = load_run_argument(str(tmp_path / "out"))[0]
    assert alone.predictions is None and alone.scores.equals(run.scores)


def test_lm_eval_results_of_other_benchmarks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results_x.json").write_text(
        json.dumps({"results": {"hellaswag": {"acc,none": 0.5}, "mmlu_pro_law": {"acc,none": 0.1}}}),
        encoding="utf-8",
    )
    with pytest.raises(DataError, match="no kmmlu_<subject> task"):
        load_run_argument(str(tmp_path))


def test_names_lose_what_all_runs_share(tmp_path: Path) -> None:
    names = ("demo-base-sample-test-mc-ffffffffffff", "demo-lora-r16-sample-test-mc-ffffffffffff")
    folders = [str(run_directory(tmp_path / name, name, predictions(1))) for name in names]
    assert [run.name for run in load_all_runs(folders)] == ["base", "lora-r16"]
    assert [run.name for run in load_all_runs(folders[:1])] == ["demo-base-sample-test-mc"]
    assert [run.name for run in load_all_runs([folders[0], folders[0]])] == [names[0], f"{names[0]} (2)"]


def test_samples_as_lm_eval_0_4_13_writes_them(tmp_path: Path) -> None:
    """The shape was taken from real output: a key by index, log-probabilities as texts, one
    list a request.
    """
    document = {
        "question": "손익분기점 판매량은?",
        "answer": 3,
        "A": "134개",
        "B": "400개",
        "C": "200개",
        "D": "80개",
        "Category": "Accounting",
    }
    pairs = [["-0.9", "False"], ["-0.8", "False"], ["-0.25", "True"], ["-1.5", "False"]]
    line = {
        "doc_id": 0,
        "doc": document,
        "target": "2",
        "arguments": {},
        "resps": [[pair] for pair in pairs],
        "filtered_resps": pairs,
        "filter": "none",
        "metrics": ["acc"],
        "acc": 1.0,
    }
    stamp = "2026-01-01T13-47-14.616440"
    folder = tmp_path / "out" / "some__model"
    folder.mkdir(parents=True)
    (folder / f"samples_kmmlu_accounting_{stamp}.jsonl").write_text(
        json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    results = {
        "results": {
            "kmmlu_accounting": {
                "alias": "kmmlu_accounting",
                "sample_len": 1,
                "acc,none": 1.0,
                "acc_stderr,none": "N/A",
            }
        },
        "n-shot": {"kmmlu_accounting": 0},
        "n-samples": {"kmmlu_accounting": {"original": 1, "effective": 1}},
        "model_name": "some/model",
        "chat_template": None,
    }
    (folder / f"results_{stamp}.json").write_text(json.dumps(results), encoding="utf-8")
    for argument in (tmp_path / "out", folder / f"results_{stamp}.json"):
        run = load_run_argument(str(argument))[0]
        row = run.frame.row(0, named=True)
        assert (row["question_id"], row["answer"], row["prediction"], row["correct"]) == (
            "Accounting/test/0",
            "C",
            "C",
            True,
        )
        assert row["logprob_D"] == -1.5 and row["margin"] == pytest.approx(0.55)
    (folder / f"samples_kmmlu_accounting_{stamp}.jsonl").write_text('{"doc_id": 0}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 1: is not an lm-eval sample of Accounting"):
        load_run_argument(str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "own", "prediction"),
    [
        ("-A", 1.0, "A"),
        ("**B**", 0.0, "B"),
        ("{C}", 0.0, "C"),
        ("A\n", 1.0, "A"),
        ("답", 0.0, None),
        ("ax", 1.0, "A"),
        ("A", 0.0, None),
    ],
)
def test_an_answer_in_words_is_read_as_lm_eval_reads_it(
    tmp_path: Path, text: str, own: float, prediction: str | None
) -> None:
    """The sample's own metric goes first (key A); without a contradiction the letter is the one
    that ``generate_until`` would read.
    """
    sample = {
        "doc_id": 0,
        "doc": {"answer": 1},
        "filtered_resps": [text],
        "filter": "none",
        "metrics": ["exact_match"],
        "exact_match": own,
    }
    (tmp_path / "samples_kmmlu_direct_law_2026.jsonl").write_text(json.dumps(sample), encoding="utf-8")
    row = load_run_argument(str(tmp_path))[0].frame.row(0, named=True)
    assert row["prediction"] == prediction and row["correct"] is bool(own)
