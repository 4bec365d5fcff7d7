"""bench.judge: how seconds become decisions per minute, and what is computed from what. No engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from bench import all as bench_all
from bench import decide_engine, judge, peers_whole
from bench import table as bench_table
from bench.common import record
from bench.peers import OURS
from kmmlu_fast.core.errors import ConfigError

CPU = {"kind": "cpu", "name": "Some CPU", "cores": 2, "cpu_kind": "AVX512_BF16"}
TODAY = judge.Pace(start_sec=20.0, questions_per_sec=1.0)
NEXT = judge.Pace(start_sec=20.0, questions_per_sec=10.0)


def decide_record(folder: Path, passes: float) -> None:
    share = {"share": 0.0, "low": 0.0, "high": 0.0}
    entry: dict[str, Any] = {
        "bench": "decide",
        "command": "python -m bench.decide --adapters",
        "time_utc": "2099-01-01T00:00:00+00:00",
        "device": CPU,
        "exams": {},
        "ten_adapters": {"passes": passes, "family_wise_error": share},
    }
    record(entry, folder)


def test_lm_eval_starts_once_per_state_today_and_once_tomorrow() -> None:
    found = judge.lm_eval_seconds(180, 10, TODAY, NEXT)
    assert found == {judge.TODAY: 11 * (20 + 180), judge.NEXT: 20 + 11 * 18}


def test_kmmlu_takes_the_base_and_as_many_passes_as_the_record_says() -> None:
    ours = judge.Pace(start_sec=30.0, questions_per_sec=10.0)
    found = judge.kmmlu_seconds(ours, 1.5, TODAY, NEXT)
    assert found[judge.EARLY] == pytest.approx(30 + 2.5 * 3503)
    assert found[judge.FULL] == pytest.approx(30 + 11 * 3503)
    assert found[judge.TODAY] == 11 * (20 + 35_030)


def test_decisions_per_minute_and_times_are_of_the_same_adapters() -> None:
    seconds = {judge.EARLY: 60.0, judge.TODAY: 1800.0}
    first, last = judge.rows_of("sample", seconds, 10, (judge.EARLY,))
    assert (first["decisions_per_min"], first["times_lm_eval"], first["got"]) == (10.0, 30.0, "measured")
    assert (last["decisions_per_min"], last["times_lm_eval"], last["got"]) == (0.333, 1.0, "computed")
    assert judge.rows_of("sample", {judge.EARLY: 60.0}, 10, ())[0]["times_lm_eval"] is None


def test_passes_come_from_the_newest_record_and_are_asked_for_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bench\.decide --adapters --record"):
        judge.passes_of_ten([tmp_path])
    decide_record(tmp_path, 1.34)
    assert judge.passes_of_ten([tmp_path, tmp_path]) == (1.34, "python -m bench.decide --adapters")


def test_verdicts_are_all_counted_and_explained() -> None:
    counts = judge.count_verdicts(["better", "equal", "equal", "undecided"])
    assert counts == {"better": 1, "worse": 0, "equal": 2, "undecided": 1}
    shown = judge.shown_verdicts({"margin_pp": 10.0, "verdicts": {judge.EARLY: counts}})
    assert [row[judge.EARLY] for row in shown] == [1, 0, 2, 1]
    assert "within 10 pp" in shown[2]["means"]


def test_the_json_line_holds_measured_and_computed_and_the_table_tells_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = judge.count_verdicts(["better", *["equal"] * 9])
    ours = {
        "questions": 180,
        "answered": {"early": 900, "full": 1980},
        "asking_sec": {"early": 80.0, "full": 170.0},
        "seconds": {judge.EARLY: 100.0, judge.FULL: 200.0},
        "verdicts": {judge.EARLY: counts, judge.FULL: counts},
        "accuracy": {"base": 0.25, "adapters": [0.25] * 10},
    }
    paces = {
        OURS: judge.Pace(start_sec=5.0, questions_per_sec=12.0),
        judge.TODAY: TODAY,
        judge.NEXT: NEXT,
    }
    monkeypatch.setattr(judge, "find_spec", lambda name: name)
    monkeypatch.setattr(judge, "measure_ours", lambda config, folder: dict(ours))
    monkeypatch.setattr(judge, "measure_paces", lambda config, peers: {"small": paces, "whole": paces})
    decide_record(tmp_path, 1.5)
    assert judge.main(["--dataset", "elsewhere", "--record", "--results-dir", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["got"] for row in found["rows"]] == ["measured"] * 2 + ["computed"] * 6
    assert found["rows"][0]["times_lm_eval"] == 22.0  # 11 x (20 + 180) s against 100 s
    kmmlu = next(row for row in found["rows"] if row["exam"] == "KMMLU")
    assert kmmlu["sec"] == pytest.approx(30 + 2.5 * 35_030 / 12, abs=0.1)  # 200 s less 170 s of asking
    files = sorted(tmp_path.glob("*.json"))
    line = bench_table.render({"judge": bench_table.read_entries(files)["judge"]}).splitlines()[2]
    assert "10 adapters, 1 truly better, 180 questions: 1 better, 9 equal within 10 pp" in line
    assert "sample: kmmlu_fast, until decided 6, " in line and "; 22x lm-eval" in line
    assert "KMMLU: kmmlu_fast, until decided 0.0819 (computed)" in line
    small, whole = bench_all.rows_of("judge", found, bench_all.ROUND["judge"][1], None)
    assert (small["measured"], small["met"], whole["met"]) == (22.0, "no", "yes")


def test_no_command_asks_the_engine_that_the_user_keeps_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start is a part of what is measured."""
    asked: list[list[str]] = []

    class Stop(Exception):
        pass

    def note_words(words: list[str], *rest: Any, **more: Any) -> None:
        asked.append(words)
        raise Stop

    monkeypatch.setattr("subprocess.run", note_words)
    monkeypatch.setattr(decide_engine, "_timed", note_words)
    monkeypatch.setattr(peers_whole, "_timed", note_words)
    monkeypatch.setattr(peers_whole, "resolve_model", lambda name: SimpleNamespace(path=name))
    monkeypatch.setattr(peers_whole, "has_gpu", lambda: False)
    monkeypatch.setattr(judge, "run_child", lambda words: {"adapters": []})
    calls: list[Callable[[], Any]] = [
        lambda: judge.measure_ours(judge.JudgeConfig(), tmp_path),
        lambda: decide_engine.measure([], 1.0, tmp_path),
        lambda: decide_engine.measure_orders([], [], 1.0, [1], tmp_path, tmp_path),
        lambda: peers_whole.whole_commands("demo", "bfloat16", 512, [], {}, {}, tmp_path),
    ]
    for call in calls:
        with pytest.raises(Stop):
            call()
    assert len(asked) == len(calls)
    assert all({"kmmlu_fast.eval", "--no-warm-engine"} <= set(words) for words in asked)
    assert asked[0][asked[0].index("--dtype") + 1] == "bfloat16"  # as its peers


