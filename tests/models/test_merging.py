"""A merged copy is compared with the unmerged model, untied where an adapter changes the head, and kept by
content.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_families import PROJECTIONS, make_family_model, make_peft_adapter

from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.models import merging
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.model import resolve_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Iterator[None]:
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    yield


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_copy_that_answers_otherwise_is_refused_and_not_kept(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the head's own weights, merging changes the input embeddings too."""
    base = make_family_model(tmp_path / "base", "Llama", tie_word_embeddings=True)
    make_peft_adapter(base, tmp_path / "lora", target_modules=[*PROJECTIONS, "lm_head"])
    model = resolve_model(str(base))
    [adapter] = load_adapters([str(tmp_path / "lora")], model, "merge")
    monkeypatch.delitem(sys.modules, "vllm", raising=False)  # with it, a child would merge, unpatched
    monkeypatch.setattr(merging, "untie_changed_head", lambda adapted: None)
    with pytest.raises(AdapterError, match="does not answer as the unmerged model: logits differ by up to"):
        merging.merge_adapter(model, adapter, dtype)
    assert not [path for path in (tmp_path / "cache" / "merged").iterdir() if path.is_dir()]
    monkeypatch.undo()
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    assert (merging.merge_adapter(model, adapter, dtype) / "config.json").exists()


def test_a_tie_that_no_adapter_touches_stays(tmp_path: Path) -> None:
    import json

    base = make_family_model(tmp_path / "base", "Llama", tie_word_embeddings=True)
    make_peft_adapter(base, tmp_path / "lora")
    model = resolve_model(str(base))
    [adapter] = load_adapters([str(tmp_path / "lora")], model, "merge")
    copy = merging.merge_adapter(model, adapter, "float32")
    assert json.loads((copy / "config.json").read_text())["tie_word_embeddings"] is True


def test_copies_are_keyed_by_every_tensor_of_the_base(tmp_path: Path) -> None:
    """Also by those in the middle of a file, which the model's digest leaves out."""
    from safetensors.torch import load_file, save_file

    base = make_family_model(tmp_path / "base", "Llama")
    make_peft_adapter(base, tmp_path / "lora")
    model = resolve_model(str(base))
    before = merging.weights_digest(model)
    assert merging.weights_digest(model) == before
    weights = base / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    assert merging.weights_digest(model) != before  # the same Model record: only the bytes differ
