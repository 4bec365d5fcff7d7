"""Evaluations that stop early, with a fake engine whose adapter is really better: decisions, prefixes,
resume, the full pass after.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from early_cases import GAIN, SIZES, TOTAL, Skilled, config, run, write_exam
from tiny import make_tiny_adapter

from kmmlu_fast import compare, draw_rows, report, write_report
from kmmlu_fast.analysis.comparison import compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.core.errors import ConfigError, RunError
from kmmlu_fast.core.schema import LETTERS, Adapter, Candidates, Request, Response
from kmmlu_fast.data import dataset
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.early_stopping import evaluation, passes
from kmmlu_fast.evaluation.early_stopping.record import draw_interval_line
from kmmlu_fast.evaluation.session import run_evaluation
from kmmlu_fast.reporting.early_pairs import compare_early_stopped
from kmmlu_fast.reporting.files.exports import write_exports
from kmmlu_fast.reporting.report_data import report_data_from_pairs
from kmmlu_fast.reporting.terminal.eval_summary import adapter_verdict_lines
from kmmlu_fast.reporting.terminal.summary import print_summary
from kmmlu_fast.reporting.wording.early_stopping import decision_lines
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.runs.comparison_log import read_comparison_log
from kmmlu_fast.runs.store import load_run_directory


@pytest.fixture(scope="module")
def other(model: Path) -> Path:
    return make_tiny_adapter(model, model.parent / "other", seed=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_exam(tmp_path_factory.mktemp("kmmlu"))


@pytest.fixture(autouse=True)
def small_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "FIRST", 40)


def test_a_better_adapter_is_decided_early_and_the_full_pass_continues(
    model: Path, lora: Path, data: Path, tmp_path: Path
) -> None:
    flags = ("--adapter", f"lora={lora}")
    early = Skilled(data, GAIN)
    base, adapted = run(config(model, data, tmp_path, *flags, "--until-decided"), early)
    decision = adapted.prefix.decision
    assert decision["verdict"] == "better" and decision["low"] > 0 and decision["p_value"] <= 0.05
    assert decision["decided_at"] <= adapted.prefix.questions < TOTAL / 2 and adapted.prefix.total == TOTAL
    assert early.closed_early  # what was in flight was given up
    assert adapted.prefix.full_pass.questions == TOTAL
    for run_ in (base, adapted):
        assert not (run_.path / "predictions.parquet").exists() and not (run_.path / "metrics.json").exists()
        with pytest.raises(RunError, match=r"first \d+ of 1,000 questions"):
            load_run_directory(run_.path)
        assert load_run_directory(run_.path, prefix=True).predictions.equals(run_.predictions)
        low, high = run_.prefix.accuracy
        assert low < run_.micro < high
    # the full pass asks the rest, nothing twice, and holds the prefix unchanged
    late = Skilled(data, GAIN)
    whole, complete = run(config(model, data, tmp_path, *flags), late)
    assert not set(early.asked) & set(late.asked)
    for before, after in ((base, whole), (adapted, complete)):
        assert after.path == before.path and after.prefix is None and after.total == TOTAL
        kept = before.predictions.select("question_id").join(
            after.predictions, on="question_id", maintain_order="left"
        )
        assert kept.select(before.predictions.columns).equals(before.predictions)
        assert not (after.path / "prefix.json").exists() and not (after.path / "order.parquet").exists()


def test_the_answers_are_a_beginning_of_the_one_random_order(
    model: Path, lora: Path, data: Path, tmp_path: Path
) -> None:
    engine = Skilled(data, GAIN)
    _, adapted = run(config(model, data, tmp_path, "--adapter", f"lora={lora}", "--until-decided"), engine)
    order = [
        q.question_id
        for q in dataset.permute_questions(
            dataset.load_questions(str(data), "test", [SUBJECTS[n] for n in SIZES]), 42
        )
    ]
    assert adapted.predictions["question_id"].to_list() == order[: adapted.prefix.questions]
    first = [name for state, name in engine.asked if state == "lora"][:40]
    assert set(first) == set(order[:40])
    subjects = [name.split("/")[0] for name in first]
    assert len(list(itertools.groupby(subjects))) == len(set(subjects))  # subject by subject within a look


@pytest.mark.parametrize("fuse", [25, 70, 130])
def test_killed_in_a_look_and_started_again_it_decides_at_the_same_question(
    model: Path, lora: Path, data: Path, tmp_path: Path, fuse: int
) -> None:
    flags = ("--adapter", f"lora={lora}", "--until-decided")
    [_, straight] = run(config(model, data, tmp_path / "a", *flags), Skilled(data, GAIN))
    broken = Skilled(data, GAIN, fuse=fuse)
    with pytest.raises(KeyboardInterrupt):
        run(config(model, data, tmp_path / "b", *flags), broken)
    again = Skilled(data, GAIN)
    [_, resumed] = run(config(model, data, tmp_path / "b", *flags), again)
    assert resumed.prefix.decision == straight.prefix.decision
    assert not set(broken.asked) & set(again.asked)
    # decided already: nothing is asked at all, and the decision is the same
    third = Skilled(data, GAIN)
    [_, reread] = run(config(model, data, tmp_path / "b", *flags), third)
    assert not third.asked and reread.prefix.decision == straight.prefix.decision


def test_a_finished_base_is_read_and_decides_sooner_or_as_soon(
    model: Path, lora: Path, data: Path, tmp_path: Path
) -> None:
    run(config(model, data, tmp_path), Skilled(data, GAIN))
    engine = Skilled(data, GAIN)
    base, adapted = run(config(model, data, tmp_path, "--adapter", f"lora={lora}", "--until-decided"), engine)
    assert {state for state, _ in engine.asked} == {"lora"}
    assert base.prefix is None and base.total == TOTAL and adapted.prefix.decision["verdict"] == "better"


def test_without_a_difference_it_is_equal_within_the_margin_or_asked_to_the_end(
    model: Path, other: Path, data: Path, tmp_path: Path
) -> None:
    flags = ("--adapter", f"other={other}", "--until-decided")
    [_, equal] = run(config(model, data, tmp_path / "a", *flags, "--margin", "12"), Skilled(data, GAIN))
    decision = equal.prefix.decision
    assert decision["verdict"] == "equal" and -0.12 <= decision["low"] <= decision["high"] <= 0.12
    [_, capped] = run(
        config(model, data, tmp_path / "b", *flags, "--max-questions", "90"), Skilled(data, GAIN)
    )
    assert capped.prefix.decision["verdict"] == "undecided" and capped.prefix.questions == 90
    base, whole = run(
        config(model, data, tmp_path / "c", *flags, "--margin", "0", "--population", "these"),
        Skilled(data, GAIN),
    )
    truth = whole.micro - base.micro
    assert whole.prefix is None and whole.total == TOTAL  # the full pass, as if it had been asked for
    found = whole.metrics.to_json()["decision"]
    assert found["low"] == pytest.approx(truth, abs=1e-9) == found["high"]


def test_a_decided_adapter_is_asked_no_further_while_another_goes_on(
    model: Path, lora: Path, other: Path, data: Path, tmp_path: Path
) -> None:
    engine = Skilled(data, GAIN, in_flight=8)
    flags = (
        "--adapter",
        f"lora={lora}",
        "--adapter",
        f"other={other}",
        "--until-decided",
        "--margin",
        "0",
        "--max-questions",
        "600",
    )
    base, better, same = run(config(model, data, tmp_path, *flags), engine)
    assert better.prefix.decision["verdict"] == "better" and better.prefix.decision["alpha"] < 0.025
    assert better.prefix.questions < same.prefix.questions == base.prefix.questions == 600


def test_merged_adapters_take_turns_and_agree_with_served_ones(
    model: Path, lora: Path, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from kmmlu_fast.models import merging

    still = SimpleNamespace(monotonic=lambda: 0.0, strftime=time.strftime)  # turns grow by what starts cost
    monkeypatch.setattr(evaluation, "time", still)
    monkeypatch.setattr(
        merging, "merge_adapter", lambda model, adapter, dtype: Path(f"/merged/{adapter.name}")
    )
    opened: list[str] = []

    class Merged(Skilled):
        """One model state's own engine: requests carry no adapter."""

        state = "base"

        def _answer(self, request: Request) -> Response:

            named = (
                None
                if self.state == "base"
                else Adapter(name="lora", path=Path("x"), adapter_id=1, rank=4, digest="d")
            )
            return replace(super()._answer(replace(request, adapter=named)), request=request)

    def open_engine(adapters: Any, length: int, path: str | None) -> FakeEngine:
        engine = Merged(data, GAIN)
        engine.state = "lora" if path else "base"
        opened.append(engine.state)
        return engine

    flags = ("--adapter", f"lora={lora}", "--until-decided")
    [_, served] = run(config(model, data, tmp_path / "a", *flags), Skilled(data, GAIN))
    made = config(model, data, tmp_path / "b", *flags, "--adapter-mode", "merge")
    [_, merged] = run_evaluation(made, open_engine)
    assert merged.prefix.decision == served.prefix.decision
    assert opened[:2] == ["base", "lora"]