def test_rates_are_taken_on_as_many_questions_as_asked_for_of_many_subjects(tmp_path: Path) -> None:
    config = judge.JudgeConfig.model_validate({"peer_questions": 10})
    warm_up, timed = (
        json.loads(Path(path).read_text()) for path in judge._write_chunks(config, "sample", tmp_path / "x")
    )
    assert len(timed["questions"]) == 10 and len({row["subject"] for row in timed["questions"]}) == 10
    assert len(warm_up["questions"]) == 2 and set(timed["exemplars"]) == {
        row["subject"] for row in timed["questions"]
    }


def test_more_better_adapters_than_adapters_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge.main(["--adapters", "2", "--better", "3", "--no-peers"]) == 2
    assert "--better 3: there are 2 adapters" in capsys.readouterr().err


class _Worker:
    """A peer that answers one question per second; its start took 7 s."""

    asked: ClassVar[list[tuple[str, int]]] = []

    def __init__(self, peer: str, config: Any, env: dict[str, str]) -> None:
        self.peer, self.start_sec = peer, 7.0

    def ask(self, chunk: str) -> dict[str, Any]:
        count = len(json.loads(Path(chunk).read_text())["questions"])
        self.asked.append((self.peer, count))
        return {"letters": {str(i): [] for i in range(count)}, "seconds": float(count)}

    def close(self) -> None:
        self.asked.append((self.peer, 0))


def test_each_peer_starts_once_and_is_timed_on_either_exam(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setattr(judge, "Worker", _Worker)
    _Worker.asked.clear()
    same = judge.JudgeConfig.model_validate({"dataset": "sample", "peer_questions": 6})
    paces = judge.measure_paces(same, {judge.TODAY: "lm-eval-vllm"})
    assert _Worker.asked == [("lm-eval-vllm", 2), ("lm-eval-vllm", 6), ("lm-eval-vllm", 0)]
    assert paces["small"] is paces["whole"]
    assert paces["small"][judge.TODAY] == judge.Pace(start_sec=7.0, questions_per_sec=1.0)


def test_with_one_exam_alone_our_pace_is_that_of_the_whole_command(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = judge.count_verdicts(["better", "equal"])
    ours = {
        "questions": 45,
        "answered": {"early": 100, "full": 135},
        "asking_sec": {"early": 20.0, "full": 27.0},
        "seconds": {judge.EARLY: 50.0, judge.FULL: 57.0},
        "verdicts": {judge.EARLY: counts, judge.FULL: counts},
        "accuracy": {"base": 0.25, "adapters": [0.25] * 2},
    }
    asked: list[Any] = []

    def paces_of(config: Any, peers: dict[str, str]) -> dict[str, dict[str, judge.Pace]]:
        asked.append(peers)
        paces = {judge.TODAY: TODAY, judge.NEXT: NEXT}
        return {"small": paces, "whole": paces}

    monkeypatch.setattr(judge, "find_spec", lambda name: name)
    monkeypatch.setattr(judge, "measure_ours", lambda config, folder: dict(ours))
    monkeypatch.setattr(judge, "measure_paces", paces_of)
    found = judge.measured(judge.JudgeConfig.model_validate({"adapters": 2, "dataset": "sample"}))
    assert list(asked[0]) == [judge.TODAY, judge.NEXT]  # no process of our own is started again
    assert found["paces"]["whole"][OURS] == {"start_sec": 30.0, "questions_per_sec": 5.0}
    full = next(row for row in found["rows"] if row["exam"] == "KMMLU" and row["way"] == judge.FULL)
    assert full["sec"] == pytest.approx(30 * 10 / 2 + 11 * 35_030 / 5, abs=0.1)


def test_without_lm_eval_it_says_so_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judge, "find_spec", lambda name: None)
    assert judge.main([]) == 2
    assert "or give --no-peers" in capsys.readouterr().err
