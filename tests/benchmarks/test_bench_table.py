"""Records by kind of machine, README's table made from them, and the round of all benchmarks:
on invented results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import all as bench_all
from bench import table as bench_table
from bench.common import RESULTS, last_record, record
from bench.recipe_tables import render_recipes
from kmmlu_fast.core.errors import ConfigError

CPU = {"kind": "cpu", "name": "Some CPU", "cores": 2, "cpu_kind": "AVX512_BF16: bfloat16 is native"}


def entry(bench: str, day: int = 1, device: dict[str, Any] | None = None, **result: Any) -> dict[str, Any]:
    stamp = f"2026-01-{day:02d}T00:00:00+00:00"
    command = f"python -m bench.{bench}"
    return {
        "bench": bench,
        "command": command,
        "time_utc": stamp,
        "device": device or CPU,
        "versions": {},
        **result,
    }


def training(own_sec: float, stack_sec: float) -> dict[str, Any]:
    def row(way: str, sec: float, peak: float) -> dict[str, Any]:
        return {
            "way": way,
            "length": 128,
            "batch": 4,
            "cpu_sec": {"median": sec},
            "step_sec": {"median": sec},
            "peak_gib": peak,
        }

    return {
        "rows": [row("train", own_sec, 1.5), row("unsloth", stack_sec, 2.9), row("peft", 3 * own_sec, 3.0)]
    }


def test_records_are_kept_by_kind_of_cpu(tmp_path: Path) -> None:
    other = {**CPU, "cpu_kind": "AVX2, no AVX-512: float32"}
    names = {record(entry("scale", device=device), tmp_path).name for device in (CPU, other)}
    assert names == {"some-cpu-2-cores-avx512-bf16-2026-01-01.json", "some-cpu-2-cores-avx2-2026-01-01.json"}


def test_the_last_record_is_of_the_same_kind(tmp_path: Path) -> None:
    for day, device in (
        (1, CPU),
        (3, CPU),
        (2, CPU),
        (9, {**CPU, "cores": 8}),
        (9, {**CPU, "cpu_kind": "no AVX2"}),
    ):
        record(entry("scale", day, device), tmp_path)
    record(entry("training", 9), tmp_path)
    found = last_record("scale", CPU, tmp_path)
    assert found is not None and found["time_utc"].startswith("2026-01-03")
    assert last_record("scale", {"kind": "gpu", "name": "Some GPU"}, tmp_path) is None


def test_the_table_has_a_line_for_each_record_and_the_newest_counts(tmp_path: Path) -> None:
    record(entry("training", 1, **training(2.0, 2.2)), tmp_path)
    record(entry("training", 2, **training(2.0, 3.0)), tmp_path)
    record(entry("throughput", 2, share_of_matmul_rate=0.764), tmp_path)
    made = bench_table.render(bench_table.read_entries(sorted(tmp_path.glob("*.json"))))
    lines = made.splitlines()[2:]
    assert len(lines) == 2
    assert "76%" in lines[0] and "Some CPU, 2 cores (AVX512_BF16), 2026-01-02" in lines[0]
    assert "4 x 128: 1.50x unsloth (1.5 against 2.9 GiB); 4 x 128: 3.00x peft" in lines[1]
    assert lines[1].endswith("| `python -m bench.training` |")


def test_the_readme_s_figures_are_of_two_cpu_cores(tmp_path: Path) -> None:
    """Whatever was measured later on a card or on another CPU, and whichever kind is asked for."""
    record(entry("training", 1, **training(2.0, 3.0)), tmp_path)
    card = {"kind": "gpu", "name": "Some H100", "cores": 2}
    for day, device in ((2, card), (3, {**CPU, "cores": 64})):
        record(entry("training", day, device, **training(1.0, 9.0)), tmp_path)
    page, speeds = tmp_path / "page.md", tmp_path / "README.md"
    for path in (page, speeds):
        path.write_text(f"{bench_table.BEGIN}\nold\n{bench_table.END}\n")
    files = list(map(str, tmp_path.glob("*.json")))
    for kind, shown in (("", "64 cores"), ("h100", "Some H100")):
        flags = [*files, "--pages", str(page), "--readmes", str(speeds), "--kind", kind]
        assert bench_table.main(flags) == 0
        assert shown in page.read_text() and "1.5x as fast as Unsloth" in speeds.read_text()
    others = [name for name in files if "2-cores" not in name]
    before = speeds.read_text()
    assert bench_table.main([*others, "--pages", str(page), "--readmes", str(speeds)]) == 0
    assert speeds.read_text() == before


def test_readme_is_replaced_between_the_markers_and_checked(tmp_path: Path) -> None:
    record(entry("throughput", share_of_matmul_rate=0.5), tmp_path)
    readme = tmp_path / "README.md"
    speeds = tmp_path / "SPEEDS.md"
    speeds.write_text(f"{bench_table.BEGIN}\n{bench_table.END}\n")
    flags = [str(next(tmp_path.glob("*.json"))), "--pages", str(readme), "--readmes", str(speeds)]
    readme.write_text(f"before\n{bench_table.BEGIN}\nold\n{bench_table.END}\nafter\n")
    assert bench_table.main([*flags, "--check"]) == 2
    assert bench_table.main(flags) == 0
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text and "50%" in text
    assert bench_table.main([*flags, "--check"]) == 0
    with pytest.raises(ConfigError, match="no lines"):
        bench_table.replaced("nothing", "table")


def test_the_statistics_page_gets_the_simulated_shares(tmp_path: Path) -> None:
    shares = {"micro": {"45": 0.022, "35030": 0.0512}, "macro": {"45": 0.04}}
    result: dict[str, Any] = {
        "type_one": shares,
        "coverage": {"micro": {"45": 0.969, "35030": 0.9}},
        "power": {},
        "foreign": {"log score, cooled": {"225": 0.015}},
        "foreign_coverage": {"macro, cooled": {"225": 0.92, "35030": 0.85}},
        "simulated": 1000,
        "type_one_within": True,
    }
    record(entry("soundness", **result), tmp_path)
    pages = {name: tmp_path / f"{name}.md" for name in ("pages", "statistics", "readmes")}
    for page in pages.values():
        page.write_text(f"{bench_table.BEGIN}\n{bench_table.END}\n")
    flags = [word for name, page in pages.items() for word in (f"--{name}", str(page))]
    assert bench_table.main([str(next(tmp_path.glob("*.json"))), *flags]) == 0
    line = pages["pages"].read_text()
    assert "4.0% in the worst of 2 cells below full size, 1.5% in the worst of 1 in other worlds, all" in line
    assert "hold the truth in 96.9% to 96.9%, in other worlds in 92.0% to 92.0% ([all of it, full" in line
    text = pages["statistics"].read_text()
    assert "| | 45 | 35,030 |" in text and "| micro | 2.2 | 5.1 |" in text and "| macro | 4.0 | – |" in text
    assert "| micro | 96.9 | 90.0 |" in text
    assert "| log score, cooled | 1.5 |" in text and "an assumption that is false" not in text
    pages["statistics"].write_text(text.replace("96.9", "95.0"))
    assert bench_table.main([str(next(tmp_path.glob("*.json"))), *flags, "--check"]) == 2


def test_worlds_bounds_and_redrawn_cells_are_shown() -> None:
    worst = {
        "name": "micro, cooled",
        "questions": 450,
        "share": 0.06,
        "bound": 0.081,
        "pairs": 150,
        "room": 0.02,
    }
    result = {
        **entry("soundness"),
        **{kind: {} for kind in ("type_one", "coverage", "power", "foreign")},
        "forms": {"rest, form world": {"450": 0.02}},
        "simulated": 300,
        "worlds": {
            "cooled": {"ok": True, "cells": 3, "claim": worst},
            "gain": {
                "ok": False,
                "cells": 3,
                "coverage": {**worst, "name": "macro", "share": 0.9, "bound": 0.92},
            },
        },
        "redrawn": {
            "macro, 450 questions": {"share": 0.88, "pairs": 100, "fresh_share": 0.9, "fresh_pairs": 300}
        },
    }
    text = bench_table.render_soundness(result)
    assert "| cooled | micro, cooled, 450 questions | 6.0 (8.1) | – | – |" in text
    assert "| gain (**out of bounds**) | – | – | macro, 450 questions | 90.0 (92.0) |" in text
    assert "macro, 450 questions: 88.0% of 100, then 90.0% of 300" in text
    assert "300 simulated pairs per cell, half in worlds" in text and "| rest, form world | 2.0 |" in text
    assert "No cell was out of bounds" in bench_table.render_soundness({**result, "redrawn": {}})


def test_each_kind_of_decide_has_a_line_and_none_replaces_another(tmp_path: Path) -> None:
    share = {"share": 0.0, "low": 0.0, "high": 0.02}
    row = {name: {"mean": mean} for name, mean in (("adaptive", 3000), ("uniform", 4700))}
    pairs: dict[str, Any] = {
        "mean_questions": {"1-2": 5486},
        "intervals": {"wrong_sign_share": share, "null_decided_share": share},
        "coverage_at_stop": 0.98583,
        "questions": 35030,
        "runs": 25,
    }
    adapters: dict[str, Any] = {
        "mean_questions": {"1": 3000},
        "intervals": {"by margin": {"1": row}},
        "wrong_sign_share": share,
        "ten_adapters": {"passes": 1.4, "family_wise_error": share},
        "exams": {},
    }
    one = {"verdict": "better", "decided_at": 120, "asked": 150, "asking_sec": 12.0}
    orders: dict[str, Any] = {
        "questions": 450,
        "by_order": {"uniform": {**one, "decided_at": 300}, "adaptive": one},
        "by_seed": [
            {"seed": 1, "uniform": {**one, "decided_at": None}, "adaptive": one},
            {"seed": 2, "uniform": one, "adaptive": one},
        ],
    }
    for day, result in enumerate((pairs, adapters, orders), 1):
        record(entry("decide", day, **result), tmp_path)
    made = bench_table.render(bench_table.read_entries(sorted(tmp_path.glob("*.json"))))
    assert "1-2 pp 5,486" in made and "1 pp 3,000 (uniform 4,700)" in made and "in 1.40 passes" in made
    assert 'uniform "better" after 300 in 12 s, adaptive "better" after 120 in 12 s, of 450 questions' in made
    assert "of 450 questions (means of 2 seeds, adaptive sooner in 1)" in made


def test_decide_on_tables_and_with_an_engine_are_two_lines(tmp_path: Path) -> None:
    share = {"share": 0.04333, "low": 0.0325, "high": 0.0564}
    pairs: dict[str, Any] = {
        "mean_questions": {"1-2": 5486, "2-5": 1605},
        "intervals": {"wrong_sign_share": share, "null_decided_share": share},
        "coverage_at_stop": 0.98583,
        "questions": 35030,
        "runs": 25,
    }
    record(entry("decide", 1, **pairs), tmp_path)
    one: dict[str, Any] = {"verdict": "better", "decided_at": 225, "questions": 450, "times_sooner": 1.9}
    record(entry("decide", 2, **one), tmp_path)
    made = bench_table.render(bench_table.read_entries(sorted(tmp_path.glob("*.json"))))
    assert "1-2 pp 5,486, 2-5 pp 1,605; wrong signs 4.33% (3.25% to 5.64%)" in made
    assert '"better" after 225 of 450 questions, 1.9x sooner than our full pass' in made


def test_every_record_of_the_repository_can_be_told() -> None:
    entries = bench_table.read_entries(sorted(RESULTS.glob("*.json")))
    lines = bench_table.render(entries).splitlines()
    assert len(lines) >= 4 and all("| `python -m bench." in line for line in lines[2:])


def test_the_round_sets_figures_beside_targets_and_the_last_record(tmp_path: Path) -> None:
    figures = bench_all.ROUND["training"][1]
    rows = bench_all.rows_of(
        "training", entry("training", **training(2.0, 3.0)), figures, entry("training", **training(2.0, 2.4))
    )
    assert [(row["measured"], row["met"], row["of_last_record"]) for row in rows] == [
        (1.5, "yes", 1.25),
        (1.4, "yes", 1.0),
    ]
    [slow, _] = bench_all.rows_of("training", entry("training", **training(2.0, 2.4)), figures, None)
    assert slow["met"] == "no" and slow["of_last_record"] is None


def test_a_benchmark_that_fails_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def child(arguments: list[str], *_: Any, **__: Any) -> dict[str, Any]:
        if arguments[0] == "bench.overhead":
            raise ConfigError("no dataset")
        return entry("throughput", share_of_matmul_rate=0.9)

    monkeypatch.setattr(bench_all, "run_child", child)
    assert (
        bench_all.main(["--quick", "--benchmarks", "overhead,throughput", "--results-dir", str(tmp_path)])
        == 0
    )
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [(row["benchmark"], row["met"]) for row in rows] == [("overhead", "no"), ("throughput", "yes")]
    assert "no dataset" in rows[0]["what"]


def test_whole_commands_shapes_and_repeated_questions_have_lines_of_their_own(tmp_path: Path) -> None:
    rows = [{"peer": "kmmlu_fast"}, {"peer": "lm-eval-hf", "times_slower": 2.5, "different": 0}]
    rounds = [{"num_fewshot": 0, "rows": rows}]
    whole = [
        {"command": "kmmlu_fast.eval", "questions": 45, "sec": 20.0, "times_slower": 1.0},
        {"command": "lm_eval --model vllm", "questions": 45, "sec": 130.0, "times_slower": 6.5},
    ]
    record(entry("peers", 1, model="demo", rounds=rounds, whole=whole), tmp_path)
    record(entry("peers", 2, model="qwen2-0.5b", rounds=rounds), tmp_path)
    passes = [("letters, once", 1.0), ("letters, 4 orders", 2.3), ("chain, 1 sample", 1.0), ("chain, 8", 1.5)]
    record(entry("shared", 1, rows=[{"pass": name, "times_cpu_sec": x} for name, x in passes]), tmp_path)
    command = {"what": "help", "sec": {"median": 0.3}, "cpu_sec": {"median": 0.1}, "peak_gib": 0.09}
    busy = entry("commands", 1, rows=[command])
    busy["device"] = {**busy["device"], "load_1min": 22.04}
    record(busy, tmp_path)
    made = bench_table.render(bench_table.read_entries(sorted(tmp_path.glob("*.json"))))
    assert made.count("2.5x faster than lm-eval-hf") == 2 and "shape of Qwen2.5-0.5B" in made
    assert "45 questions in 20 s: 6.5x faster than lm_eval --model vllm" in made
    assert "letters, 4 orders: 2.30x once; chain, 8: 1.50x once (CPU time)" in made
    assert "help 0.3 s (0.1 s of CPU, 0.09 GiB)" in made and made.count("busy (load 22)") == 1


def test_a_trial_on_fewer_questions_does_not_replace_a_measurement(tmp_path: Path) -> None:
    def peers(day: int, questions: int, times: float) -> dict[str, Any]:
        other = {"peer": "plain", "times_slower": times, "different": 0, "questions": questions}
        rounds = [{"num_fewshot": 0, "rows": [{"peer": "kmmlu_fast", "questions": questions}, other]}]
        return entry("peers", day, model="demo", rounds=rounds)

    for day, questions, times in ((1, 225, 3.4), (2, 45, 2.0)):
        record(peers(day, questions, times), tmp_path)
    files = sorted(tmp_path.glob("*.json"))
    assert "3.4x faster" in bench_table.render(bench_table.read_entries(files))
    record(peers(3, 225, 4.4), tmp_path)
    files = sorted(tmp_path.glob("*.json"))
    assert "4.4x faster" in bench_table.render(bench_table.read_entries(files))


def test_a_quick_round_is_one_record_beside_the_checkout_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each benchmark runs in both checkouts, in turn; its quick figures replace no measurement."""
    before = tmp_path / "before"
    (before / "bench").mkdir(parents=True)
    for name in ("all", "throughput"):  # the other checkout has no bench.guard
        (before / "bench" / f"{name}.py").write_text("")
    asked: list[tuple[list[str], bool]] = []

    def child(
        arguments: list[str], env: dict[str, str] | None = None, folder: Path | None = None
    ) -> dict[str, Any]:
        asked.append((arguments, folder == before and (env or {})["PYTHONPATH"] == str(before)))
        if folder:
            return {"rows": [{"what": "share of the matmul rate", "measured": 0.6}]}
        if arguments[0] == "bench.guard":
            return entry("guard", sec={"median": 2.0}, bound_sec=4.0, peak_gb=1.0)
        return entry("throughput", share_of_matmul_rate=0.75)

    monkeypatch.setattr(bench_all, "run_child", child)
    words = ["--quick", "--benchmarks", "throughput,guard", "--before", str(before), "--record"]
    assert bench_all.main([*words, "--results-dir", str(tmp_path)]) == 0
    assert [(words[0], "--record" in words, there) for words, there in asked] == [
        ("bench.all", False, True),
        ("bench.throughput", False, False),
        ("bench.guard", False, False),
    ]
    [file] = tmp_path.glob("*.json")
    [kept] = json.loads(file.read_text(encoding="utf-8"))
    assert kept["bench"] == "all" and kept["total_sec"] == 0 and kept["quick"]
    rows = [(row["what"], row["before"], row["measured"], row["times_before"]) for row in kept["rows"]]
    assert rows == [
        ("share of the matmul rate", 0.6, 0.75, 1.25),
        ("guard over a training file / bound", None, 0.5, None),
        ("guard, peak GB", None, 1.0, None),
    ]
    made = bench_table.render(bench_table.read_entries([file]))
    assert "3 figures in 0 s, 2 of 3 aims met; before / after: share of the matmul rate 0.6 / 0.75" in made
    capsys.readouterr()
    assert bench_all.main(["--quick", "--before", str(tmp_path / "none")]) == 2
    assert "no checkout of this project" in capsys.readouterr().err


