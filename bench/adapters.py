"""What an adapter costs: the base alone, then base + 1 and base + 4 adapters, served, written into one
engine, or merged by PEFT.

In: a model and questions; the adapters are invented (random LoRA of all seven projections). Out: seconds of
each pass, and its ratio to the base's in an engine without LoRA (swap: the base's in the same engine, pass
after pass in turn); for merging also the seconds of the merge and of one more engine start, for swapping
those of a swap; CPU seconds beside the clock's. Each engine is a process of its own. Knows nothing of
accuracy.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, run_child, spread, table
from bench.flops import Shape, shape_of
from bench.throughput import Memory, ThroughputConfig, prepare
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.files import write_json_atomically
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.evaluation import runner
from kmmlu_fast.models import model as models
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.merging import merge_adapter

MODES = ("base", "serve", "swap", "merge")


class AdaptersConfig(BenchConfig):
    """python -m bench.adapters: seconds of a pass with no, one and four adapters, served or merged."""

    model: str = Field("demo", description="hub id, directory, or 'demo'")
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="compute type")
    load_format: str = Field("auto", description="'dummy' = random weights (serving only)")
    limit: PositiveInt = Field(2, description="questions a subject, the file's first")
    adapters: PositiveInt = Field(4, description="adapters at most")
    rank: PositiveInt = Field(16, description="LoRA rank")
    modes: list[str] = Field(list(MODES), description="base, serve, swap, merge")
    mode: Literal["base", "serve", "swap", "merge"] | None = Field(
        None, description="internal: measure this mode in this process, print JSON only"
    )


def write_adapter(folder: Path, shape: Shape, rank: int, seed: int, base: str, scale: float = 0.02) -> Path:
    """A PEFT adapter with random weights for every projection of every layer, in the names that
    Llama, Qwen and Gemma share. ``scale``: of lora_B's entries.
    """
    import torch
    from safetensors.torch import save_file

    h, q, kv, inner = (
        shape.hidden,
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
        shape.intermediate,
    )
    sizes = {
        "self_attn.q_proj": (h, q),
        "self_attn.k_proj": (h, kv),
        "self_attn.v_proj": (h, kv),
        "self_attn.o_proj": (q, h),
        "mlp.gate_proj": (h, inner),
        "mlp.up_proj": (h, inner),
        "mlp.down_proj": (inner, h),
    }
    draw = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(shape.layers):
        for name, (inputs, outputs) in sizes.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            weights[f"{prefix}.lora_A.weight"] = torch.randn(rank, inputs, generator=draw) / inputs**0.5
            weights[f"{prefix}.lora_B.weight"] = torch.randn(outputs, rank, generator=draw) * scale
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
    }
    names = sorted({name.rsplit(".", 1)[-1] for name in sizes})
    write_json_atomically(
        folder / "adapter_config.json", {**settings, "target_modules": names, "base_model_name_or_path": base}
    )
    return folder


def measure(config: AdaptersConfig, mode: str) -> dict[str, Any]:
    """The passes of one mode in this process."""
    from kmmlu_fast.engines.vllm.cpu_kernels import compile_fused_norms
    from kmmlu_fast.engines.vllm.engine import EngineSettings
    from kmmlu_fast.engines.vllm.start import start_vllm

    model = models.resolve_model(config.model)
    chosen = ThroughputConfig.model_validate({"limit": config.limit, "dataset": config.dataset})
    asked, method = prepare(chosen, models.load_tokenizer(model))
    longest = max(len(item.token_ids[0]) for item in asked)
    shape, length = shape_of(model.config()), -(-(longest + 32) // 256) * 256

    def engine(path: str, **settings: Any) -> Any:
        chosen: dict[str, Any] = {
            "dtype": config.dtype,
            "load_format": config.load_format,
            "max_model_len": length,
            "generates": False,
        }
        return start_vllm(EngineSettings(model=path, **chosen, **settings))

    def passes(opened: Any, adapter: Adapter | None, label: str) -> dict[str, Any]:
        runner.ask_questions(opened, asked[:2], method, adapter, Memory(), f"warm-up {label}")
        compile_fused_norms()
        return row(label, [one_pass(opened, adapter, label) for _ in range(config.repeats)])

    def one_pass(opened: Any, adapter: Adapter | None, label: str) -> tuple[float, float]:
        opened._llm.reset_prefix_cache()
        began, cpu_began = time.perf_counter(), time.process_time()
        runner.ask_questions(opened, asked, method, adapter, Memory(), label)
        return time.perf_counter() - began, time.process_time() - cpu_began

    def row(label: str, times: list[tuple[float, float]]) -> dict[str, Any]:
        measured = {
            "pass_sec": spread([sec for sec, _ in times], 3),
            "cpu_sec": spread([sec for _, sec in times], 3),
        }
        return {"mode": mode, "state": label, "questions": len(asked), **measured}

    def swapped(opened: Any, adapters: list[Adapter]) -> list[dict[str, Any]]:
        """Base and adapters in turn, so that a machine that grows busier slows all of them alike."""
        states: list[Adapter | None] = [None, *adapters]
        times: dict[str, list[tuple[float, float]]] = {each.name if each else "base": [] for each in states}
        swaps: dict[str, list[float]] = {name: [] for name in times}
        runner.ask_questions(opened, asked[:2], method, None, Memory(), "warm-up")
        compile_fused_norms()
        for _ in range(config.repeats):
            for each in states:
                name, began = each.name if each else "base", time.perf_counter()
                opened.swap(each)
                swaps[name].append(time.perf_counter() - began)
                times[name].append(one_pass(opened, None, name))
        return [
            {**row(name, found), "swap_sec": spread(swaps[name], 2)["median"]}
            for name, found in times.items()
        ]

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        count = {"base": 0, "serve": config.adapters, "swap": config.adapters, "merge": 1}[mode]
        paths = [
            write_adapter(Path(folder) / f"adapter-{i}", shape, config.rank, i, model.path)
            for i in range(1, count + 1)
        ]
        adapters = load_adapters(
            [str(path) for path in paths], model, mode if mode in ("merge", "swap") else "serve"
        )
        if mode == "merge":
            began = time.perf_counter()
            merged = str(merge_adapter(model, adapters[0], config.dtype))
            merge_sec = time.perf_counter() - began
            opened = engine(merged, tokenizer=model.path)
            rows.append({**passes(opened, None, "adapter-1"), "merge_sec": round(merge_sec, 1)})
        elif mode == "swap":
            opened = engine(model.path)
            rows += swapped(opened, adapters)
        else:
            opened = engine(model.path, max_lora_rank=config.rank if count else 0, num_adapters=count)
            rows.append(passes(opened, None, "base"))
            rows += [passes(opened, adapter, adapter.name) for adapter in adapters]
        start_sec = round(opened.start_sec, 1)
        opened.close()
    return {"rows": [{**row, "start_sec": start_sec} for row in rows]}


def totals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a user waits for: base, base + 1, base + all adapters, engine start included; merged
    copies need an engine each.
    """
    found = []
    for mode in dict.fromkeys(row["mode"] for row in rows):
        own = [row for row in rows if row["mode"] == mode]
        base = next(
            (row for row in rows if row["state"] == "base" and (row["mode"] == mode or mode == "merge")), None
        )
        if base is None:  # merged copies alone were measured
            continue
        added = [row for row in own if row["state"] != "base"]
        sec = base["start_sec"] + base["pass_sec"]["median"]
        found.append({"mode": mode, "states": "base", "total_sec": round(sec, 1)})
        more = {"merge": ("start_sec", "merge_sec"), "swap": ("swap_sec",)}.get(mode, ())
        each = [row["pass_sec"]["median"] + sum(row[name] for name in more) for row in added]
        for count in sorted({1, len(each)}) if each else ():
            found.append(
                {"mode": mode, "states": f"base + {count}", "total_sec": round(sec + sum(each[:count]), 1)}
            )
    return found


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(AdaptersConfig, argv, "python -m bench.adapters")
        if config.mode:
            print(json.dumps(measure(config, config.mode)))
            return 0
        flags = []
        for name in ("model", "dtype", "load_format", "limit", "adapters", "rank", "repeats", "dataset"):
            flags += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
        rows = []
        for mode in config.modes:
            note(f"adapters: {mode}")
            rows += run_child(["bench.adapters", "--mode", mode, *flags])["rows"]
        bases = {row["mode"]: row for row in rows if row["state"] == "base"}
        for row in rows:
            base = bases.get("swap") if row["mode"] == "swap" else bases.get("base")
            row["times_base"] = (
                round(row["pass_sec"]["median"] / base["pass_sec"]["median"], 3) if base else None
            )
            row["times_base_cpu"] = (
                round(row["cpu_sec"]["median"] / base["cpu_sec"]["median"], 3) if base else None
            )
        shown = [
            {**row, "pass_sec": row["pass_sec"]["median"], "cpu_sec": row["cpu_sec"]["median"]}
            for row in rows
        ]
        waited = totals(rows) if bases else []
        tables = [
            table("Passes (median)", shown),
            *([table("Base and adapters, engine start included", waited)] if waited else []),
        ]
        finish(
            "adapters",
            config,
            argv,
            {"model": Path(config.model).name, "rows": rows, "totals": waited},
            tables,
        )
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
