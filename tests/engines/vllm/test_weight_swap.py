"""Adapters swapped in a real vLLM engine on the CPU: merge's answers, the base's bits back, and
no answer from half an adapter.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engine_cases import ENVIRONMENT, LETTER_IDS
from safetensors.torch import load_file, save_file
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.core.errors import AdapterError, EngineError
from kmmlu_fast.core.schema import Adapter, Candidates, Request
from kmmlu_fast.engines.vllm import weight_swap
from kmmlu_fast.engines.vllm.engine import EngineSettings, VllmEngine
from kmmlu_fast.models import deltas
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.model import resolve_model

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the Qwen2 shape (biases in q, k, v), and three adapters: all projections,
    rank-stabilised, and v and down alone.
    """
    folder = tmp_path_factory.mktemp("swap")
    make_tiny_model(folder / "base")
    for seed, name in enumerate(("all", "stable", "some"), 1):
        make_tiny_adapter(folder / "base", folder / name, seed=seed)
    change_config(folder / "stable", use_rslora=True, alpha_pattern={"o_proj": 3})
    weights = load_file(folder / "some" / "adapter_model.safetensors")
    kept = {key: tensor for key, tensor in weights.items() if "v_proj" in key or "down_proj" in key}
    save_file(kept, folder / "some" / "adapter_model.safetensors")
    change_config(folder / "some", target_modules=["v_proj", "down_proj"])
    return folder


def change_config(folder: Path, **changed: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.fixture(scope="module")
def adapters(root: Path) -> dict[str, Adapter]:
    specs = [str(root / name) for name in ("all", "stable", "some")]
    return {
        adapter.name: adapter for adapter in load_adapters(specs, resolve_model(str(root / "base")), "swap")
    }


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[VllmEngine]:
    os.environ.update(ENVIRONMENT)
    opened = VllmEngine(EngineSettings(model=str(root / "base"), dtype="float32", max_model_len=512))
    yield opened
    opened.close()


def requests() -> list[Request]:
    draw = random.Random(0)
    prefix = tuple(
        draw.randrange(6, 262) for _ in range(96)
    )  # three blocks: found in the prefix cache, if it survived a swap
    return [
        Request(
            question_id=str(i),
            stage="letters",
            token_ids=prefix + tuple(draw.randrange(6, 262) for _ in range(20)),
            want=Candidates(LETTER_IDS),
        )
        for i in range(8)
    ]


def answers(engine: VllmEngine) -> list[tuple[float, ...]]:
    """Log-probabilities of the letters, one request at a time: batches of the same size round alike."""
    return [response.logprobs for request in requests() for response in engine.generate([request])]


def of_transformers(root: Path, adapter: Adapter | None) -> list[tuple[float, ...]]:
    """The same of PEFT's merged copy, computed by transformers."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter.path)).merge_and_unload(safe_merge=True)
    with torch.no_grad():
        rows = [
            model(torch.tensor([request.token_ids])).logits[0, -1].log_softmax(-1) for request in requests()
        ]
    return [tuple(float(row[token]) for token in LETTER_IDS) for row in rows]


def distance(one: list[tuple[float, ...]], two: list[tuple[float, ...]]) -> float:
    return max(
        abs(a - b) for left, right in zip(one, two, strict=True) for a, b in zip(left, right, strict=True)
    )


def test_answers_are_merges_and_the_base_comes_back_bit_for_bit(
    engine: VllmEngine, root: Path, adapters: dict[str, Adapter]
) -> None:
    base = answers(engine)
    assert distance(base, of_transformers(root, None)) < 1e-3
    seen = {}
    for name in (
        "all",
        "some",
        "stable",
        "some",
    ):  # from wide to narrow: what only the first changed must be undone
        engine.swap(adapters[name])
        tuned = answers(engine)
        assert distance(tuned, of_transformers(root, adapters[name])) < 1e-3
        assert distance(tuned, base) > 0.1
        assert seen.setdefault(name, tuned) == tuned
    engine.swap(None)
    assert answers(engine) == base


def test_nothing_is_swapped_while_requests_run(engine: VllmEngine, adapters: dict[str, Adapter]) -> None:
    stream = engine.generate(requests())
    next(stream)
    if engine._engine.has_unfinished_requests():
        with pytest.raises(EngineError, match="not while requests run"):
            engine.swap(adapters["all"])
    list(stream)


@pytest.mark.parametrize("whole", [3, 9, 16])
def test_a_fault_in_the_middle_leaves_the_base(
    engine: VllmEngine, adapters: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    base = answers(engine)
    engine.swap(adapters["stable"])
    plain = deltas.changed_weights

    def torn(weights, touched, changes, dtype, device):
        for i, item in enumerate(plain(weights, touched, changes, dtype, device)):
            if changes and i == whole:
                raise AdapterError("the file is torn")
            yield item

    monkeypatch.setattr(deltas, "changed_weights", torn)
    with pytest.raises(AdapterError, match="torn"):
        engine.swap(adapters["all"])
    assert answers(engine) == base
    monkeypatch.undo()
    engine.swap(adapters["all"])
    assert distance(answers(engine), base) > 0.1
    engine.swap(None)
    assert answers(engine) == base


def test_where_the_base_cannot_be_restored_nothing_answers(
    engine: VllmEngine, adapters: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = answers(engine)

    def broken(weights, touched, changes, dtype, device):
        yield from list(deltas_before(weights, touched, changes, dtype, device))[:5]
        raise OSError("disk")

    deltas_before = deltas.changed_weights
    monkeypatch.setattr(deltas, "changed_weights", broken)
    with pytest.raises(EngineError, match="disk"):
        engine.swap(adapters["all"])
    with pytest.raises(EngineError, match="half of it"):
        answers(engine)
    monkeypatch.undo()
    engine.swap(None)
    assert answers(engine) == base
    assert isinstance(engine._weights, weight_swap.WeightSwapper)