def test_a_round_with_tomorrows_peer_alone_replaces_no_round_with_todays(tmp_path: Path) -> None:
    def peers(day: int, name: str, questions: int) -> dict[str, Any]:
        other = {"peer": name, "times_slower": 9.0, "times_cpu": 1.02, "different": 0, "questions": questions}
        rounds = [{"num_fewshot": 0, "rows": [{"peer": "kmmlu_fast", "questions": questions}, other]}]
        return entry("peers", day, model="demo", rounds=rounds)

    record(peers(1, "lm-eval-vllm", 45), tmp_path)
    record(peers(2, "lm-eval-vllm-next", 225), tmp_path)
    record(peers(3, "lm-eval-vllm-next", 45), tmp_path)
    made = bench_table.render(bench_table.read_entries(sorted(tmp_path.glob("*.json"))))
    assert "9.0x faster than lm-eval-vllm;" in made
    assert "1.02x the CPU time in lm-eval-vllm-next (225 questions)" in made


def test_the_page_about_recipes_gets_its_tables(tmp_path: Path) -> None:
    method = {"best": 0.923, "kept_best": 0.97, "cost": 0.62}
    names = ("paired", "paired only", "halving", "wilcoxon", "no pruning")
    shares = {"naive_coverage": 0.824, "adapter_coverage": 0.925, "recipe_coverage": 0.966}
    world = dict.fromkeys(names, method) | shares | {"claimed_better": 0.033, "recipe_width_pp": 7.22}
    made = render_recipes(
        entry("recipes", null=world, one_better=world | {"paired": {**method, "best": 0.5}})
    )
    assert "| confirmed, the recipe over two seeds | 96.6% | 96.6% |" in made
    assert "| default: shown worse, then the better half | 50.0% | 97.0% | 62% | 62% |" in made
    assert "claimed in 3.3% of the searches" in made and "about 7 pp wide" in made


def test_a_round_of_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_all.main(["--quick", "--benchmarks", "start,nothing"]) == 2
    assert "--benchmarks nothing: allowed are start, throughput" in capsys.readouterr().err
    assert {"start", "adapters", "training", "analysis", "shared", "commands"} <= bench_all.ROUND.keys()
