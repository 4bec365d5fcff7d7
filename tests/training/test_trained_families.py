"""Two real steps on tiny models of many families; the adapter must give one set of letters in every engine.

Trained by ``train`` (Unsloth), answered by vLLM with the adapter served, swapped in and merged, and by
transformers with PEFT. Two families by default; KMMLU_FAST_ALL_FAMILIES=1 takes all of them, and
``python tests/training/test_trained_families.py [FAMILY ...]`` prints them as a table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the table, which no pytest sets up
from tiny_families import FAMILIES, make_family_model

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
NEAR_TIE = 1e-3  # nats between the two best letters, in float32
STEPS = 2
WORDS = ("사과", "바다", "구름", "연필", "호수", "나무", "기차", "시계")


@dataclass(frozen=True)
class Case:
    """One family: its model's settings, what is done to the tokenizer, and flags of the training."""

    family: str
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizer: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()  # modes that say, before an engine starts, which other to use


# Merging and PEFT first: vLLM changes transformers' own classes of models that it has none of its own for.
MODES = ("peft", "merge", "serve", "swap")
CASES = {
    "qwen2": Case("Qwen2"),
    "qwen3": Case("Qwen3"),
    "llama": Case("Llama"),
    "llama-tied": Case("Llama", {"tie_word_embeddings": True}),
    "llama-pad-is-eos": Case("Llama", {"pad_token_id": 2}, {"pad_token": "<|eos|>"}),
    "llama-no-pad": Case("Llama", {"pad_token_id": None}, {"pad_token": None}),
    "mistral": Case("Mistral"),
    "gemma2": Case("Gemma2", {"tie_word_embeddings": True}),
    "phi3": Case("Phi3"),
    "gpt-neox": Case("GPTNeoX", flags=("--target-modules", ",".join(FAMILIES["GPTNeoX"][1]))),
    "exaone4": Case("Exaone4"),
    "qwen3-moe": Case(
        "Qwen3Moe", flags=("--target-modules", "q_proj,k_proj,v_proj,o_proj"), refused=("serve",)
    ),
    "qwen3-moe-experts": Case("Qwen3Moe", refused=("serve",)),
}
CHEAPEST = ("qwen2", "phi3")
EVALUATE = """
import json, sys
from pathlib import Path
from kmmlu_fast import KmmluError, evaluate
root, adapter, *modes = sys.argv[1:]
columns = [f"logprob_{letter}" for letter in "ABCD"]
found = {}
for mode in modes:
    engine = {"engine": "transformers"} if mode == "peft" else {"adapter_mode": mode}
    try:
        runs = evaluate(model=f"{root}/base", adapter=[adapter], exam=[f"{root}/exam.jsonl"], dtype="float32",
                        output_dir=Path(root) / "runs" / mode, **engine)
    except KmmluError as error:
        found[mode] = str(error)
    else:
        found[mode] = [run.predictions.select("prediction", *columns).rows() for run in runs]
print("RESULT " + json.dumps(found))
"""


