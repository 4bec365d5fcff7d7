"""Attacks by what the tool itself wrote and somebody bent: finished and unfinished runs, runs that stopped
early, a finished training; by an exam's declaration, by the model that doctor looks at, by a hostile server.

In and out: as ``attacks``. Knows nothing of how a command ends.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from bench.faults import hostile
from bench.faults.bending import bend, bend_frame
from bench.inputs import Attack, Inputs

SUBJECTS = ["--dataset", "sample", "--subjects", "Law,Math"]


def make_own(good: Path, model: Path, adapter: Path) -> None:
    """Runs by the fake engine (``runs``: finished; ``early``: two that stopped early; ``cut``: killed after
    three answers), a finished training (``trained``), an exam's declaration (``exam.yaml``).
    """
    from kmmlu_fast.command.flags import parse_config
    from kmmlu_fast.engines.fake import FakeEngine
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.evaluation.session import run_evaluation

    asked = ["--model", str(model), *SUBJECTS]
    for name, flags in (("runs", []), ("early", [*_early(adapter), "--questions", "5"])):
        config = parse_config(EvalConfig, [*asked, *flags, "--output-dir", str(good / name)], "eval")
        run_evaluation(config, lambda adapters, length, path: FakeEngine())
    _make_cut(good)
    _make_trained(good, model)
    table = "\n".join(
        json.dumps({"question": f"q{i}", "options": ["가", "나", "다"], "answer": 1}) for i in range(4)
    )
    (good / "exam.jsonl").write_text(table + "\n")
    (good / "exam.yaml").write_text(
        "title: Mine\npath: exam.jsonl\nquestion: question\noptions: options\nanswer: answer\n"
        "coding: from 1\nlicence: CC0-1.0\n"
    )


def _early(adapter: Path) -> list[str]:
    return ["--adapter", f"lora={adapter}", "--adapter-mode", "serve"]


def _make_cut(good: Path) -> None:
    """The finished run as a kill leaves one: its first answers as a part."""
    shutil.copytree(good / "runs", good / "cut")
    [run] = [path for path in (good / "cut").iterdir() if path.is_dir()]
    (run / "predictions").mkdir()
    pl.read_parquet(run / "predictions.parquet").head(3).write_parquet(run / "predictions/part-00000.parquet")
    for name in ("predictions.parquet", "metrics.json", "environment.json"):
        (run / name).unlink()


def _make_trained(good: Path, model: Path) -> None:
    from kmmlu_fast.command.flags import parse_config
    from kmmlu_fast.training.config import TrainConfig
    from kmmlu_fast.training.inputs import data_digest

    folder = good / "trained"
    folder.mkdir()
    config = parse_config(TrainConfig, _training(good, model), "train")
    held: dict[str, Any] = {
        "loss": 1.5,
        "accuracy": 0.5,
        "balanced_accuracy": 0.5,
        "letter_share": {"A": 1.0},
    }
    metrics: dict[str, Any] = {
        "steps": 2,
        "tokens": 99,
        "train_sec": 1.5,
        "tokens_per_sec": 66.0,
        "final_loss": 1.2,
    }
    metrics |= {"kept_step": 2, "base": held, "kept": {**held, "step": 2}}
    card = {"metrics": metrics, "memory": {"peak_bytes": 2, "planned_bytes": 3}, "warnings": ["small"]}
    state = {"settings": config.result_settings(), "data_digest": data_digest(config)}
    for name, content in (("training.json", state), ("kmmlu_fast.json", card), ("adapter_config.json", {})):
        (folder / name).write_text(json.dumps(content))


def _training(good: Path, model: Path) -> list[str]:
    return ["--model", str(model), "--data", str(good / "rows.jsonl"), "--dataset", "sample", "--resume"]


def _file(folder: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(path for path in folder.rglob("*") if path.is_file()))


def _bent(file: Path, chance: random.Random) -> bool:
    """Bend it; whether that must be refused."""
    if file.suffix == ".parquet" and file.name != "order.parquet" and chance.random() < 0.5:
        frame, wrong = bend_frame(pl.read_parquet(file), chance)
        frame.write_parquet(file)
        return wrong
    bend(file, chance)
    return False


def _again(inputs: Inputs, chance: random.Random) -> Attack:
    name = chance.choice(["runs", "cut"])
    folder = inputs.copy(name)
    wrong = _bent(_file(folder, chance), chance)
    argv = ["--model", str(inputs.model), *SUBJECTS, "--output-dir", name]
    return Attack(
        f"the same eval over bent {name}", "eval", argv, wrong, own="cut" if name == "cut" else None
    )


def _beginning(inputs: Inputs, chance: random.Random) -> Attack:
    folder = inputs.copy("early")
    runs = sorted(path for path in folder.iterdir() if path.is_dir())
    wrong = _bent(_file(chance.choice(runs), chance), chance)
    if chance.random() < 0.6:
        argv = [*map(str, runs), "--dataset", "none", "--overlap", "none"]
        return Attack("compare of bent beginnings", "compare", argv, wrong)
    argv = ["--model", str(inputs.model), *SUBJECTS, *_early(inputs.adapter), "--output-dir", "early"]
    return Attack("bent beginnings continued", "eval", [*argv, "--questions", "6"], wrong, own="early")


def _trained(inputs: Inputs, chance: random.Random) -> Attack:
    bend(_file(inputs.copy("trained"), chance), chance)
    argv = [*_training(inputs.good, inputs.model), "--output-dir", "trained"]
    return Attack("a bent training shown again", "train", argv)


def _exam(inputs: Inputs, chance: random.Random) -> Attack:
    copies = [inputs.copy("exam.yaml"), inputs.copy("exam.jsonl")]
    bend(chance.choice(copies), chance)
    if chance.random() < 0.5:
        return Attack("a bent exam checked", "exams", ["--check", str(copies[0])])
    argv = ["--model", str(inputs.model), "--exam", str(copies[0]), "--output-dir", "runs"]
    return Attack("eval of a bent exam", "eval", argv)


def _doctor(inputs: Inputs, chance: random.Random) -> Attack:
    target = inputs.folder / "model"
    shutil.copytree(inputs.model, target)
    bend(chance.choice([target / "config.json"] * 2 + sorted(target.glob("*.json"))), chance)
    return Attack(
        "doctor of a bent model", "doctor", ["--model", str(target), *chance.choice([[], ["--json"]])]
    )


def _server(inputs: Inputs, chance: random.Random) -> Attack:
    url = hostile.serve(str(inputs.model), chance)
    argv = ["--model", str(inputs.model), *SUBJECTS, "--output-dir", "runs", "--engine", "server"]
    return Attack("a hostile server", "eval", [*argv, "--base-url", url])


KINDS: tuple[Callable[[Inputs, random.Random], Attack], ...] = (
    _again,
    _beginning,
    _trained,
    _exam,
    _doctor,
    _server,
)
