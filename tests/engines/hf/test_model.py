"""Adapters and 4-bit bases of the transformers engine: against PEFT, bitsandbytes and Unsloth."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig
from transformers_cases import (
    adapters_of,
    assert_plain,
    by_key,
    make_files,
    open_engine,
    plain,
    reference,
    scoring,
)

from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.engines.hf.engine import TransformersEngine
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.model import resolve_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("transformers"))


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[TransformersEngine]:
    opened = open_engine(root, adapters_of(root, "lora", "other"))
    yield opened
    opened.close()


def test_adapters_of_one_stream_are_each_the_merged_models(engine: TransformersEngine, root: Path) -> None:
    lora, other = engine.settings.adapters
    mixed = [
        replace(request, stage=f"{request.stage}-{adapter.name if adapter else 'base'}", adapter=adapter)
        for request in scoring()[:20]
        for adapter in (None, lora, other)
    ]
    responses = by_key(engine.generate(mixed))
    models = {None: reference(root)} | {
        adapter: reference(root, adapter.name).merge_and_unload() for adapter in (lora, other)
    }
    for response in responses.values():
        wanted = plain(models[response.request.adapter], response.request)
        assert response.logprobs == pytest.approx(wanted, abs=1e-4)
    some = scoring()[0]
    assert len({plain(model, some) for model in models.values()}) == 3


@pytest.mark.parametrize("name", ["dora", "head"])
def test_adapters_that_vllm_cannot_serve(root: Path, name: str) -> None:
    [adapter] = adapters_of(root, name)
    opened = open_engine(root, (adapter,))
    base = scoring()[:5]
    responses = by_key(
        opened.generate([*base, *(replace(request, stage="tuned", adapter=adapter) for request in base)])
    )
    model, tuned = reference(root), reference(root, name)
    for response in responses.values():
        wanted = plain(tuned if response.request.adapter else model, response.request)
        assert response.logprobs == pytest.approx(wanted, abs=1e-4)
    with pytest.raises(AdapterError, match="vLLM"):
        load_adapters([str(root / name)], resolve_model(str(root / "base")), "serve")


def test_an_adapter_for_other_modules_is_refused(root: Path) -> None:
    shutil.copytree(root / "lora", root / "foreign")
    config = json.loads((root / "foreign" / "adapter_config.json").read_text())
    (root / "foreign" / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    with pytest.raises(AdapterError, match="24 of 28 matrices have no place") as caught:
        open_engine(root, adapters_of(root, "foreign"))
    assert "\n" not in str(caught.value)


def test_biases_are_refused_unless_merged(root: Path) -> None:
    shutil.copytree(root / "lora", root / "biased")
    config = json.loads((root / "biased" / "adapter_config.json").read_text())
    (root / "biased" / "adapter_config.json").write_text(json.dumps(config | {"bias": "all"}))
    with pytest.raises(AdapterError, match="--adapter-mode merge"):
        adapters_of(root, "biased")


def nf4() -> Any:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )


def test_a_4_bit_base_and_its_adapter_are_bitsandbytes_and_pefts(root: Path) -> None:
    [lora] = adapters_of(root, "lora")
    opened = open_engine(root, (lora,), quantization="nf4")
    assert opened.stats()["quantization"] == "nf4"
    responses = by_key(
        opened.generate([*scoring(), *(replace(r, stage=f"{r.stage}-lora", adapter=lora) for r in scoring())])
    )
    assert len(responses) == 144
    for adapter, name in ((None, None), (lora, "lora")):
        model = reference(root, name, quantization_config=nf4(), device_map={"": "cpu"})
        for module in model.modules():
            module.support_avx512bf16_for_cpu = False  # the kernel that rounds, on CPUs that have it
        assert_plain({k: r for k, r in responses.items() if r.request.adapter == adapter}, model)
    whole = plain(reference(root), scoring()[0])
    assert responses[scoring()[0].key].logprobs != pytest.approx(whole, abs=1e-2), "it must really be 4 bit"


UNSLOTH = """
import sys
sys.modules["vllm"] = None
import unsloth
import torch
from unsloth import FastLanguageModel
settings = {"max_seq_length": 256, "load_in_4bit": True, "dtype": torch.float32}
model, _ = FastLanguageModel.from_pretrained(sys.argv[1], **settings)
layers = {name: m.weight for name, m in model.named_modules() if type(m).__name__ == "Linear4bit"}
torch.save({name: (weight.data, weight.quant_state.absmax) for name, weight in layers.items()}, sys.argv[2])
"""


@pytest.mark.engine
def test_the_4_bit_base_is_unsloths_byte_for_byte(root: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", UNSLOTH, str(root / "base"), str(root / "unsloth.pt")],
        check=True,
        capture_output=True,
    )
    wanted = torch.load(root / "unsloth.pt")
    opened = open_engine(root, quantization="nf4")
    own = {
        name: module
        for name, module in opened._model.named_modules()
        if type(module).__name__ == "Linear4bit"
    }
    assert sorted(own) == sorted(wanted) and len(own) == 14
    for name, (weight, absmax) in wanted.items():
        assert torch.equal(own[name].weight.data, weight) and torch.equal(
            own[name].weight.quant_state.absmax, absmax
        )
