"""Attacks on what surrounds a command, and on what decides its answers: weights changed in place, own exams
through every export, little memory, no temporary folder, closed streams, templates that explode.

In: a random generator and good inputs. Out: ``Attack``s. Knows nothing of how a command ends.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.inputs import Attack, Inputs
from kmmlu_fast.core.schema import OPTION_LETTERS, Prediction
from kmmlu_fast.models.model import resolve_model
from kmmlu_fast.runs.metrics import Metrics
from kmmlu_fast.runs.store import RunStore

_MIB = 1 << 20
_WEIGHTS = ("model-00001-of-00002.safetensors", "model-Q4_K_M.gguf", "pytorch_model.bin", "parts/own.bin")
_TEXTS = ("merges.txt", "modeling_own.py", "chat_template.jinja")
_TEMPLATES = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10 ** 11 }}",
    "{{ 2 ** (10 ** 10) }}",
    "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{{ messages | map('list') | list | string * 10 ** 10 }}",
)
_EVAL = ["--dataset", "sample", "--subjects", "Law", "--limit", "1", "--output-dir", "runs"]


def _small_commands(inputs: Inputs) -> dict[str, list[str]]:
    table, model = str(inputs.good / "table.csv"), str(inputs.model)
    return {
        "compare": [table, "--overlap", "none"],
        "report": [table, "--overlap", "none", "--output", "page.html"],
        "leakage": [str(inputs.good / "any.jsonl"), "--dataset", "sample"],
        "exams": [],
        "sample": ["--from", str(inputs.good / "scores.json"), "--dataset", "sample", "--size", "4"],
        "eval": ["--model", model, *_EVAL],
        "doctor": ["--model", model],
        "train": ["--plan", "--model", model],
        "install": ["--help"],
    }


def _weights(inputs: Inputs, chance: random.Random) -> Attack:
    """One byte somewhere in a large file, size and times kept: the model must be another one."""
    folder = inputs.folder / "model"
    shutil.copytree(inputs.model, folder)
    name = chance.choice([*_WEIGHTS, *_TEXTS])
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b" " * (5 * _MIB if name in _WEIGHTS else 5000))
    before = resolve_model(str(folder)).digest
    with path.open("r+b") as file:
        file.seek(chance.randrange(path.stat().st_size))
        file.write(b"#")
    kept = resolve_model(str(folder)).digest == before
    return Attack(f"{name} changed in place", "eval", ["--model", str(folder), *_EVAL], wrong=kept)


def _own_exam(inputs: Inputs, chance: random.Random) -> Attack:
    count = chance.randrange(2, 11)
    letters = OPTION_LETTERS[:count]
    subject = chance.choice(["회계/세무", "a b", "..", "법" * 60, "CON"])
    exam = {"name": "own", "title": "시험", "licence": "none"}
    store = RunStore(
        inputs.folder / "runs", "own", {"model": "m", "exam": "own"}, {"config": {}, "exam": exam}
    )
    for row in range(12):
        right, given = chance.choice(letters), chance.choice(letters)
        store.append(
            Prediction(
                question_id=f"{subject}/test/{row}",
                subject=subject,
                supercategory="own",
                split="test",
                row=row,
                answer=right,
                prediction=given,
                correct=right == given,
                read_by="loglikelihood",
                num_options=count,
            )
        )
    run = store.finish([f"{subject}/test/{row}" for row in range(12)], lambda frame: Metrics(), {})
    formats = chance.choice(["csv", "json", "parquet", "xlsx", "lm-eval", "csv,json,lm-eval"])
    more = chance.choice([[], ["--no-texts"]])
    argv = [str(run.path), "--output", "page.html", "--export", formats, "--overlap", "none", *more]
    return Attack(f"own exam of {count} options to {formats}", "report", argv)


def _little_memory(inputs: Inputs, chance: random.Random) -> Attack:
    made = _small_commands(inputs)
    verb = chance.choice(["compare", "exams", "leakage", "sample"])
    return Attack(f"{verb} under ulimit -v", verb, made[verb], around={"more_memory_bytes": 1 << 30})


def _no_temporary(inputs: Inputs, chance: random.Random) -> Attack:
    made = _small_commands(inputs)
    verb = chance.choice(sorted(made))
    argv = chance.choice([made[verb], ["--help"]])
    return Attack(f"{verb} without a temporary folder", verb, argv, around={"no_temporary": True})


def _streams(inputs: Inputs, chance: random.Random) -> Attack:
    made = _small_commands(inputs)
    verb = chance.choice(sorted(made))
    kind = chance.choice(["closed", "full"])
    argv = chance.choice([made[verb], ["--help"], ["--no-such-flag"]])
    return Attack(f"{verb} with stdout {kind}", verb, argv, around={"stdout": kind})


def _template(inputs: Inputs, chance: random.Random) -> Attack:
    folder = inputs.folder / "model"
    shutil.copytree(inputs.model, folder)
    (folder / "chat_template.jinja").write_text(chance.choice(_TEMPLATES))
    argv = ["--model", str(folder), *_EVAL, "--prompt-style", "chat"]
    return Attack("a template that explodes", "eval", argv, wrong=True)


KINDS: tuple[Callable[[Inputs, random.Random], Attack], ...] = (
    _weights,
    _own_exam,
    _little_memory,
    _no_temporary,
    _streams,
    _template,
)


def replay_corpus(folder: Path) -> list[Path]:
    """The kept finds, in order: files that once broke a reader."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".md")
