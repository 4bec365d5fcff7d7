"""The reference of a check: an adapter that changes its base's weights is asked in a merged copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_faults as plant
from tiny_gguf import make_gguf_ready_model

from kmmlu_fast.shipping.artefact import open_artefact
from kmmlu_fast.shipping.config import CheckConfig, ExportConfig
from kmmlu_fast.shipping.export import export_adapter
from kmmlu_fast.shipping.gate import ReleaseGate

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_right_merge_passes_and_the_plain_sum_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    base = make_gguf_ready_model(tmp_path / "base", "qwen2")
    published = load_file(base / "model.safetensors")
    settings = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "v_proj", "down_proj"],
        init_lora_weights=start,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), settings)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.add_(torch.randn_like(weight) * 0.05)
    adapter = tmp_path / "lora"
    model.save_pretrained(adapter)
    export = ExportConfig(adapter=[str(adapter)], name="tiny", out=tmp_path / "merged")
    merged = export_adapter(export).path
    changes = plant.adapter_changes(adapter)

    def add_to_published(tensors: plant.Tensors) -> None:
        for name, change in changes.items():
            tensors[name] = (published[name].float() + change).to(tensors[name].dtype)

    wrong = plant.edit_tensors(merged, tmp_path / "wrong", add_to_published)
    gate = ReleaseGate(CheckConfig(artefacts=[str(adapter), "-"], questions=40, generations=2))
    right = gate.check(open_artefact(str(merged), None)).diagnosis
    assert right.verdict == "same", right.sentence
    found = gate.check(open_artefact(str(wrong), None)).diagnosis
    assert [cause.name for cause in found.causes] == [
        "pissa"
    ] and f"initialised with {start}" in found.sentence
