"""What ``watch`` costs: the same training with and without it, by its own account and by the clock.

In: a model, a number of steps. Out: a row for each training (TRL and PEFT on invented rows), and the share of
the time that watching took: as ``watch`` says, and as the clock and the CPU seconds say. Trainings alternate
(plain, watched, watched, plain), each in a process of its own, so a machine that slows down hits both alike.
Bound: the share that was asked for, 5 %. Knows nothing of what a look is.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, run_child, table
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main

WORDS = ("강물", "기차역", "도서관", "바람", "시장", "저녁", "골목", "우편", "지도", "의자", "항구", "빵집")


class WatchShareConfig(BenchConfig):
    """python -m bench.watch_share: a training with and without watch, by its own account and by the clock."""

    repeats: PositiveInt = Field(2, description="trainings of each kind")
    model: str = Field("demo", description="hub id, directory, or 'demo'")
    steps: PositiveInt = Field(
        100, description="optimiser steps of a training; too few, and nothing is asked"
    )
    batch: PositiveInt = Field(2, description="rows a step")
    row_words: PositiveInt = Field(30, description="words a row; two to three tokens each")
    share: float = Field(0.05, gt=0, lt=1, description="watch(share_of_time=...)")
    kind: Literal["plain", "watched"] | None = Field(
        None, description="internal: train once in this process, print JSON only"
    )


def make_rows(config: WatchShareConfig) -> list[dict[str, str]]:
    """As many invented rows as the steps take."""
    draw = random.Random(1)
    return [
        {"prompt": " ".join(draw.choices(WORDS, k=config.row_words)), "completion": f" {draw.choice(WORDS)}"}
        for _ in range(config.steps * config.batch)
    ]


def make_trainer(config: WatchShareConfig, folder: str) -> Any:
    """TRL's trainer over a LoRA, as most scripts have it."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from kmmlu_fast.machine.device import has_gpu
    from kmmlu_fast.machine.host import best_cpu_dtype
    from kmmlu_fast.models.model import resolve_model

    dtype = "bfloat16" if has_gpu() else best_cpu_dtype()
    torch.manual_seed(0)
    arguments = SFTConfig(
        output_dir=folder,
        max_steps=config.steps,
        per_device_train_batch_size=config.batch,
        logging_steps=config.steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not has_gpu(),
        bf16=False,
        model_init_kwargs={"dtype": dtype},
        seed=1,
    )
    return SFTTrainer(
        model=resolve_model(config.model).path,
        args=arguments,
        train_dataset=Dataset.from_list(make_rows(config)),
        peft_config=LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )


def train_once(config: WatchShareConfig) -> dict[str, Any]:
    """One training in this process; seconds from ``watch`` to the end of ``train``."""
    from kmmlu_fast import watch

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(config, folder)
        began, cpu_began = time.perf_counter(), time.process_time()
        watching = None
        if config.kind == "watched":
            watching = watch(trainer, dataset=config.dataset_name(), share_of_time=config.share)
        set_up_sec = time.perf_counter() - began
        trainer.train()
        own_share = None if watching is None else watching.share_of_time
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    looks = [] if watching is None else watching.looks
    return {
        "training": config.kind,
        "sec": round(seconds, 2),
        "cpu_sec": round(cpu_seconds, 2),
        "watch_set_up_sec": round(set_up_sec, 2),
        "looks": len(looks),
        "questions": looks[0].questions if looks else 0,
        "own_share": None if own_share is None else round(own_share, 4),
        "notes": [] if watching is None else watching.notes,
    }


def compare_trainings(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The share of a watched training that watching took: its own account, clock, CPU seconds (medians)."""

    def middle(kind: str, name: str) -> float:
        return float(statistics.median(row[name] for row in rows if row["training"] == kind))

    def extra(name: str) -> float:
        return round(1 - middle("plain", name) / middle("watched", name), 4)

    return {
        "own_share": middle("watched", "own_share"),
        "clock_share": extra("sec"),
        "cpu_share": extra("cpu_sec"),
    }


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(WatchShareConfig, argv, "python -m bench.watch_share")
        if config.kind:
            print("\n" + json.dumps(train_once(config), ensure_ascii=False))
            return 0
        names = ("model", "dataset", "steps", "batch", "row_words", "share")
        flags = [
            word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(config, name)))
        ]
        rows = []
        for turn in range(config.repeats):
            for kind in ("plain", "watched") if turn % 2 == 0 else ("watched", "plain"):
                rows.append(run_child(["bench.watch_share", "--kind", kind, *flags]))
                note(f"{kind}: {rows[-1]['sec']} s, {rows[-1]['looks']} looks")
        shares = compare_trainings(rows)
        shown = [{name: value for name, value in row.items() if name != "notes"} for row in rows]
        bounds = [
            {"share of the time": name, "is": f"{value:.1%}", "bound": f"{config.share:.0%}"}
            for name, value in shares.items()
        ]
        result = {"model": config.model.rsplit("/", 1)[-1], "steps": config.steps, "rows": rows, **shares}
        tables = [table("Trainings", shown), table("What watching took", bounds)]
        finish("watch_share", config, argv, result, tables)
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
