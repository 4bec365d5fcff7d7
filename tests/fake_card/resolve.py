"""What vLLM's CUDA build makes of the engine's arguments on cards that are not there (needs gcc).

In: nothing, or ``--json``. Out: a table of every card of ``CARDS`` and case of ``CASES``, or JSON lines.
Each card is a process of its own (``--card N``), with the stubs in LD_LIBRARY_PATH; nothing is loaded and no
kernel runs. A last row per card says whether a process forked after asking for a GPU could still use CUDA.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
import fake_card  # noqa: E402 - beside the folders that were just added

_TABLE = ("case", "dtype", "kernel", "attention", "tokens", "seqs", "graphs", "v2", "error")


def resolve_cards(places: list[int] | None = None) -> list[dict[str, Any]]:
    """A row per card and case, each card in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = fake_card.build_all(Path(name))
        (folder / "model").mkdir()
        (folder / "model" / "config.json").write_text(json.dumps(fake_card.SHAPE))
        for place in places if places is not None else range(len(fake_card.CARDS)):
            environment = {
                **os.environ,
                **fake_card.card_environment(*fake_card.CARDS[place]),
                "LD_LIBRARY_PATH": str(folder),
                "HF_HUB_OFFLINE": "1",
            }
            environment.pop("CUDA_VISIBLE_DEVICES", None)
            words = [sys.executable, __file__, "--card", str(place), str(folder / "model")]
            done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            if done.returncode or not found:
                found = [{"card": fake_card.CARDS[place][2], "error": done.stderr[-600:]}]
            rows += found
    return rows


def resolve_card(place: int, model: str) -> None:
    """Print a JSON line per case, in a process that sees the fake card."""
    capability, gib, name = fake_card.CARDS[place]
    from kmmlu_fast.machine.device import has_gpu

    has_gpu()
    row = {"card": name, "gib": gib, "capability": f"{capability[0]}.{capability[1]}"}
    print(json.dumps({**row, "case": "fork", "bad_fork": _is_bad_after_fork()}), flush=True)
    import vllm
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext

    seen: dict[str, Any] = {}

    class LLM:
        def __init__(self, **arguments: Any) -> None:
            seen["config"] = EngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
            raise RuntimeError("resolved")

    vllm.LLM = LLM
    for case, fields in fake_card.CASES.items():
        print(json.dumps({**row, "case": case, **_resolve_case(seen, model, fields)}), flush=True)


def _is_bad_after_fork() -> bool:
    """Whether a child forked now could never use CUDA."""
    import torch

    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, b"1" if torch._C._cuda_isInBadFork() else b"0")
        os._exit(0)
    os.wait()
    return os.read(read, 1) == b"1"


def _resolve_case(seen: dict[str, Any], model: str, fields: dict[str, Any]) -> dict[str, Any]:
    from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine

    seen.clear()
    try:
        VllmEngine(EngineSettings(model=model, load_format="dummy", **{"max_model_len": 512, **fields}))
    except Exception as error:
        if "config" not in seen:
            return {"error": str(error)[:300]}
    return describe_config(seen["config"], fields)


def describe_config(config: Any, fields: dict[str, Any]) -> dict[str, Any]:
    """What matters of a resolved VllmConfig."""
    scheduler, compilation, lora = config.scheduler_config, config.compilation_config, config.lora_config
    return {
        "v2": config.use_v2_model_runner,
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "head": str(config.model_config.head_dtype).removeprefix("torch."),
        "tokens": scheduler.max_num_batched_tokens,
        "seqs": scheduler.max_num_seqs,
        "async": scheduler.async_scheduling,
        "prefix": config.cache_config.enable_prefix_caching,
        "graphs": len(compilation.cudagraph_capture_sizes or []),
        "largest_graph": compilation.max_cudagraph_capture_size,
        "autotune": config.kernel_config.enable_flashinfer_autotune,
        "lora": lora and [lora.max_lora_rank, lora.max_loras, lora.max_cpu_loras],
        "attention": find_attention(config),
        "sampler": os.environ.get("VLLM_USE_FLASHINFER_SAMPLER"),
        "kernel": find_fp8_kernel(config, fields.get("quantization")),
    }


def find_attention(config: Any) -> str:
    """The attention backend that vLLM would take for the model's layers."""
    from vllm.platforms import current_platform
    from vllm.v1.attention.selector import AttentionSelectorConfig

    asked = {"head_size": 128, "dtype": config.model_config.dtype, "kv_cache_dtype": "auto", "block_size": 16}
    known = {name: value for name, value in asked.items() if name in AttentionSelectorConfig._fields}
    chosen = config.attention_config.backend
    path = current_platform.get_attn_backend_cls(chosen, AttentionSelectorConfig(**known), num_heads=16)
    return str(path).rsplit(".", 1)[-1].removesuffix("Backend")


def find_fp8_kernel(config: Any, quantization: str | None) -> str | None:
    """The class that computes a layer's fp8 product; None without fp8."""
    if not quantization:
        return None
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.kernels.linear import init_fp8_linear_kernel
    from vllm.model_executor.layers.quantization.online import fp8

    name = (
        "Fp8PtpcOnlineLinearMethod" if quantization == "fp8_per_channel" else "Fp8PerTensorOnlineLinearMethod"
    )
    with set_current_vllm_config(config):
        method = getattr(fp8, name)()
        kernel = init_fp8_linear_kernel(
            activation_quant_key=method.activation_quant_key,
            weight_quant_key=method.weight_quant_key,
            weight_shape=(2048, 2048),
            input_dtype=config.model_config.dtype,
            out_dtype=config.model_config.dtype,
            module_name="layer",
        )
    return type(kernel).__name__.removesuffix("LinearKernel").removesuffix("ScaledMM")


def main() -> None:
    if "--card" in sys.argv:
        resolve_card(int(sys.argv[2 + sys.argv[1:].index("--card")]), sys.argv[-1])
        return
    rows = resolve_cards()
    if "--json" in sys.argv:
        print("\n".join(map(json.dumps, rows)))
        return
    print("| card | " + " | ".join(_TABLE) + " |\n|" + "---|" * (len(_TABLE) + 1))
    for row in rows:
        cells = [str(row.get(name, "")).replace("None", "") for name in _TABLE]
        print(f"| {row['card']} {row.get('gib', '')} GB | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
