"""Malformed inputs of every kind, one command at a time: files that are cut, bent, swapped and poisoned; flags and paths of nonsense.

In: a random generator and a folder with good inputs. Out: ``Attack``s: a verb, its arguments, and whether the input is one that must be
refused (a number from it would be wrong). Knows nothing of how a command ends.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

WEIRD: tuple[Any, ...] = (
    None, True, -1, 0, 10**18, 10**40, 1e308, -1e-300, float("nan"), float("inf"), "", " ", "A", "1", "abc", "가나다", "\x1b[31mred\x1b[0m",
    "\u202egnp.exe", "x" * 5000, "\0", "\ud800", [], {}, [[]], {"": {}}, [None] * 50, "../../etc/passwd", "=1+1", "[/b]", "{x}", "%s%n",
)  # fmt: skip
FLAG_VALUES = (
    "", " ", "-1", "0", "1e999", "nan", "9" * 400, "None", "abc", "~nosuchuser/x", "~", "/dev/null", "/dev/full", "/proc/self/mem", ".", "/",
    "x" * 5000, "[/b]=lora", "a=b=c", "\x1b]0;x\x07", "가", "日本\u202e", "*", "[1]", "a,b,,c", "--", "http://", "http://[::1", "\udc80",
)  # fmt: skip


@dataclass(slots=True)
class Attack:
    """``wrong``: an answer to this input could only be a wrong number, so that it must be refused."""

    name: str
    verb: str
    argv: list[str]
    wrong: bool = False
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Inputs:
    """Good inputs, made once; every attack bends a copy in ``folder``."""

    good: Path
    folder: Path
    model: Path
    adapter: Path

    def copy(self, name: str) -> Path:
        """A fresh copy of a good input."""
        source, target = self.good / name, self.folder / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
        return target


def attack(inputs: Inputs, chance: random.Random) -> Attack:
    """One attack, its files written into ``inputs.folder`` (which must be empty)."""
    return chance.choice(_KINDS)(inputs, chance)


def make_good(folder: Path) -> None:
    """One good file of every kind that a verb reads."""
    from kmmlu_fast.data import dataset, rows
    from kmmlu_fast.data.subjects import find_subjects

    folder.mkdir(parents=True, exist_ok=True)
    subjects = find_subjects(["Law", "Math"])
    (folder / "scores.json").write_text(json.dumps([{"subject": s.name, "correct": 3, "total": 10} for s in subjects]))
    (folder / "scores.csv").write_text("subject,correct,total\nLaw,3,10\nMath,4,10\n")
    frame = dataset.load_frame("sample", "test", subjects)
    table = frame.select(pl.col("subject").alias("_config"), pl.col("row").alias("_row"), "answer", pl.lit("B").alias("m1"))
    table.with_columns(pl.lit("C").alias("m2")).write_csv(folder / "table.csv")
    (folder / "ids.json").write_text(json.dumps({"test_ids": frame["question_id"].to_list()[:2]}))
    train = dataset.load_questions("sample", "train", subjects)
    rows.write_rows(folder / "rows.jsonl", [rows.SftRow(question, "uniform") for question in train])
    (folder / "any.jsonl").write_text("".join(json.dumps({"question": q.question, "options": list(q.options)}) + "\n" for q in train))
    for split in ("train", "dev", "test"):
        for subject in subjects:
            (folder / "data" / "data").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(dataset.SAMPLE_DIR / "data" / f"{subject.stem}-{split}.csv", folder / f"data/data/{subject.stem}-{split}.csv")
    (folder / "eval.yaml").write_text("dataset: sample\nsubjects: [Law, Math]\nlimit: 1\nseed: 3\noutput_dir: runs\n")
    _make_lm_eval(folder / "lm", frame)


def _make_lm_eval(folder: Path, frame: pl.DataFrame) -> None:
    folder.mkdir()
    stamp = "2026-01-01T00-00-00.000000"
    results = {"kmmlu_law": {"acc,none": 0.5}, "kmmlu_math": {"acc,none": 0.25}}
    sizes = {name: {"original": 4, "effective": 4} for name in results}
    document = {"results": results, "n-samples": sizes, "n-shot": {"kmmlu_law": 0}, "model_name": "m"}
    (folder / f"results_{stamp}.json").write_text(json.dumps(document))
    lines = [
        json.dumps({"doc_id": row["row"], "doc": {"answer": 1}, "acc": 1.0, "filtered_resps": [["-1.0", "True"], ["-2", "x"], ["-3", "x"], [-4.0]]})
        for row in frame.filter(pl.col("subject") == "Law").iter_rows(named=True)
    ]  # fmt: skip
    (folder / f"samples_kmmlu_law_{stamp}.jsonl").write_text("\n".join(lines) + "\n")


# What is done to files


def bend_bytes(data: bytes, chance: random.Random) -> bytes:
    """Cut, flipped, doubled, prefixed, or replaced bytes."""
    kind = chance.randrange(8)
    at = chance.randrange(len(data) + 1)
    if kind == 0:
        return data[:at]
    if kind == 1:
        flipped = bytearray(data)
        for _ in range(chance.randrange(1, 20)):
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        return bytes(flipped)
    if kind == 2:
        return data + data
    if kind == 3:
        return chance.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"PK\x03\x04", b"\x1f\x8b"]) + data
    if kind == 4:
        return data[:at] + chance.choice([b"\xff", b"\0", b"\xed\xa0\x80", b"\r", b'"', b"\xe2\x80\xa8"]) + data[at:]
    if kind == 5:
        return b""
    if kind == 6:
        return chance.randbytes(chance.randrange(1, 400))
    return data.replace(b"\n", b"\r\n") if chance.random() < 0.5 else data.decode("utf-8", "ignore").encode("utf-16")


def bend_json(value: Any, chance: random.Random) -> str:
    """The document with a node replaced, lost, doubled or nested, as text."""
    value = copy.deepcopy(value)
    places = list(_places(value))
    kind = chance.randrange(6)
    if kind == 0 or not places:
        return "[" * 100_000 if chance.random() < 0.5 else json.dumps(chance.choice(WEIRD))
    holder, key = chance.choice(places)
    if kind in (1, 2):
        holder[key] = chance.choice(WEIRD)
    elif kind == 3:
        del holder[key]
    elif kind == 4:
        nest: Any = 1
        for _ in range(chance.choice([50, 300, 900])):
            nest = [nest]
        holder[key] = nest
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
    text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if kind == 5:
        text = text.replace(": ", f": {'9' * chance.choice([30, 5000])}, " + f'"k{chance.random()}": ', 1) if ": " in text else text
    return text


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        for key in list(value):
            yield value, key
            yield from _places(value[key])
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value, index
            yield from _places(value[index])


def bend_csv(text: str, chance: random.Random) -> str:
    """A cell, a heading, a row changed, lost or doubled."""
    lines = [line.split(",") for line in text.splitlines()]
    row, kind = chance.randrange(len(lines)), chance.randrange(6)
    column = chance.randrange(len(lines[row]))
    if kind in (0, 1):
        lines[row][column] = str(chance.choice(WEIRD)).replace("\ud800", "?")
    elif kind == 2:
        del lines[row][column]
    elif kind == 3:
        lines.insert(row, list(lines[row]))
    elif kind == 4:
        lines[row].append("more")
    else:
        lines = lines[:1]
    return "\n".join(",".join(line) for line in lines) + "\n"


def _bend(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    if chance.random() < 0.4 or path.suffix in (".parquet", ".safetensors"):
        path.write_bytes(bend_bytes(data, chance))
    elif path.suffix == ".json":
        path.write_bytes(bend_json(json.loads(data), chance).encode("utf-8", "replace"))
    elif path.suffix == ".jsonl":
        lines = data.decode().splitlines()
        at = chance.randrange(len(lines))
        lines[at] = bend_json(json.loads(lines[at]), chance)
        path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
    elif path.suffix == ".csv":
        path.write_bytes(bend_csv(data.decode("utf-8-sig"), chance).encode("utf-8", "replace"))
    else:
        path.write_bytes(bend_bytes(data, chance))


def bend_frame(frame: pl.DataFrame, chance: random.Random) -> tuple[pl.DataFrame, bool]:
    """Predictions as no evaluation writes them; whether they must be refused."""
    bad: list[tuple[pl.Expr | None, bool]] = [
        (pl.lit("E").alias("prediction"), True), (pl.lit("b").alias("answer"), True), (pl.lit(None, pl.Boolean).alias("correct"), True),
        (pl.lit(True).alias("correct"), True), (pl.lit(float("nan")).alias("logprob_A"), True), (pl.lit(2.0).alias("logprob_B"), True),
        (pl.lit("x").alias("row"), True), (pl.lit(None, pl.String).alias("question_id"), True), (pl.lit(7.5).alias("confidence"), True),
        (pl.lit([1, 2]).alias("texts"), True), (None, True),
    ]  # fmt: skip
    expression, wrong = chance.choice(bad)
    return (pl.concat([frame, frame]) if expression is None else frame.with_columns(expression)), wrong


# The kinds of attack. Each verb reads several kinds of file.


def _compare(inputs: Inputs, chance: random.Random) -> Attack:
    name = chance.choice(["table.csv", "scores.json", "scores.csv", "lm", "run"])
    path = inputs.copy(name)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    _bend(chance.choice(files), chance)
    other = str(inputs.good / ("run" if name == "run" else "table.csv"))
    verb = chance.choice(["compare", "report"])
    more = ["--json-file", "pair.json"] if verb == "compare" else ["--output", "report.html", "--export", chance.choice(["csv", "json", "lm-eval"])]
    return Attack(f"{verb} of a bent {name}", verb, [str(path), other, *more, "--overlap", "none"])


def _frame(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy("run")
    frame, wrong = bend_frame(pl.read_parquet(path / "predictions.parquet"), chance)
    frame.write_parquet(path / "predictions.parquet")
    return Attack("compare of impossible predictions", "compare", [str(inputs.good / "run"), str(path), "--overlap", "none"], wrong)


def _overlap(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy("ids.json")
    _bend(path, chance)
    return Attack("a bent overlap list", "compare", [str(inputs.good / "table.csv"), "--overlap", str(path)])


def _leakage(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy(chance.choice(["rows.jsonl", "any.jsonl"]))
    _bend(path, chance)
    return Attack("leakage of bent rows", "leakage", [str(path), "--dataset", "sample", "--output", "ids.json"])


def _sample(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy(chance.choice(["scores.json", "scores.csv", "lm", "run"]))
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    _bend(chance.choice(files), chance)
    return Attack("sample from bent scores", "sample", ["--from", str(path), "--dataset", "sample", "--size", "4", "--out", "sft.jsonl"])


def _train(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy("rows.jsonl")
    _bend(path, chance)
    return Attack("train on bent rows", "train", ["--data", str(path), "--dataset", "sample", "--output-dir", "lora"])


def _dataset(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy("data")
    _bend(chance.choice(sorted(path.rglob("*.csv"))), chance)
    argv = ["--dataset", str(path), "--subjects", "Law,Math", "--model", str(inputs.model), "--output-dir", "runs", "--num-fewshot", "1"]
    return Attack("eval of a bent dataset", "eval", argv)


def _yaml(inputs: Inputs, chance: random.Random) -> Attack:
    path = inputs.copy("eval.yaml")
    text = path.read_text()
    lines = text.splitlines()
    at = chance.randrange(len(lines))
    value = chance.choice(["[" * 3000, "&a [*a]", "!!python/object/apply:os.system [ls]", "2020-13-40", "9" * 5000, "~", "{}", "[1, 2]", "'\\x1b'"])
    lines[at] = chance.choice([f"{lines[at].split(':')[0]}: {value}", lines[at] + "\n" + lines[at], "x: &a [1]\n" + "y: [*a,*a]\n" * 30, "\t" + lines[at]])
    path.write_text("\n".join(lines) + "\n")
    if chance.random() < 0.3:
        path.write_bytes(bend_bytes(text.encode(), chance))
    return Attack("a bent YAML file", "eval", ["--config", str(path), "--model", str(inputs.model)])


def _adapter(inputs: Inputs, chance: random.Random) -> Attack:
    target = inputs.folder / "lora"
    shutil.copytree(inputs.adapter, target)
    files = [target / "adapter_config.json"] * 3 + [target / "adapter_model.safetensors"]
    _bend(chance.choice(files), chance)
    argv = ["--model", str(inputs.model), "--adapter", str(target), "--adapter-mode", "serve", "--dataset", "sample", "--subjects", "Law"]
    return Attack("eval with a bent adapter", "eval", [*argv, "--output-dir", "runs"])


def _model(inputs: Inputs, chance: random.Random) -> Attack:
    target = inputs.folder / "model"
    shutil.copytree(inputs.model, target)
    files = [p for p in sorted(target.iterdir()) if p.suffix == ".json"]
    _bend(chance.choice(files), chance)
    return Attack("eval of a bent model", "eval", ["--model", str(target), "--dataset", "sample", "--subjects", "Law", "--output-dir", "runs"])


def _flags(inputs: Inputs, chance: random.Random) -> Attack:
    from kmmlu_fast.data.config import LeakageConfig
    from kmmlu_fast.evaluation.config import EvalConfig
    from kmmlu_fast.reporting.inputs import CompareConfig, ReportConfig
    from kmmlu_fast.sampling.config import SampleConfig
    from kmmlu_fast.training.config import TrainConfig

    table = str(inputs.copy("table.csv"))
    verbs: dict[str, tuple[Any, list[str]]] = {
        "eval": (EvalConfig, ["--dataset", "sample", "--subjects", "Law", "--output-dir", "runs", "--model", str(inputs.model)]),
        "compare": (CompareConfig, [table, "--overlap", "none"]),
        "report": (ReportConfig, [table, "--overlap", "none", "--output", "report.html"]),
        "leakage": (LeakageConfig, [str(inputs.copy("any.jsonl")), "--dataset", "sample"]),
        "sample": (SampleConfig, ["--from", str(inputs.copy("scores.json")), "--dataset", "sample", "--size", "4", "--out", "sft.jsonl"]),
        "train": (TrainConfig, ["--data", str(inputs.copy("rows.jsonl")), "--dataset", "sample", "--output-dir", "lora"]),
    }
    verb = chance.choice(sorted(verbs))
    config, argv = verbs[verb]
    for _ in range(chance.choice([1, 1, 2])):
        name = chance.choice([n for n in config.model_fields if n not in ("engine", "base_url", "ray_address")])
        argv = [*argv, f"--{name.replace('_', '-')}={chance.choice(FLAG_VALUES)}"]
    return Attack(f"{verb} with nonsense flags", verb, argv)


def _paths(inputs: Inputs, chance: random.Random) -> Attack:
    """What stands in a file's place: a directory, a pipe, a device, a link in a circle, nothing, one that may not be read."""
    path = inputs.folder / f"{chance.choice(['t', 'ds[1]', 'x*', '가 나', '-x', '$(x)'])}.{chance.choice(['csv', 'json', 'jsonl', 'yaml'])}"
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
        "compare": [str(path), str(inputs.good / "table.csv"), "--overlap", "none"], "leakage": [str(path), "--dataset", "sample"],
        "train": ["--data", str(path), "--dataset", "sample"], "sample": ["--from", str(path), "--dataset", "sample", "--size", "3"],
        "eval": ["--config", str(path), "--model", str(inputs.model)], "report": [str(inputs.good / "table.csv"), "--overlap", str(path)],
    }  # fmt: skip
    verb = chance.choice(sorted(made))
    return Attack(f"{verb} of what is no file", verb, made[verb])