def test_the_engine_s_own_start_does_not_make_the_turns_of_swapped_adapters_longer(
    model: Path, lora: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], strftime=time.strftime)
    monkeypatch.setattr(evaluation, "time", clock)

    class Swapped(Skilled):
        """Starts in a minute, swaps in a second, answers ten questions a second."""

        def swap(self, adapter: Adapter | None) -> None:
            now[0] += 1.0
            super().swap(adapter)

        def _answer(self, request: Request) -> Response:
            now[0] += 0.1
            return replace(super()._answer(replace(request, adapter=self._held)), request=request)

    engine = Swapped(data, GAIN)

    def open_engine(adapters: Any, length: int, path: str | None) -> FakeEngine:
        now[0] += 60.0
        return engine

    flags = ("--adapter", f"lora={lora}", "--until-decided", "--adapter-mode", "swap")
    [_, early] = run_evaluation(config(model, data, tmp_path, *flags), open_engine)
    decided_at = early.prefix.decision["decided_at"]
    after = [end for end in passes.interim_sample_sizes(TOTAL) if end >= decided_at]
    assert early.prefix.questions in after[:2]  # the proof that the adapter is applied may cost one look


def test_until_precise_stops_where_the_interval_is_narrow_enough(
    model: Path, data: Path, tmp_path: Path
) -> None:
    [base] = run(config(model, data, tmp_path, "--until-precise", "8"), Skilled(data, GAIN))
    low, high = base.prefix.accuracy
    assert high - low <= 0.16 and base.prefix.questions < TOTAL
    [narrower] = run(config(model, data, tmp_path, "--until-precise", "3"), Skilled(data, GAIN))
    assert narrower.prefix.questions > base.prefix.questions and narrower.path == base.path


