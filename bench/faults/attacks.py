"""Malformed inputs of every kind, one command at a time: files that are cut, bent, swapped and poisoned;
flags and paths of nonsense. What the tool itself wrote, and servers, are bent by ``attacks_own``.

In: a random generator and a folder with good inputs. Out: ``Attack``s: a verb, its arguments, and whether the
input is one that must be refused (a number from it would be wrong). Knows nothing of how a command ends.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from typing import Any

import polars as pl

from bench.faults import attacks_around, attacks_own
from bench.faults.bending import bend, bend_bytes, bend_frame
from bench.inputs import Attack, Inputs

FLAG_VALUES = (
    "",
    " ",
    "-1",
    "0",
    "1e999",
    "nan",
    "9" * 400,
    "None",
    "abc",
    "~nosuchuser/x",
    "~",
    "/dev/null",
    "/dev/full",
    "/proc/self/mem",
    ".",
    "/",
    "x" * 5000,
    "[/b]=lora",
    "a=b=c",
    "\x1b]0;x\x07",
    "가",
    "日本\u202e",
    "*",
    "[1]",
    "a,b,,c",
    "--",
    "http://",
    "http://[::1",
    "\udc80",
)


def attack(inputs: Inputs, chance: random.Random) -> Attack:
    """One attack, its files written into ``inputs.folder`` (which must be empty)."""
    return chance.choice(_KINDS)(inputs, chance)


# The kinds of attack. Each verb reads several kinds of file.


def _compare(inputs: Inputs, chance: random.Random) -> Attack:
    name = chance.choice(["table.csv", "scores.json", "scores.csv", "lm", "run"])
    path = inputs.copy(name)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    bend(chance.choice(files), chance)
    other = str(inputs.good / ("run" if name == "run" else "table.csv"))
    verb = chance.choice(["compare", "report"])
    more = (
        ["--json-file", "pair.json"]
        if verb == "compare"
        else ["--output", "report.html", "--export", chance.choice(["csv", "json", "lm-eval"])]
    )
    return Attack(f"{verb} of a bent {name}", verb, [str(path), other, *more, "--overlap", "none"])


def _frame(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy("run")
    frame, wrong = bend_frame(pl.read_parquet(path / "predictions.parquet"), chance)
    frame.write_parquet(path / "predictions.parquet")
    return Attack(
        "compare of impossible predictions",
        "compare",
        [str(inputs.good / "run"), str(path), "--overlap", "none"],
        wrong,
    )


def _overlap(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy("ids.json")
    bend(path, chance)
    return Attack("a bent overlap list", "compare", [str(inputs.good / "table.csv"), "--overlap", str(path)])


def _leakage(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy(chance.choice(["rows.jsonl", "any.jsonl"]))
    bend(path, chance)
    return Attack(
        "leakage of bent rows", "leakage", [str(path), "--dataset", "sample", "--output", "ids.json"]
    )


def _sample(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy(chance.choice(["scores.json", "scores.csv", "lm", "run"]))
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    bend(chance.choice(files), chance)
    return Attack(
        "sample from bent scores",
        "sample",
        ["--from", str(path), "--dataset", "sample", "--size", "4", "--out", "sft.jsonl"],
    )


def _train(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy("rows.jsonl")
    bend(path, chance)
    return Attack(
        "train on bent rows", "train", ["--data", str(path), "--dataset", "sample", "--output-dir", "lora"]
    )


def _dataset(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy("data")
    bend(chance.choice(sorted(path.rglob("*.csv"))), chance)
    argv = [
        "--dataset",
        str(path),
        "--subjects",
        "Law,Math",
        "--model",
        str(inputs.model),
        "--output-dir",
        "runs",
        "--num-fewshot",
        "1",
    ]
    return Attack("eval of a bent dataset", "eval", argv)


def _yaml(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy("eval.yaml")
    text = path.read_text()
    lines = text.splitlines()
    at = chance.randrange(len(lines))
    value = chance.choice(
        [
            "[" * 3000,
            "&a [*a]",
            "!!python/object/apply:os.system [ls]",
            "2020-13-40",
            "9" * 5000,
            "~",
            "{}",
            "[1, 2]",
            "'\\x1b'",
        ]
    )
    lines[at] = chance.choice(
        [
            f"{lines[at].split(':')[0]}: {value}",
            lines[at] + "\n" + lines[at],
            "x: &a [1]\n" + "y: [*a,*a]\n" * 30,
            "\t" + lines[at],
        ]
    )
    path.write_text("\n".join(lines) + "\n")
    if chance.random() < 0.3:
        path.write_bytes(bend_bytes(text.encode(), chance))
    return Attack("a bent YAML file", "eval", ["--config", str(path), "--model", str(inputs.model)])


def _adapter(inputs: Inputs, chance: random.Random) -> Attack:
    target = inputs.folder / "lora"
    shutil.copytree(inputs.adapter, target)
    files = [target / "adapter_config.json"] * 3 + [target / "adapter_model.safetensors"]
    bend(chance.choice(files), chance)
    argv = [
        "--model",
        str(inputs.model),
        "--adapter",
        str(target),
        "--adapter-mode",
        "serve",
        "--dataset",
        "sample",
        "--subjects",
        "Law",
    ]
    return Attack("eval with a bent adapter", "eval", [*argv, "--output-dir", "runs"])


def _model(inputs: Inputs, chance: random.Random) -> Attack:
    target = inputs.folder / "model"
    shutil.copytree(inputs.model, target)
    files = [p for p in sorted(target.iterdir()) if p.suffix == ".json"]
    bend(chance.choice(files), chance)
    return Attack(
        "eval of a bent model",
        "eval",
        ["--model", str(target), "--dataset", "sample", "--subjects", "Law", "--output-dir", "runs"],
    )


def _flags(inputs: Inputs, chance: random.Random) -> Attack:
    from kmmlu_fast.contamination.config import LeakageConfig
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.reporting.config import CompareConfig, ReportConfig
    from kmmlu_fast.sampling.config import SampleConfig
    from kmmlu_fast.training.config import TrainConfig

    table = str(inputs.copy("table.csv"))
    verbs: dict[str, tuple[Any, list[str]]] = {
        "eval": (
            EvalConfig,
            [
                "--dataset",
                "sample",
                "--subjects",
                "Law",
                "--output-dir",
                "runs",
                "--model",
                str(inputs.model),
            ],
        ),
        "compare": (CompareConfig, [table, "--overlap", "none"]),
        "report": (ReportConfig, [table, "--overlap", "none", "--output", "report.html"]),
        "leakage": (LeakageConfig, [str(inputs.copy("any.jsonl")), "--dataset", "sample"]),
        "sample": (
            SampleConfig,
            [
                "--from",
                str(inputs.copy("scores.json")),
                "--dataset",
                "sample",
                "--size",
                "4",
                "--out",
                "sft.jsonl",
            ],
        ),
        "train": (
            TrainConfig,
            ["--data", str(inputs.copy("rows.jsonl")), "--dataset", "sample", "--output-dir", "lora"],
        ),
    }
    verb = chance.choice(sorted(verbs))
    config, argv = verbs[verb]
    for _ in range(chance.choice([1, 1, 2])):
        name = chance.choice(
            [n for n in config.model_fields if n not in ("engine", "base_url", "ray_address")]
        )
        argv = [*argv, f"--{name.replace('_', '-')}={chance.choice(FLAG_VALUES)}"]
    return Attack(f"{verb} with nonsense flags", verb, argv)


def _paths(inputs: Inputs, chance: random.Random) -> Attack:
    """What stands in a file's place: a directory, a pipe, a device, a link in a circle, nothing, one that may
    not be read.
    """
    suffix = chance.choice(["csv", "json", "jsonl", "yaml"])
    path = inputs.folder / f"{chance.choice(['t', 'ds[1]', 'x*', '가 나', '-x', '$(x)'])}.{suffix}"
    kind = chance.randrange(5)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(chance.choice(["/dev/zero", "/dev/full", path.name, "/nowhere"]))
    elif kind == 3:
        path.write_bytes(b"")
    made = {
        "compare": [str(path), str(inputs.good / "table.csv"), "--overlap", "none"],
        "leakage": [str(path), "--dataset", "sample"],
        "train": ["--data", str(path), "--dataset", "sample"],
        "sample": ["--from", str(path), "--dataset", "sample", "--size", "3"],
        "eval": ["--config", str(path), "--model", str(inputs.model)],
        "report": [str(inputs.good / "table.csv"), "--overlap", str(path)],
    }
    verb = chance.choice(sorted(made))
    return Attack(f"{verb} of what is no file", verb, made[verb])


def _targets(inputs: Inputs, chance: random.Random) -> Attack:
    """Places to write to that are inputs, exist, or are no places."""
    table, rows = (
        str(inputs.copy("predictions.csv" if (inputs.good / "predictions.csv").exists() else "table.csv")),
        str(inputs.copy("any.jsonl")),
    )
    place = chance.choice(
        [table, rows, "/dev/full/x", "/proc/x", f"{table}/x", "a" * 300, "~nosuchuser/x", "\0", ".", ""]
    )
    made = {
        "compare": [f"{table}:m1", f"{table}:m2", "--overlap", "none", "--json-file", place],
        "report": [table, "--overlap", "none", "--output", f"{place}.html", "--export", "csv,json,lm-eval"],
        "leakage": [rows, "--dataset", "sample", "--output", place],
        "sample": ["--strategy", "uniform", "--dataset", "sample", "--size", "3", "--out", place],
    }
    verb = chance.choice(sorted(made))
    return Attack(f"{verb} to a bad place", verb, made[verb])


_KINDS: tuple[Callable[[Inputs, random.Random], Attack], ...] = (
    _compare,
    _compare,
    _frame,
    _overlap,
    _leakage,
    _sample,
    _train,
    _dataset,
    _yaml,
    _adapter,
    _model,
    _flags,
    _flags,
    _paths,
    _targets,
    *attacks_own.KINDS,
    *attacks_around.KINDS,
)