def _targets(inputs: Inputs, chance: random.Random) -> Attack:
    """Places to write to that are inputs, exist, or are no places."""
    table, rows = str(inputs.copy("predictions.csv" if (inputs.good / "predictions.csv").exists() else "table.csv")), str(inputs.copy("any.jsonl"))
    place = chance.choice([table, rows, "/dev/full/x", "/proc/x", f"{table}/x", "a" * 300, "~nosuchuser/x", "\0", ".", ""])
    made = {
        "compare": [f"{table}:m1", f"{table}:m2", "--overlap", "none", "--json-file", place],
        "report": [table, "--overlap", "none", "--output", f"{place}.html", "--export", "csv,json,lm-eval"],
        "leakage": [rows, "--dataset", "sample", "--output", place],
        "sample": ["--strategy", "uniform", "--dataset", "sample", "--size", "3", "--out", place],
    }
    verb = chance.choice(sorted(made))
    return Attack(f"{verb} to a bad place", verb, made[verb])


_KINDS: tuple[Callable[[Inputs, random.Random], Attack], ...] = (
    _compare, _compare, _frame, _overlap, _leakage, _sample, _train, _dataset, _yaml, _adapter, _model, _flags, _flags, _paths, _targets,
)  # fmt: skip


def make_run(folder: Path, frame: pl.DataFrame) -> None:
    """A complete run directory over these questions."""
    from kmmlu_fast.runs.run import complete_frame

    folder.mkdir()
    values = {"logprob_A": -0.5, "logprob_B": -1.5, "logprob_C": -2.5, "logprob_D": -3.5, "margin": 1.0, "confidence": 0.6}
    guess = pl.when(pl.col("subject") == "Math").then("answer").otherwise(pl.lit("A"))  # so that one subject is weak
    known = frame.with_columns(guess.alias("prediction"), (guess == pl.col("answer")).alias("correct"))
    known = known.with_columns(pl.lit(value).alias(name) for name, value in values.items())
    data = io.BytesIO()
    complete_frame(known.with_columns(pl.lit("loglikelihood").alias("read_by"))).write_parquet(data)
    (folder / "predictions.parquet").write_bytes(data.getvalue())
    parts = {"model": "m", "prompt_style": "lm-eval", "template_digest": "t", "output_type": "multiple_choice", "num_fewshot": 0}
    (folder / "config.json").write_text(json.dumps({"name": "base", "fingerprint_parts": parts, "config": {"dataset": "sample", "split": "test"}}))
    (folder / "environment.json").write_text(json.dumps({"python": "3"}))
    (folder / "metrics.json").write_text(json.dumps({"speed": {"questions": len(frame), "seconds": 1.5}}))
