"""The lines of "How fast" in README.md and README.ko.md, from recorded results.

In: the newest record of each benchmark. Out: lines in English or Korean; one stands only where its records
do. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Entry = dict[str, Any]


def readme_lines(entries: Mapping[str, Entry], lang: str) -> str:
    """The list, in ``lang`` (en or ko)."""
    korean = lang == "ko"
    made = [
        _peers(entries, korean),
        _start(entries, korean),
        _training(entries, korean),
        _decide(entries, korean),
        _commands(entries, korean),
    ]
    return "\n".join(f"- {line}" for line in made if line)


def _peers(entries: Mapping[str, Entry], korean: bool) -> str:
    if not {"peers-0", "peers-5"} <= entries.keys():
        return ""
    zero, five = (_times_slower(entries[f"peers-{shots}"], shots) for shots in (0, 5))
    vllm, hf = "lm-eval-vllm", "lm-eval-hf"
    if korean:
        return (
            f"제로샷은 lm-eval vLLM의 **{zero[vllm]:.0f}배**, `hf`의 {zero[hf]:.1f}배, 5샷은"
            f" **{five[vllm]:.0f}배**와 {five[hf]:.1f}배입니다"
        )
    return (
        f"zero-shot **{zero[vllm]:.0f}x** lm-eval's vLLM backend and {zero[hf]:.1f}x its `hf` backend;"
        f" five-shot **{five[vllm]:.0f}x** and {five[hf]:.1f}x"
    )


def _times_slower(entry: Entry, shots: int) -> dict[str, float]:
    (found,) = (each for each in entry["rounds"] if each["num_fewshot"] == shots)
    return {row["peer"]: row["times_slower"] for row in found["rows"] if "times_slower" in row}


def _start(entries: Mapping[str, Entry], korean: bool) -> str:
    if not {"start", "adapters-swap"} <= entries.keys():
        return ""
    rows = {row["what"]: row for row in entries["start"]["rows"] if row["tree"] == "now"}
    first = rows["first answers"]["sec"]["median"]
    warm = rows.get("first answers, warm engine")
    swap = max(row["swap_sec"] for row in entries["adapters-swap"]["rows"] if row["mode"] == "swap")
    if korean:
        warmed = f" (`serve-engine`이 켜져 있으면 {warm['sec']['median']:.1f}초)" if warm else ""
        return f"명령에서 첫 답까지 {first:.0f}초{warmed}, 어댑터를 바꾸는 데 {swap:.1f}초가 걸립니다"
    warmed = f" ({warm['sec']['median']:.1f} s with `serve-engine`)" if warm else ""
    return f"{first:.0f} s from the command to the first answer{warmed}; another adapter takes {swap:.1f} s"


def _training(entries: Mapping[str, Entry], korean: bool) -> str:
    rows = {row["way"]: row for row in entries.get("training", {}).get("rows", [])}
    if not {"train", "unsloth"} <= rows.keys():
        return ""
    own, stack = rows["train"], rows["unsloth"]
    times = stack["cpu_sec"]["median"] / own["cpu_sec"]["median"]
    less = own["peak_gib"] < stack["peak_gib"]
    if korean:
        more = "고 메모리도 적게 듭니다" if less else "습니다"
        return f"짧은 행에서 QLoRA 한 걸음이 Unsloth만 쓸 때보다 {times:.1f}배 빠르{more}"
    return f"a QLoRA step {times:.1f}x as fast as Unsloth alone on short rows" + (
        ", with less memory" if less else ""
    )


def _decide(entries: Mapping[str, Entry], korean: bool) -> str:
    if "decide" not in entries:
        return ""
    mean, total = entries["decide"]["mean_questions"]["2-5"], entries["decide"]["questions"]
    mean = round(mean, -2)
    if korean:
        return (
            f'"두 모델 가운데 어느 쪽이 나은가?"는 2~5 %p 차이라면 {total:,}문항 가운데 {mean:,}문항쯤에서'
            " 정해집니다"
        )
    return (
        f'"which of two models is better?" after {mean:,} of {total:,} questions if they are 2 to 5 points'
        " apart"
    )


def _commands(entries: Mapping[str, Entry], korean: bool) -> str:
    if "commands" not in entries:
        return ""
    rows = {row["what"]: row["sec"]["median"] for row in entries["commands"]["rows"]}
    report = next(sec for what, sec in rows.items() if what.startswith("report"))
    leakage = next(sec for what, sec in rows.items() if what.startswith("leakage"))
    if korean:
        return (
            f"25개 전체 실행의 보고서는 300개 쌍의 판정까지 {report:.0f}초, 학습 파일을 KMMLU 전체와 견주는"
            f" 데는 {leakage:.0f}초가 걸립니다"
        )
    return (
        f"report of 25 full runs, with all 300 pairs judged, in {report:.0f} s; training files checked"
        f" against all of KMMLU in {leakage:.0f} s"
    )
