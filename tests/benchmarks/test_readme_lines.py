"""The speeds in a few lines: each from its records, in both languages, and none without."""

from __future__ import annotations

from typing import Any

from bench.readme_lines import readme_lines

PEERS = [{"peer": "kmmlu_fast"}, {"peer": "lm-eval-vllm"}, {"peer": "lm-eval-hf"}]


def peers(shots: int, vllm: float, hf: float) -> dict[str, Any]:
    rows = [{**row, "times_slower": times} for row, times in zip(PEERS, (1.0, vllm, hf), strict=True)]
    return {"rounds": [{"num_fewshot": shots, "rows": rows}]}


def start(**more: float) -> dict[str, Any]:
    seconds = {"first answers": 11.6, "shown again": 0.7, **more}
    return {"rows": [{"tree": "now", "what": what, "sec": {"median": sec}} for what, sec in seconds.items()]}


def test_a_line_stands_only_where_its_records_do() -> None:
    assert readme_lines({}, "en") == readme_lines({"peers-0": peers(0, 16.0, 3.9)}, "ko") == ""
    entries = {"peers-0": peers(0, 16.04, 3.94), "peers-5": peers(5, 51.2, 10.6)}
    assert readme_lines(entries, "en") == (
        "- zero-shot **16x** lm-eval's vLLM backend and 3.9x its `hf` backend; five-shot **51x** and 10.6x"
    )
    assert "**16배**, `hf`의 3.9배, 5샷은 **51배**와 10.6배" in readme_lines(entries, "ko")


def test_figures_are_the_records() -> None:
    swapped = {"rows": [{"mode": "base", "swap_sec": 9.0}, {"mode": "swap", "swap_sec": 0.48}]}
    entries = {"start": start(), "adapters-swap": swapped}
    assert readme_lines(entries, "en") == (
        "- 12 s from the command to the first answer; another adapter takes 0.5 s"
    )
    warm = {**entries, "start": start(**{"first answers, warm engine": 2.44})}
    assert "first answer (2.4 s with `serve-engine`)" in readme_lines(warm, "en")
    assert "첫 답까지 12초 (`serve-engine`이 켜져 있으면 2.4초)" in readme_lines(warm, "ko")
    decided = {"decide": {"mean_questions": {"2-5": 1569}, "questions": 35_030}}
    assert "after 1,600 of 35,030 questions" in readme_lines(decided, "en")


def test_less_memory_is_claimed_only_where_it_is_less() -> None:
    def trained(peak_gib: float) -> str:
        rows = [
            {"way": "train", "cpu_sec": {"median": 2.0}, "peak_gib": peak_gib},
            {"way": "unsloth", "cpu_sec": {"median": 5.6}, "peak_gib": 2.7},
        ]
        return readme_lines({"training": {"rows": rows}}, "en")

    assert trained(2.0) == ("- a QLoRA step 2.8x as fast as Unsloth alone on short rows, with less memory")
    assert trained(2.8).endswith("on short rows")
