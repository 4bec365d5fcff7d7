"""Files that were replaced after they were digested are noticed; files that were only looked at are not."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kmmlu_fast.core.errors import AdapterError, ModelError
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.models import changes
from kmmlu_fast.models.adapter_files import digest_adapter
from kmmlu_fast.models.adapters import load_adapters
from kmmlu_fast.models.changes import check_adapter_unchanged, check_model_unchanged, has_model_changed
from kmmlu_fast.models.model import Model, resolve_model


@pytest.fixture
def own(model: Path, tmp_path: Path) -> Model:
    return resolve_model(str(shutil.copytree(model, tmp_path / "demo")))  # by name, but not, the demo model


@pytest.fixture
def adapter(model: Path, lora: Path, tmp_path: Path) -> Adapter:
    [found] = load_adapters(
        [str(shutil.copytree(lora, tmp_path / "lora"))], resolve_model(str(model)), "auto"
    )
    return found


def flip_last_byte(path: Path) -> None:
    """Same name, size and times."""
    state, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_changed_model_is_noticed(own: Model, name: str) -> None:
    check_model_unchanged(own)
    flip_last_byte(Path(own.path) / name)
    assert has_model_changed(own)
    with pytest.raises(ModelError, match="its files changed since this command read them; run the same"):
        check_model_unchanged(own)


def test_a_model_that_is_gone_is_told_and_a_commit_of_the_hub_never_changes(own: Model) -> None:
    shutil.rmtree(own.path)
    with pytest.raises(ModelError, match="No such file"):
        check_model_unchanged(own)
    check_model_unchanged(replace(own, revision="0" * 40))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_changed_adapter_is_noticed(adapter: Adapter, name: str) -> None:
    check_adapter_unchanged(adapter)
    flip_last_byte(adapter.path / name)
    with pytest.raises(AdapterError, match="its files changed since this command read them"):
        check_adapter_unchanged(adapter)


def test_an_adapter_that_is_gone_is_told(adapter: Adapter) -> None:
    (adapter.path / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match="cannot be read any more"):
        check_adapter_unchanged(adapter)


def test_an_adapter_that_nobody_touched_is_hashed_once(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def note_folder(folder: Path) -> str:
        hashed.append(folder)
        return digest_adapter(folder)

    monkeypatch.setattr(changes, "digest_adapter", note_folder)
    monkeypatch.setattr("kmmlu_fast.core.digests._YOUNG_SEC", 0.0)  # as if it were older
    for _ in range(3):
        check_adapter_unchanged(adapter)
    assert hashed == [adapter.path]
    flip_last_byte(adapter.path / "adapter_model.safetensors")
    with pytest.raises(AdapterError):
        check_adapter_unchanged(adapter)
