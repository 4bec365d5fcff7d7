"""A user's whole command against another's: from the shell to the printed result, the same questions.

In: a model, questions. Out: seconds of ``python -m kmmlu_fast.eval`` and of ``python -m lm_eval --model
vllm`` (and ``hf``), each once, imports and engine start included. Knows nothing of engines.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import note
from bench.peer_worker import write_tasks
from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.core.schema import LETTERS, Question
from kmmlu_fast.data.subjects import find_subject
from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.models.model import resolve_model


def whole_commands(
    model: str,
    dtype: str,
    max_model_len: int,
    questions: list[Question],
    exemplars: dict[str, list[Question]],
    env: dict[str, str],
    folder: Path,
) -> list[dict[str, Any]]:
    """A row a command; ``times_slower`` against ours."""
    path = resolve_model(model).path
    data = folder / "whole"
    write_questions(data, questions)
    tasks = folder / "tasks"
    tasks.mkdir()
    names = write_tasks(tasks, questions, exemplars)
    env = {**env, "VLLM_CPU_KVCACHE_SPACE": env.get("VLLM_CPU_KVCACHE_SPACE", "2")}
    env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if has_gpu() else "0"
    ours = {name: value for name, value in env.items() if name != "VLLM_CPU_KVCACHE_SPACE"}
    shared = ["--tasks", ",".join(names), "--include_path", str(tasks), "--batch_size"]
    eager = "" if has_gpu() else ",enforce_eager=True"
    commands = {
        "kmmlu_fast.eval": ["--model", path, "--dtype", dtype, "--dataset", str(data), "--limit", "1000"],
        "lm_eval --model vllm": [
            *("--model", "vllm", *shared, "auto"),
            *("--model_args", f"pretrained={path},dtype={dtype},max_model_len={max_model_len}{eager}"),
        ],
        "lm_eval --model hf": [
            *("--model", "hf", *shared, "2"),
            *("--model_args", f"pretrained={path},dtype={dtype},max_length={max_model_len}"),
        ],
    }
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as out:
        for name, words in commands.items():
            note(f"whole command: {name}")
            own = ["--output-dir", out, "--no-warm-engine"] if name.startswith("kmmlu") else []
            module = name.split(" ", maxsplit=1)[0]
            sec, cpu_sec = _timed([sys.executable, "-m", module, *words, *own], ours if own else env)
            rows.append(
                {
                    "command": name,
                    "questions": len(questions),
                    "sec": round(sec, 1),
                    "cpu_sec": round(cpu_sec, 1),
                    "times_slower": round(sec / (rows[0]["sec"] if rows else sec), 2),
                }
            )
    return rows


def write_questions(folder: Path, questions: list[Question]) -> None:
    """The very questions as a dataset of KMMLU's columns: a CSV a subject."""
    import polars as pl

    (folder / "data").mkdir(parents=True)
    for subject in dict.fromkeys(question.subject for question in questions):
        chosen = [question for question in questions if question.subject == subject]
        frame = pl.DataFrame(
            {
                "question": [q.question for q in chosen],
                "answer": [LETTERS.index(q.answer) + 1 for q in chosen],
                **{letter: [q.options[i] for q in chosen] for i, letter in enumerate(LETTERS)},
                "Category": [q.subject for q in chosen],
                "Human Accuracy": [None for _ in chosen],
            },
            schema_overrides={"Human Accuracy": pl.Float64},
        )
        for split in ("test", "dev", "train"):
            frame.write_csv(folder / "data" / f"{find_subject(subject).stem}-{split}.csv")


def _timed(words: list[str], env: dict[str, str]) -> tuple[float, float]:
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    sec, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise EngineError(f"{words[2]}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return sec, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
