"""How commands end: one line for everything, on every console, with closed pipes, odd caches, hostile names
and faults of the program.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made_runs import loaded, predictions, run_directory

from bench.faults.killing import Job, Watcher
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import DataError

ROOT = Path(__file__).parents[2]
VERBS = ("eval", "sample", "leakage", "train", "compare", "report", "plan", "doctor", "exams", "install")


def end(body: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = run_main(body)
    return code, capsys.readouterr().err


def raising(error: BaseException) -> Any:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("bad\nfile \x1b[31mred"), "error: bad file red"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "gone.csv"),
            "gone.csv: no such file or directory",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "x.json"), "x.json: no space left to write to"),
        (
            RuntimeError("[enforce fail at inline_container.cc:664]"),
            "no space left to write",
        ),
        (UnicodeEncodeError("cp949", "−", 0, 1, "no"), "a text cannot be read or written"),
        (RecursionError("deep"), "nested too deeply"),
        (MemoryError(), "out of memory"),
        (PermissionError(errno.EACCES, "Permission denied", "a", None, "b"), "a -> b: permission denied"),
    ],
)
def test_what_a_user_can_cause_is_one_line(
    error: BaseException, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, err = end(raising(error), capsys)
    assert code == 2 and err.startswith("error: ") and said in err and err.count("\n") == 1


def test_a_full_disk_is_found_below_what_libraries_make_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        try:
            raise OSError(errno.EFBIG, "File too large", "weights")
        except OSError as error:
            raise RuntimeError("save failed") from error

    assert end(body, capsys) == (
        2,
        (
            "error: weights: no space left to write to; free space, or write elsewhere, and run the same"
            " command again\n"
        ),
    )


def test_a_fault_of_the_program_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path))
    code, err = end(raising(KeyError("x" * 5000)), capsys)
    assert code == 70 and err.count("\n") == 1 and len(err) < 1500 and "please report it" in err
    (details,) = (tmp_path / "faults").iterdir()
    assert str(details) in err and "KeyError" in details.read_text() and "Traceback" in details.read_text()
    assert details.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("KMMLU_FAST_DEBUG", "1")
    with pytest.raises(KeyError):
        run_main(raising(KeyError("x")))


def test_a_fault_where_nothing_can_be_written_is_still_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KMMLU_FAST_CACHE", "/proc/nowhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/proc/nowhere")
    code, err = end(raising(ValueError("odd")), capsys)
    assert code == 70 and err.count("\n") == 1 and "KMMLU_FAST_DEBUG=1" in err


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    names = ("base", "조정 [/b] \x1b[31m")
    return [
        str(run_directory(folder / f"run{i}", name, predictions(1, skill=0.5 + i)))
        for i, name in enumerate(names)
    ]


def python(*argv: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KMMLU_GUARD": "0", **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", *argv],
        capture_output="stdout" not in options,
        env=environment,
        check=False,
        timeout=120,
        **options,
    )


@pytest.fixture(scope="module")
def watcher() -> Iterator[Watcher]:
    with Watcher() as made:
        yield made


@pytest.mark.parametrize("encoding", ["cp949", "latin-1", "ascii"])
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_compare_on_consoles_of_other_encodings(
    runs: list[str], encoding: str, lang: str, watcher: Watcher
) -> None:
    argv = [*runs, "--overlap", "none", "--dataset", "none", "--lang", lang]
    ended = watcher.run(Job("compare", argv, encoding=encoding, environment={"COLUMNS": "100"}))
    assert ended.code == 0, ended.err
    assert "micro" in ended.out and "\x1b" not in ended.out and not ended.err
    assert "\\u2212" not in ended.out, "a minus sign has its ASCII form"
    assert ("조정" in ended.out) == (encoding == "cp949")


@pytest.mark.parametrize(
    "environment",
    [
        {"LANG": "C", "LC_ALL": "C"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_the_c_locale(runs: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "결과.json"
    argv = ["kmmlu_fast.compare", *runs, "--overlap", "none", "--dataset", "none", "--json-file", str(file)]
    done = python(*argv, env=environment)
    assert done.returncode == 0, done.stderr
    assert [path for path in tmp_path.iterdir() if path.suffix == ".json"]
    missing = python("kmmlu_fast.report", str(tmp_path / "없음"), env=environment)
    assert (
        missing.returncode == 2 and missing.stderr.count(b"\n") == 1 and missing.stderr.startswith(b"error: ")
    )


@pytest.mark.parametrize("encoding", ["cp949", "latin-1", "ascii"])
def test_help_and_a_fault_of_every_verb_on_every_console(encoding: str, watcher: Watcher) -> None:
    for verb in VERBS:
        for argv, code in ((["--help"], 0), (["--nosuchflag=가−"], 2)):
            ended = watcher.run(Job(verb, argv, encoding=encoding))
            assert ended.code == code and "Traceback" not in ended.err, (verb, ended.err)
            assert ended.out if code == 0 else ended.err.startswith("error: unknown argument")


def test_a_reader_that_goes_away_is_no_fault(runs: list[str]) -> None:
    compared = ["kmmlu_fast.compare", *runs, "--by-subject", "--overlap", "none", "--dataset", "none"]
    for argv, codes in (
        (compared, (141,)),
        (["kmmlu_fast.eval", "--help"], (0, 141)),
    ):  # argparse itself looks away
        reader, writer = os.pipe()
        os.close(reader)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "KMMLU_GUARD": "0"}
        done = subprocess.run(
            [sys.executable, "-m", *argv],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
            timeout=120,
        )
        os.close(writer)
        assert done.returncode in codes and not done.stderr, (done.returncode, done.stderr)


def test_closed_streams_and_a_full_stdout(runs: list[str]) -> None:
    argv = [sys.executable, "-m", "kmmlu_fast.compare", *runs, "--overlap", "none", "--dataset", "none"]
    for redirection, code in ((">&-", 0), ("2>&-", 0), (">&- 2>&-", 0), ("> /dev/full", 2)):
        line = " ".join(f"'{word}'" for word in argv) + f" {redirection}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, env=environment, check=False, timeout=120
        )
        assert done.returncode == code, (redirection, done.returncode, done.stderr)
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


def test_twenty_columns(runs: list[str]) -> None:
    done = python(
        "kmmlu_fast.compare", *runs, "--overlap", "none", "--dataset", "none", env={"COLUMNS": "20"}
    )
    assert done.returncode == 0 and not done.stderr


def test_an_adapter_named_like_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from kmmlu_fast.analysis.accuracy import summarise_predictions
    from kmmlu_fast.reporting.terminal.summary import print_summary

    frame = predictions(1)
    speed = {"questions": 200, "seconds": 1.0, "questions_per_sec": 200.0, "prompt_tokens_per_sec": 9.0}
    run = replace(
        loaded("run", frame),
        config={"adapter": {"name": "[/b]\x1b]0;x\x07"}},
        metrics=summarise_predictions(frame).add_parts(speed=speed, engine={}),
    )
    print_summary([run])
    out = capsys.readouterr().out
    assert "[/b]: predicted" in out and "[/b]: recall" in out and "\x1b" not in out and "\x07" not in out


def test_a_corrupt_or_unwritable_cache_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kmmlu_fast.contamination import overlap

    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    found = overlap.train_overlap("sample").value
    (file,) = (tmp_path / "cache" / "overlap").glob("*.parquet")
    file.write_bytes(b"PAR1 not really PAR1")
    assert overlap.train_overlap("sample").value.equals(found) and pl.read_parquet(file).equals(found)
    monkeypatch.setenv("KMMLU_FAST_CACHE", "/proc/nowhere")
    assert overlap.train_overlap("sample").value.equals(found)


def test_small_runs_have_a_report(tmp_path: Path) -> None:
    from kmmlu_fast import report

    run = run_directory(tmp_path / "run", "small", predictions(1, sizes={"Law": 12}))
    assert report.run_report_command([str(run), "--overlap", "none"]) == 0 and (run / "report.html").exists()


@pytest.mark.parametrize("values", [("1", "2"), ("4", "1")])
def test_figures_as_predictions_are_letters(tmp_path: Path, values: tuple[str, str]) -> None:
    from kmmlu_fast.runs.loading import load_run_argument

    file = tmp_path / "t.csv"
    file.write_text(f"_config,_row,answer,m\nLaw,0,1,{values[0]}\nLaw,1,2,{values[1]}\n")
    assert load_run_argument(str(file))[0].frame["prediction"].to_list() == [
        "ABCD"[int(v) - 1] for v in values
    ]
    file.write_text("_config,_row,answer,m\nLaw,0,A,0\nLaw,1,B,1\n")
    with pytest.raises(DataError, match="row 0: m is 0; give numbers from 1"):
        load_run_argument(str(file))


def test_human_accuracy_that_is_no_number_does_not_break_the_explorer(tmp_path: Path) -> None:
    from kmmlu_fast.data import dataset
    from kmmlu_fast.data.subjects import find_subjects

    (tmp_path / "data").mkdir()
    head = "question,answer,A,B,C,D,Category,Human Accuracy\n"
    (tmp_path / "data" / "Law-test.csv").write_text(head + "q,1,a,b,c,d,Law,NaN\n")
    assert dataset.load_frame(str(tmp_path), "test", find_subjects(["Law"]))["human_accuracy"].to_list() == [
        None
    ]
    (tmp_path / "data" / "Law-test.csv").write_text(head + "q,1,a,b,c,d,Law,inf\n")
    with pytest.raises(DataError, match="Human Accuracy inf is not a share"):
        dataset.load_frame(str(tmp_path), "test", find_subjects(["Law"]))
    (tmp_path / "data" / "Law-test.csv").write_text(head)
    with pytest.raises(DataError, match="no questions"):
        dataset.load_frame(str(tmp_path), "test", find_subjects(["Law"]))


def test_leakage_takes_test_and_dev_only(capsys: pytest.CaptureFixture[str]) -> None:
    from kmmlu_fast import leakage

    assert leakage.run_leakage_command(["--split", "train", "--dataset", "sample"]) == 2
    assert "--split 'train'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"doc": {"answer": 0}}, "the answer is 0"),
        ({"doc": {"answer": 5}}, "the answer is 5"),
        ({"doc_id": -1}, "doc_id is -1"),
        ({"filtered_resps": [["nan", ""], ["-1", ""], ["-1", ""], ["-1", ""]]}, "are not finite"),
        ({"filtered_resps": [["2.0", ""], ["-1", ""], ["-1", ""], ["-1", ""]]}, "are not finite"),
    ],
)
def test_lm_eval_samples_that_cannot_be(tmp_path: Path, sample: dict[str, Any], message: str) -> None:
    import json

    from kmmlu_fast.runs.loading import load_run_argument

    good = {"doc_id": 0, "doc": {"answer": 1}, "acc": 1.0, "filtered_resps": [["-1", ""]] * 4}
    (tmp_path / "samples_kmmlu_law_2026.jsonl").write_text(json.dumps({**good, **sample}) + "\n")
    with pytest.raises(DataError, match=message):
        load_run_argument(str(tmp_path))


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({"acc,none": 1.5}, 4),
        ({"acc,none": float("nan")}, 4),
        ({"acc,none": 0.5}, -4),
        ({"acc,none": "x"}, 4),
    ],
)
def test_lm_eval_results_that_cannot_be(tmp_path: Path, values: dict[str, Any], size: int) -> None:
    import json

    from kmmlu_fast.runs.loading import load_run_argument

    document = {"results": {"kmmlu_law": values}, "n-samples": {"kmmlu_law": {"effective": size}}}
    (tmp_path / "results_2026.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="it must be a"):
        load_run_argument(str(tmp_path))


@pytest.mark.parametrize(
    ("verb", "argv"),
    [
        ("report", ["a.csv", "--overlap", "none", "--exam", "~nosuchuser/x"]),
        ("eval", ["--model", "demo", "--exam", "kobest", "--dataset", "~nosuchuser/x"]),
        ("leakage", ["~nosuchuser/x.jsonl"]),
    ],
)
def test_an_unknown_user_s_home_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    argv: list[str],
) -> None:
    import importlib

    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("_config,_row,answer,m\nLaw,0,A,A\n", encoding="utf-8")
    assert getattr(importlib.import_module(f"kmmlu_fast.{verb}"), f"run_{verb}_command")(argv) == 2
    assert "~nosuchuser/x" in (err := capsys.readouterr().err) and "no such user" in err