def test_a_fixed_number_is_a_beginning_of_a_larger_one(model: Path, data: Path, tmp_path: Path) -> None:
    [small] = run(config(model, data, tmp_path, "--questions", "100"), Skilled(data, GAIN))
    engine = Skilled(data, GAIN)
    [large] = run(config(model, data, tmp_path, "--questions", "250"), engine)
    assert len(small.predictions) == 100 and len(large.predictions) == 250 and len(engine.asked) == 150
    assert large.predictions.head(100).equals(small.predictions)


def test_another_seed_s_order_is_refused_in_the_same_directory(
    model: Path, data: Path, tmp_path: Path
) -> None:
    run(config(model, data, tmp_path, "--questions", "60"), Skilled(data, GAIN))
    with pytest.raises(RunError, match="random order of --seed 42"):
        run(config(model, data, tmp_path, "--questions", "60", "--seed", "7"), Skilled(data, GAIN))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--until-decided",), "give --adapter"),
        (("--until-decided", "--until-precise", "1", "--adapter", "x"), "give one of them"),
        (("--questions", "5", "--until-precise", "1"), "--max-questions"),
        (("--max-questions", "5"), "a fixed number is --questions"),
        (("--margin", "-1"), "--margin"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    model: Path, data: Path, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(model, data, tmp_path, *flags)


def test_chain_of_thought_stops_early_too(model: Path, lora: Path, data: Path, tmp_path: Path) -> None:
    class Reasoner(Skilled):
        """Reasons in words, and ends in the letter that the state knows."""

        def _answer(self, request: Request) -> Response:
            letters = super()._answer(request)
            if isinstance(request.want, Candidates):
                return letters
            best = LETTERS[letters.logprobs.index(max(letters.logprobs))]
            self._text = f"생각해 보면 그렇다.\n정답: {best}"
            return FakeEngine._answer(self, request)

    flags = ("--adapter", f"lora={lora}", "--until-decided", "--output-type", "cot", "--max-tokens", "32")
    [_, adapted] = run(config(model, data, tmp_path, *flags), Reasoner(data, GAIN))
    assert adapted.prefix.decision["verdict"] == "better"
    assert adapted.predictions["texts"].null_count() == 0


def test_what_is_written_is_json_that_names_the_cost(
    model: Path, lora: Path, data: Path, tmp_path: Path
) -> None:
    [_, adapted] = run(
        config(model, data, tmp_path, "--adapter", f"lora={lora}", "--until-decided"), Skilled(data, GAIN)
    )
    found = json.loads((adapted.path / "prefix.json").read_text())
    assert found["full_pass"]["questions"] == TOTAL and found["full_pass"]["seconds"] > 0
    assert found["speed"]["questions"] == found["questions"] and found["seed"] == 42


def test_two_prefixes_compare_by_the_sequential_test_and_claim_no_subjects(
    model: Path, lora: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--adapter", f"lora={lora}")
    base, adapted = run(config(model, data, tmp_path, *flags, "--until-decided"), Skilled(data, GAIN))
    file = tmp_path / "found.json"
    assert (
        compare.run_compare_command(
            [str(base.path), str(adapted.path), "--dataset", "none", "--json-file", str(file)]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "is better than" in shown and "No claim about subjects" in shown and "McNemar" in shown
    [pair] = json.loads(file.read_text())["comparisons"]
    assert pair["sequential"]["verdict"] == "better"
    # as the evaluation decided it
    decided = adapted.prefix.decision
    assert (
        pair["sequential"]["decided_at"] == decided["decided_at"]
        and pair["sequential"]["low"] == decided["low"]
    )
    # other programs read it too, and a pipeline
    paths = [str(base.path), str(adapted.path), "--dataset", "none"]
    assert compare.run_compare_command([*paths, "--format", "json", "--fail-if", "not-better"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["comparisons"][0]["sequential"] == pair["sequential"] and "passed" in err
    assert compare.run_compare_command([*paths, "--format", "md"]) == 0
    assert capsys.readouterr().out.startswith("- ")
    assert compare.run_compare_command([*paths, "--format", "latex"]) == 2
    assert "--format latex: runs that stopped early" in capsys.readouterr().err
    assert compare.run_compare_command([*reversed(paths[:2]), *paths[2:], "--fail-if", "worse"]) == 1
    capsys.readouterr()
    # a prefix against the complete base
    [whole] = run(config(model, data, tmp_path), Skilled(data, GAIN))
    assert (
        compare.run_compare_command([str(whole.path), str(adapted.path), "--dataset", "none", "--lang", "ko"])
        == 0
    )
    assert "과목별 결론은 내리지 않습니다" in capsys.readouterr().out


def test_reports_exports_samples_and_plain_comparisons_refuse_a_prefix(
    model: Path, lora: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--adapter", f"lora={lora}")
    base, adapted = run(config(model, data, tmp_path, *flags, "--until-decided"), Skilled(data, GAIN))
    for refused in (
        lambda: compare_pair(base, adapted, ComparisonSettings()),
        lambda: write_report([base], tmp_path / "report.html", dataset="none"),
        lambda: write_exports(
            ["csv"],
            report_data_from_pairs([base], ComparisonSettings(), []),
            get_translator("en"),
            tmp_path / "out",
        ),
        lambda: draw_rows(source=str(base.path), out=tmp_path / "rows.jsonl", dataset="sample"),
    ):
        with pytest.raises(RunError, match="stopped early"):
            refused()
    assert (
        report.run_report_command([str(base.path), "--dataset", "none", "--output", str(tmp_path / "r.html")])
        == 2
    )
    assert "stopped early" in capsys.readouterr().err
    assert "first" in repr(base) and "first" in base._repr_html_()


def test_the_command_says_what_was_decided_in_both_languages(
    model: Path, lora: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = run(
        config(model, data, tmp_path, "--adapter", f"lora={lora}", "--until-decided"), Skilled(data, GAIN)
    )
    print_summary(runs)
    shown = capsys.readouterr().out
    assert "lora is better than base" in shown and "of 1,000 questions" in shown and "full pass" in shown
    assert "weakest" not in shown and f"{runs[1].path}" in shown
    print_summary(runs, "ko")
    assert "lora가 base보다" in capsys.readouterr().out
    [command] = adapter_verdict_lines(runs)  # the verdict was said; report takes no prefix
    assert "kmmlu_fast.compare" in command and str(runs[1].path) in command
    whole = run(config(model, data, tmp_path, "--adapter", f"lora={lora}"), Skilled(data, GAIN))
    assert len(adapter_verdict_lines(whole)) > 2 and "kmmlu_fast.report" in adapter_verdict_lines(whole)[-1]
    print_summary(whole)
    assert "weakest" in capsys.readouterr().out


def test_drawn_interval_has_zero_in_the_middle() -> None:
    line = draw_interval_line(0.01, 0.03)
    assert line.startswith("-5 [") and line.endswith("] +5") and line.index("|") < line.index("---")
    assert draw_interval_line(-0.004, 0.004).count("-") > draw_interval_line(-0.001, 0.001).count("-")


def test_overwrite_starts_the_prefix_anew_in_its_place(model: Path, data: Path, tmp_path: Path) -> None:
    [before] = run(config(model, data, tmp_path, "--questions", "60"), Skilled(data, GAIN))
    engine = Skilled(data, {**GAIN, "base": 0.9})
    [after] = run(config(model, data, tmp_path, "--questions", "60", "--overwrite"), engine)
    assert len(engine.asked) == 60 and after.path == before.path and after.micro > before.micro
    assert load_run_directory(after.path, prefix=True).predictions.equals(after.predictions)


def test_compare_passes_the_margin_on_and_counts_the_comparison(
    model: Path, other: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--adapter", f"other={other}", "--until-decided", "--max-questions", "300")
    runs = run(config(model, data, tmp_path, *flags), Skilled(data, GAIN))
    paths = [str(state.path) for state in runs]
    capsys.readouterr()
    assert compare.run_compare_command([*paths, "--overlap", "none", "--dataset", "none"]) == 0, (
        capsys.readouterr().err
    )
    assert "Undecided after 300 of 1,000 questions: on questions like these" in capsys.readouterr().out
    assert (
        compare.run_compare_command([*paths, "--overlap", "none", "--dataset", "none", "--margin", "60"]) == 0
    )
    assert "are equal within 60.00 pp" in capsys.readouterr().out
    [logged] = read_comparison_log(runs[0].path)
    assert logged.kind == "early" and logged.questions <= 300 and 0 < logged.level < 0.05


def test_early_comparisons_say_the_same_cautions(
    model: Path, other: Path, data: Path, tmp_path: Path
) -> None:
    flags = ("--adapter", f"other={other}", "--until-decided", "--max-questions", "600")
    base, lora = run(config(model, data, tmp_path, *flags), Skilled(data, GAIN))
    t = get_translator("en", "early")
    quantized = replace(lora, facts={**lora.facts, "quantization": "fp8"}, name="lora")
    base = replace(base, facts={**base.facts, "quantization": "auto"})
    [pair] = compare_early_stopped([base, quantized], ComparisonSettings(overlap_known=False))
    lines = decision_lines(pair, t)
    assert lines[0].startswith("CAUTION: the runs differ in more than the model (quantization auto -> fp8)")
    assert any(line.startswith("Overlap unknown") for line in lines)
    asked = lora.frame["question_id"].to_list()
    leaked = frozenset(asked[::3])
    learned = lora.frame.with_columns(
        (pl.col("correct") | pl.col("question_id").is_in(leaked)).alias("correct")
    )
    [pair] = compare_early_stopped(
        [base, replace(lora, predictions=learned)], ComparisonSettings(overlap=leaked)
    )
    lines = decision_lines(pair, t)
    [caution] = [line for line in lines if "on questions that overlap training data" in line]
    assert caution.startswith("CAUTION: the change is") and pair.clean is not None
    assert pair.clean.low < 0 < pair.decision.low
