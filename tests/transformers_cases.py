"""What the transformers engine's tests share: tiny models and adapters, plain forwards, and the requests.

In: a directory of ``make_files``. Out: engines, reference models, log-probabilities by one unpadded forward.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_cases
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny import make_tiny_adapter, make_tiny_model
from transformers import AutoModelForCausalLM

from kmmlu_fast.core.schema import Adapter, Candidates, Continuation, Generation, Request, Response
from kmmlu_fast.engines.hf.engine import TransformersEngine
from kmmlu_fast.engines.hf.model import TransformersSettings
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.model import resolve_model

EXACT = 1e-5  # nats, float32


def make_files(folder: Path) -> Path:
    """A base, two LoRA adapters for it, and two of kinds that vLLM does not serve."""
    make_tiny_model(folder / "base")
    for seed, name in ((1, "lora"), (2, "other")):
        make_tiny_adapter(folder / "base", folder / name, seed=seed)
    make_special_adapter(folder / "base", folder / "dora", use_dora=True)
    make_special_adapter(folder / "base", folder / "head", modules_to_save=["lm_head"])
    return folder


def make_special_adapter(model_path: Path, path: Path, **settings: Any) -> None:
    """A LoRA with other parts beside its matrices, all of them moved."""
    base = AutoModelForCausalLM.from_pretrained(model_path)
    torch.manual_seed(3)
    model = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM", **settings)
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and "lora_A" not in name:
                weight.add_(torch.randn_like(weight) * 0.2)
    model.save_pretrained(path)


def adapters_of(root: Path, *names: str) -> tuple[Adapter, ...]:
    return tuple(
        load_adapters([str(root / name) for name in names], resolve_model(str(root / "base")), "peft")
    )


def open_engine(
    root: Path, adapters: tuple[Adapter, ...] = (), model: str = "base", **settings: Any
) -> TransformersEngine:
    common: dict[str, Any] = {
        "dtype": "float32",
        "max_model_len": 1024,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 1024,
        "adapters": adapters,
    }
    return TransformersEngine(TransformersSettings(model=str(root / model), **(common | settings)))


def reference(root: Path, adapter: str | None = None, model: str = "base", **settings: Any) -> Any:
    found = AutoModelForCausalLM.from_pretrained(root / model, dtype=torch.float32, **settings)
    return PeftModel.from_pretrained(found, str(root / adapter)).eval() if adapter else found.eval()


def plain(model: Any, request: Request) -> tuple[float, ...]:
    """The request's log-probabilities by one unpadded forward."""
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([request.token_ids])).logits[0].float().log_softmax(-1)
    if isinstance(request.want, Continuation):
        start = len(request.token_ids) - request.want.num_tokens
        return (
            sum(
                float(logprobs[place - 1, request.token_ids[place]])
                for place in range(start, len(request.token_ids))
            ),
        )
    assert isinstance(request.want, Candidates)
    return tuple(float(logprobs[-1, token]) for token in request.want.token_ids)


def by_key(responses: Any) -> dict[str, Response]:
    return {response.request.key: response for response in responses}


def assert_plain(found: dict[str, Response], model: Any) -> None:
    for response in found.values():
        assert response.logprobs == pytest.approx(plain(model, response.request), abs=EXACT)


def scoring(adapter: Adapter | None = None) -> list[Request]:
    return [request for request in engine_cases.requests(adapter) if not isinstance(request.want, Generation)]


def written(prompts: list[tuple[int, ...]], **settings: Any) -> list[Request]:
    return [
        Request(
            question_id=str(i),
            stage="write",
            token_ids=prompt,
            want=Generation(**({"max_tokens": 20} | settings)),
        )
        for i, prompt in enumerate(prompts)
    ]


def prompts() -> list[tuple[int, ...]]:
    return [request.token_ids[250:] for request in engine_cases.requests() if request.stage == "reason"]
