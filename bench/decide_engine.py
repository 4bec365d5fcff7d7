"""Seconds until an adapter is decided, against the full pass, and against lm-eval's full pass: one adapter,
one machine; and until it is decided beside a finished base, in the uniform and in the adaptive order.

In: a model, an adapter, a dataset. Out: seconds of ``eval --until-decided``, of going on to the full pass,
questions and verdict, and lm-eval's seconds for the same full pass, from its rate on some of the questions
(``lm_eval_sec`` is a product, and says so); ``by_order``. Each is a process of its own, started after the
other; engine starts are shown apart. Knows nothing of the statistics.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.common import note, run_child
from kmmlu_fast.core.errors import EngineError
from kmmlu_fast.runs.metrics import Speed
from kmmlu_fast.runs.run import Run
from kmmlu_fast.runs.store import load_run_directory

_EVAL = ("-m", "kmmlu_fast.eval", "--no-warm-engine")


def measure(flags: list[str], margin: float, folder: Path) -> dict[str, Any]:
    """``eval`` until decided and then to the end, in one directory; ``flags``: model, adapter, dataset,
    limit.
    """
    out = folder / "runs"
    base = [*_EVAL, *flags, "--output-dir", str(out)]
    early_sec = _timed([*base, "--until-decided", "--margin", str(margin)])
    early = _runs(out)
    rest_sec = _timed(base)
    whole = _runs(out)
    adapter = next(run for run in early if run.config.get("adapter"))
    decision = adapter.pass_metrics.decision or {}
    asked = sum(_speed(run).questions for run in early)
    spent = {
        "early": sum(_speed(run).seconds for run in early),
        "rest": sum(_speed(run).seconds for run in whole),
    }
    full_pass_sec = spent["early"] + spent["rest"] if adapter.prefix else spent["early"]
    return {
        "verdict": decision["verdict"],
        "decided_at": decision["decided_at"],
        "interval_pp": [round(100 * decision["low"], 2), round(100 * decision["high"], 2)],
        "questions": decision["total"],
        "answers_until_decided": asked,
        "until_decided_sec": round(spent["early"], 1),
        "full_pass_sec": round(full_pass_sec, 1),
        "times_sooner": round(full_pass_sec / spent["early"], 2) if spent["early"] else None,
        "with_starts_sec": {"until_decided": round(early_sec, 1), "going_on": round(rest_sec, 1)},
        "accuracy": {("lora" if run.config.get("adapter") else "base"): round(run.micro, 4) for run in whole},
    }


def measure_orders(
    flags: list[str], adapter_flags: list[str], margin: float, seeds: list[int], finished: Path, folder: Path
) -> dict[str, Any]:
    """An adapter until decided beside a finished base, in copies of it, in either order of each seed.
    ``flags``: model, dataset, limit. ``finished``: an output directory of ``eval``; where it does not hold
    the base's whole pass, that is asked first. ``by_order`` holds means over the seeds.
    """
    command = [*_EVAL, *flags, "--output-dir"]
    note("decide: the base's whole pass")
    base_sec = _timed([*command, str(finished)])
    by_seed = []
    for seed in seeds:
        found: dict[str, Any] = {"seed": seed}
        for order in ("uniform", "adaptive"):
            out = folder / f"{order}-{seed}"
            shutil.copytree(finished, out)
            note(f"decide: until decided in the {order} order of seed {seed}")
            words = [*command, str(out), *adapter_flags, "--until-decided", "--margin", str(margin)]
            sec = _timed([*words, "--order", order, "--seed", str(seed)])
            adapter = next(run for run in _runs(out) if run.config.get("adapter"))
            decision = adapter.pass_metrics.decision or {}
            found[order] = {
                "verdict": decision["verdict"],
                "decided_at": decision["decided_at"],
                "interval_pp": [round(100 * decision["low"], 2), round(100 * decision["high"], 2)],
                "asked": _speed(adapter).questions,
                "asking_sec": round(_speed(adapter).seconds, 1),
                "with_start_sec": round(sec, 1),
            }
            questions = decision["total"]
        by_seed.append(found)
        note(f"decide: {json.dumps(found)}")
    by_order = {
        order: mean_of_orders([found[order] for found in by_seed]) for order in ("uniform", "adaptive")
    }
    return {
        "questions": questions,
        "base_sec": round(base_sec, 1),
        "by_order": by_order,
        "by_seed": by_seed,
    }


def mean_of_orders(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The verdicts by how often they were given, and means: an order that was not decided counts with all
    that was asked.
    """
    verdicts = Counter(row["verdict"] for row in rows)
    told = " or ".join(
        name if len(verdicts) == 1 else f"{name} ({count} of {len(rows)})"
        for name, count in verdicts.most_common()
    )
    return {
        "verdict": told,
        "decided_at": round(statistics.mean(row["decided_at"] or row["asked"] for row in rows)),
        "asked": round(statistics.mean(row["asked"] for row in rows)),
        "asking_sec": round(statistics.mean(row["asking_sec"] for row in rows), 1),
        "with_start_sec": round(statistics.mean(row["with_start_sec"] for row in rows), 1),
    }


