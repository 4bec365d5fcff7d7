"""A merge in a child process gives the same copy, and its refusal is the parent's."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.core.errors import AdapterError, ModelError
from kmmlu_fast.models import merging
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.merging import merge_in_child, write_merged_model
from kmmlu_fast.models.model import resolve_model


def weights(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def test_the_copy_is_the_same_and_a_refusal_is_one_line(tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path / "model")
    model = resolve_model(str(path))
    [adapter] = load_adapters([str(make_tiny_adapter(path, tmp_path / "lora"))], model, "merge")
    here = write_merged_model(model, adapter, "float32", tmp_path / "here")
    apart = merge_in_child(model, adapter, "float32", tmp_path / "apart")
    assert weights(apart) == weights(here) != {}
    gone = replace(adapter, path=tmp_path / "nothing")
    with pytest.raises(AdapterError, match="nothing") as caught:
        merge_in_child(model, gone, "float32", tmp_path / "none")
    assert "\n" not in str(caught.value) and not (tmp_path / "none").exists()


@pytest.mark.parametrize("loaded", [True, False])
def test_a_merge_runs_apart_where_vllm_is_loaded_and_only_there(
    loaded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tiny_model(tmp_path / "model")
    model = resolve_model(str(path))
    [adapter] = load_adapters([str(make_tiny_adapter(path, tmp_path / "lora"))], model, "merge")
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    chosen = []
    for name in ("merge_in_child", "write_merged_model"):
        monkeypatch.setattr(merging, name, lambda *given, name=name: chosen.append(name) or given[-1])
    merging.merge_adapter(model, adapter, "float32")
    assert chosen == ["merge_in_child" if loaded else "write_merged_model"]


def test_a_copy_of_files_that_changed_meanwhile_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be found again by the digests that were read before."""
    path = make_tiny_model(tmp_path / "model")
    model = resolve_model(str(path))
    [adapter] = load_adapters([str(make_tiny_adapter(path, tmp_path / "lora"))], model, "merge")

    monkeypatch.setattr(merging, "_write_copy", lambda *given: given[-1].mkdir())
    monkeypatch.setattr(merging, "_compare_copy", lambda *given: None)
    for changed, name, error in (
        (adapter.path, "adapter_config.json", AdapterError),
        (path, "config.json", ModelError),
    ):
        file = changed / name
        file.write_text(file.read_text() + " ")
        with pytest.raises(error, match="changed since this command read them"):
            write_merged_model(model, adapter, "float32", tmp_path / "copy")
        assert not list(tmp_path.glob("copy*"))
        file.write_text(file.read_text()[:-1])
