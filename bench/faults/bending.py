"""Good inputs of every kind, and what is done to them: cut, flipped, swapped, poisoned.

In: bytes, documents, tables, a random generator. Out: the same, bent. Knows nothing of the commands that will
read them.
"""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from bench.faults.drawn import mutate_bytes, mutate_json

WEIRD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**18,
    10**40,
    1e308,
    -1e-300,
    float("nan"),
    float("inf"),
    "",
    " ",
    "A",
    "1",
    "abc",
    "가나다",
    "\x1b[31mred\x1b[0m",
    "\u202egnp.exe",
    "x" * 5000,
    "\0",
    "\ud800",
    [],
    {},
    [[]],
    {"": {}},
    [None] * 50,
    "../../etc/passwd",
    "=1+1",
    "[/b]",
    "{x}",
    "%s%n",
)


def make_good(folder: Path) -> None:
    """One good file of every kind that a verb reads."""
    from kmmlu_fast.data import alpaca, dataset
    from kmmlu_fast.data.subjects import find_subjects

    folder.mkdir(parents=True, exist_ok=True)
    subjects = find_subjects(["Law", "Math"])
    (folder / "scores.json").write_text(
        json.dumps([{"subject": s.name, "correct": 3, "total": 10} for s in subjects])
    )
    (folder / "scores.csv").write_text("subject,correct,total\nLaw,3,10\nMath,4,10\n")
    frame = dataset.load_frame("sample", "test", subjects)
    table = frame.select(
        pl.col("subject").alias("_config"), pl.col("row").alias("_row"), "answer", pl.lit("B").alias("m1")
    )
    table.with_columns(pl.lit("C").alias("m2")).write_csv(folder / "table.csv")
    (folder / "ids.json").write_text(json.dumps({"test_ids": frame["question_id"].to_list()[:2]}))
    train = dataset.load_questions("sample", "train", subjects)
    alpaca.write_sft_rows(
        folder / "rows.jsonl", [alpaca.SftRow(question=question, strategy="uniform") for question in train]
    )
    (folder / "any.jsonl").write_text(
        "".join(json.dumps({"question": q.question, "options": list(q.options)}) + "\n" for q in train)
    )
    for split in ("train", "dev", "test"):
        for subject in subjects:
            (folder / "data" / "data").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(
                dataset.SAMPLE_DIR / "data" / f"{subject.stem}-{split}.csv",
                folder / f"data/data/{subject.stem}-{split}.csv",
            )
    (folder / "eval.yaml").write_text(
        "dataset: sample\nsubjects: [Law, Math]\nlimit: 1\nseed: 3\noutput_dir: runs\n"
    )
    _make_lm_eval(folder / "lm", frame)


def _make_lm_eval(folder: Path, frame: pl.DataFrame) -> None:
    folder.mkdir()
    stamp = "2026-01-01T00-00-00.000000"
    results = {"kmmlu_law": {"acc,none": 0.5}, "kmmlu_math": {"acc,none": 0.25}}
    sizes = {name: {"original": 4, "effective": 4} for name in results}
    document = {"results": results, "n-samples": sizes, "n-shot": {"kmmlu_law": 0}, "model_name": "m"}
    (folder / f"results_{stamp}.json").write_text(json.dumps(document))
    lines = [
        json.dumps(
            {
                "doc_id": row["row"],
                "doc": {"answer": 1},
                "acc": 1.0,
                "filtered_resps": [["-1.0", "True"], ["-2", "x"], ["-3", "x"], [-4.0]],
            }
        )
        for row in frame.filter(pl.col("subject") == "Law").iter_rows(named=True)
    ]
    (folder / f"samples_kmmlu_law_{stamp}.jsonl").write_text("\n".join(lines) + "\n")


def make_run(folder: Path, frame: pl.DataFrame) -> None:
    """A complete run directory over these questions."""
    from kmmlu_fast.runs.run import fill_prediction_columns

    folder.mkdir()
    values = {
        "logprob_A": -0.5,
        "logprob_B": -1.5,
        "logprob_C": -2.5,
        "logprob_D": -3.5,
        "margin": 1.0,
        "confidence": 0.6,
    }
    guess = (
        pl.when(pl.col("subject") == "Math").then("answer").otherwise(pl.lit("A"))
    )  # so that one subject is weak
    known = frame.with_columns(guess.alias("prediction"), (guess == pl.col("answer")).alias("correct"))
    known = known.with_columns(pl.lit(value).alias(name) for name, value in values.items())
    data = io.BytesIO()
    fill_prediction_columns(known.with_columns(pl.lit("loglikelihood").alias("read_by"))).write_parquet(data)
    (folder / "predictions.parquet").write_bytes(data.getvalue())
    parts = {
        "model": "m",
        "prompt_style": "lm-eval",
        "template_digest": "t",
        "output_type": "multiple_choice",
        "num_fewshot": 0,
    }
    (folder / "config.json").write_text(
        json.dumps(
            {"name": "base", "fingerprint_parts": parts, "config": {"dataset": "sample", "split": "test"}}
        )
    )
    (folder / "environment.json").write_text(json.dumps({"python": "3"}))
    (folder / "metrics.json").write_text(json.dumps({"speed": {"questions": len(frame), "seconds": 1.5}}))


def bend_bytes(data: bytes, chance: random.Random) -> bytes:
    """Cut, flipped, doubled, prefixed, or replaced bytes."""
    kind = chance.randrange(8) if data else 6  # of nothing only something can be made
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
        return (
            data[:at]
            + chance.choice([b"\xff", b"\0", b"\xed\xa0\x80", b"\r", b'"', b"\xe2\x80\xa8"])
            + data[at:]
        )
    if kind == 5:
        return b""
    if kind == 6:
        return chance.randbytes(chance.randrange(1, 400))
    return (
        data.replace(b"\n", b"\r\n")
        if chance.random() < 0.5
        else data.decode("utf-8", "ignore").encode("utf-16")
    )


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
        text = (
            text.replace(": ", f": {'9' * chance.choice([30, 5000])}, " + f'"k{chance.random()}": ', 1)
            if ": " in text
            else text
        )
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


def bend_frame(frame: pl.DataFrame, chance: random.Random) -> tuple[pl.DataFrame, bool]:
    """Predictions as no evaluation writes them; whether they must be refused."""
    bad: list[tuple[pl.Expr | None, bool]] = [
        (pl.lit("E").alias("prediction"), True),
        (pl.lit("b").alias("answer"), True),
        (pl.lit(None, pl.Boolean).alias("correct"), True),
        ((~pl.col("correct")).alias("correct"), True),
        (pl.lit(float("nan")).alias("logprob_A"), True),
        (pl.lit(2.0).alias("logprob_B"), True),
        (pl.lit("x").alias("row"), True),
        (pl.lit(None, pl.String).alias("question_id"), True),
        (pl.lit(7.5).alias("confidence"), True),
        (pl.lit([1, 2]).alias("texts"), True),
        (None, True),
    ]
    chance.shuffle(bad)
    for expression, wrong in bad:
        bent = pl.concat([frame, frame]) if expression is None else frame.with_columns(expression)
        if not bent.equals(frame):  # a frame may already be as it is bent
            return bent, wrong
    raise ValueError("a frame without rows cannot be bent")


def bend(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    if chance.random() < 0.4:  # by grammars that are not ours
        if path.suffix == ".json":
            mutated = mutate_json(json.loads(data), chance).encode("utf-8", "replace")
        else:
            mutated = mutate_bytes(data, chance)
        path.write_bytes(mutated)
    elif chance.random() < 0.4 or path.suffix in (".parquet", ".safetensors"):
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