def lm_eval_full_pass(model: str, questions: int, limit: int) -> dict[str, Any]:
    """lm-eval on vLLM: its rate on ``limit`` questions a subject, times two model states over
    all questions.
    """
    note(f"decide: lm-eval's rate on {limit} questions a subject")
    words = ["bench.peers", "--model", model, "--peers", "kmmlu_fast,lm-eval-vllm", "--shots", "0"]
    found = run_child([*words, "--limit", str(limit), "--chunks", "1"])
    rows = {row["peer"]: row for row in found["rounds"][0]["rows"]}
    rate = rows["lm-eval-vllm"]["questions_per_sec"]
    measured_on = rows["lm-eval-vllm"]["questions"]
    sec = round(2 * questions / rate, 1)
    return {"lm_eval_questions_per_sec": rate, "lm_eval_measured_on": measured_on, "lm_eval_sec": sec}


def measured(
    *,
    model: str,
    adapter: str,
    dataset: str,
    limit: int | None,
    margin: float,
    peer_limit: int,
    orders: bool,
    seeds: list[int],
    finished: Path | None,
) -> dict[str, Any]:
    """All of it, or (``orders``) the two orders of each seed beside a finished base."""
    flags = ["--model", model, "--dataset", dataset, *(["--limit", str(limit)] if limit else [])]
    adapter_flags = ["--adapter", f"lora={adapter}"]
    with tempfile.TemporaryDirectory() as folder:
        if orders:
            flags += ["--limit-mode", "first"]  # the same questions for every seed
            base = finished or Path(folder) / "finished"
            return measure_orders(flags, adapter_flags, margin, seeds, base, Path(folder))
        found = measure([*flags, *adapter_flags], margin, Path(folder))
    if peer_limit:
        found |= lm_eval_full_pass(model, found["questions"], peer_limit)
        if found["until_decided_sec"]:
            found["times_sooner_than_lm_eval"] = round(found["lm_eval_sec"] / found["until_decided_sec"], 1)
    return found


def _timed(words: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise EngineError(
            f"python {' '.join(words[:2])}: ended with exit code {done.returncode}; its own message is above"
        )
    return time.perf_counter() - began


def _speed(run: Run) -> Speed:
    return run.pass_metrics.speed or Speed()


def _runs(out: Path) -> list[Run]:
    """Base first."""
    found = [
        load_run_directory(path, prefix=True)
        for path in sorted(out.iterdir())
        if (path / "config.json").exists()
    ]
    return sorted(found, key=lambda run: run.config.get("adapter") is not None)


def shown(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a table."""
    return [{"what": name, "value": json.dumps(value)} for name, value in found.items()]
