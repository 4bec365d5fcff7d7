"""What an artefact is, before anything is asked of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.shipping import artefact
from kmmlu_fast.shipping.artefact import open_artefact


def quantised_directory(folder: Path, method: str) -> Path:
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    folder.mkdir()
    text = json.dumps({**config, "quantization_config": {"quant_method": method, "bits": 4}})
    (folder / "config.json").write_text(text)
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return folder


@pytest.fixture
def vllm_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefact, "quantization_names", lambda: ("awq", "gptq", "inc", "compressed-tensors"))


@pytest.mark.usefixtures("vllm_reads")
@pytest.mark.parametrize("method", ["exl2", "exl3", "EXL2\x1b[2J", ""])
def test_what_nothing_here_reads_is_refused_before_the_reference_is_asked(
    tmp_path: Path, method: str
) -> None:
    with pytest.raises(
        ModelError, match=r"is quantised as .*does not read; serve it .*--base-url"
    ) as refused:
        open_artefact(str(quantised_directory(tmp_path / "packed", method)), None)
    assert "\x1b" not in str(refused.value)


@pytest.mark.usefixtures("vllm_reads")
@pytest.mark.parametrize("declared", ['"awq"', "[1]", "4"])
def test_a_declaration_that_is_no_object_is_refused_too(tmp_path: Path, declared: str) -> None:
    folder = quantised_directory(tmp_path / "packed", "awq")
    (folder / "config.json").write_text(f'{{"model_type": "llama", "quantization_config": {declared}}}')
    with pytest.raises(ModelError, match=r"quantization_config is .*, not an object"):
        open_artefact(str(folder), None)


@pytest.mark.usefixtures("vllm_reads")
@pytest.mark.parametrize("method", ["awq", "GPTQ", "auto-round", "compressed_tensors", "bitsandbytes"])
def test_what_vllm_or_transformers_reads_is_opened(tmp_path: Path, method: str) -> None:
    assert open_artefact(str(quantised_directory(tmp_path / "packed", method)), None).quantisation == method


def test_without_vllm_nothing_is_said_of_its_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefact, "quantization_names", tuple)
    assert open_artefact(str(quantised_directory(tmp_path / "packed", "exl2")), None).quantisation == "exl2"