def make_case(root: Path, case: Case) -> None:
    """The base, rows to train on, and an exam of twenty questions."""
    from transformers import AutoTokenizer

    base = make_family_model(root / "base", case.family, **case.settings)
    if case.tokenizer:
        tokenizer = AutoTokenizer.from_pretrained(base)
        for name, value in case.tokenizer.items():
            setattr(tokenizer, name, value)
        tokenizer.save_pretrained(base)
    questions = [
        {
            "question": f"{word}의 {kind} 글자는?",
            "options": [f"{word}{i}", "둘", word, "넷"],
            "answer": "ABCD"[i % 4],
        }
        for i, word in enumerate(WORDS)
        for kind in ("첫", "끝", "가운데")
    ]
    chats = [{"instruction": f"{word}을(를) 쓰시오.", "output": word} for word in WORDS]
    for name, rows in (("rows.jsonl", chats), ("exam.jsonl", questions)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (root / name).write_text("\n".join(lines), encoding="utf-8")


def run_child(arguments: list[str], root: Path) -> str:
    """The child's output. AssertionError with the end of what it said if it fails."""
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "KMMLU_FAST_CACHE": str(root / "cache"),
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, f"{arguments[:3]}: {done.stdout[-500:]}\n{done.stderr[-2500:]}"
    return done.stdout + done.stderr


def train(root: Path, case: Case, *more: str) -> Path:
    """Two steps, strong enough to change letters."""
    flags = ["--data", f"{root}/rows.jsonl", "--model", f"{root}/base", "--dataset", "sample"]
    flags += ["--held-out", "0", "--keep", "last", "--max-steps", str(STEPS), "--effective-batch", "4"]
    flags += ["--learning-rate", "3e-2", "--lr-scheduler-type", "constant", "--warmup-ratio", "0"]
    flags += ["--output-dir", f"{root}/lora", *case.flags, *more]
    run_child(["-m", "kmmlu_fast.train", *flags], root)
    return root / "lora"


def answers(root: Path, adapter: Path, modes: tuple[str, ...]) -> dict[str, Any]:
    """By mode: the base's and the adapter's letter and four log-probabilities for each question; or the
    refusal."""
    said = run_child(["-c", EVALUATE, str(root), str(adapter), *modes], root)
    found: dict[str, Any] = json.loads(said.split("RESULT ")[1].splitlines()[0])
    return found


def compare_answers(one: list[Any], other: list[Any]) -> tuple[float, int]:
    """The largest difference of a log-probability; how many letters differ although they are no near tie."""
    largest, others = 0.0, 0
    for (letter, *numbers), (other_letter, *other_numbers) in zip(one, other, strict=True):
        largest = max(largest, *(abs(a - b) for a, b in zip(numbers, other_numbers, strict=True)))
        best, second = sorted(numbers, reverse=True)[:2]
        others += letter != other_letter and best - second > NEAR_TIE
    return largest, others


def survey(root: Path, case: Case, *more: str) -> dict[str, Any]:
    """Everything that the test asserts on, and how long it took."""
    make_case(root, case)
    began = time.monotonic()
    adapter = train(root, case, *more)
    found: dict[str, Any] = {"train_sec": round(time.monotonic() - began)}
    by_mode = answers(root, adapter, MODES)
    base, adapted = by_mode["peft"]
    found["shift"] = round(compare_answers(base, adapted)[0], 3)
    found["changed"] = sum(one[0] != other[0] for one, other in zip(base, adapted, strict=True))
    found["modes"] = {}
    for mode, said in by_mode.items():
        if isinstance(said, str):
            found["modes"][mode] = said
        else:
            found["modes"][mode] = (*compare_answers(base, said[0]), *compare_answers(adapted, said[1]))
    found["sec"] = round(time.monotonic() - began)
    return found


def chosen_families() -> tuple[str, ...]:
    return tuple(CASES) if os.environ.get("KMMLU_FAST_ALL_FAMILIES") == "1" else CHEAPEST


@pytest.mark.parametrize("name", chosen_families())
def test_two_steps_give_an_adapter_that_answers_alike_everywhere(tmp_path: Path, name: str) -> None:
    found = survey(tmp_path, CASES[name], "--no-load-in-4bit")
    assert found["shift"] > 0.05  # the steps changed what is answered
    for mode, numbers in found["modes"].items():
        if mode in CASES[name].refused:
            assert isinstance(numbers, str) and "use --adapter-mode" in numbers
            continue
        assert not isinstance(numbers, str), (mode, numbers)
        base_gap, base_others, gap, others = numbers
        assert base_others == others == 0, (mode, found)
        assert base_gap < 1e-3 and gap < 1e-3, (mode, found)


def describe(found: dict[str, Any]) -> str:
    """A family's line: seconds, what two steps changed, and each mode's largest difference to PEFT."""
    modes = []
    for mode, numbers in found["modes"].items():
        if isinstance(numbers, str):
            modes.append(f"{mode} refused: {numbers}")
        elif mode != "peft":
            base_gap, base_others, gap, others = numbers
            modes.append(f"{mode} {base_gap:.0e}/{gap:.0e} nats, {base_others + others} other letters")
    changed = f"{found['changed']} of 24 letters changed, by up to {found['shift']} nats"
    return f"{found['train_sec']:>4} s training  {changed}  {'; '.join(modes)}"


def print_table(names: list[str], more: list[str]) -> None:
    """A line per family: what the modes (base/adapter) differ by from transformers; a failure is one too."""
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                line = describe(survey(Path(folder), CASES[name], *more))
            except AssertionError as error:
                line = f"FAILED: {error}"
        print(f"{name:<20}{line}", flush=True)


if __name__ == "__main__":
    print_table(
        [word for word in sys.argv[1:] if not word.startswith("-")],
        [word for word in sys.argv[1:] if word.startswith("-")],
    )
