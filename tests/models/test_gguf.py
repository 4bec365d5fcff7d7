"""GGUF headers: what they say, and one line for files that are cut short, damaged or something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.models.gguf import gguf_digest, read_gguf_file
from kmmlu_fast.models.model import load_tokenizer, resolve_model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_context_length(128)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "가"])
    writer.add_eos_token_id(1)
    writer.add_chat_template("{{ x }}")
    writer.add_tensor("token_embd.weight", np.arange(24, dtype=np.float32).reshape(3, 8))
    writer.add_tensor("output_norm.weight", np.ones(8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_header(file: Path) -> None:
    header = read_gguf_file(file)
    assert header.architecture == "qwen2" and header.tokens == ["a", "b", "가"]
    assert header.token_id("eos") == 1 and header.token_id("bos") is None
    assert header.chat_template == "{{ x }}"
    embedding = next(tensor for tensor in header.tensors if tensor.name == "token_embd.weight")
    assert embedding.shape == (3, 8) and embedding.type_name == "F32" and embedding.size_bytes == 96
    data = np.frombuffer(file.read_bytes()[embedding.start :][:96], dtype=np.float32)
    assert data.tolist() == list(range(24))


def test_is_a_model_like_any_other(file: Path) -> None:
    model = resolve_model(str(file))
    assert model.name == "tiny" and model.context_tokens == 128 and model.digest == gguf_digest(file)
    assert model.config()["model_type"] == "qwen2" and model.config()["vocab_size"] == 3


def test_what_only_transformers_reads_is_not_looked_for_in_it(file: Path) -> None:
    with pytest.raises(ModelError, match="a GGUF file is only asked, by llama"):
        load_tokenizer(resolve_model(str(file)))


def test_every_cut_is_one_line(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in range(0, len(data), 7):
        cut.write_bytes(data[:length])
        with pytest.raises(ModelError) as raised:
            read_gguf_file(cut)
        assert "\n" not in str(raised.value) and "cut.gguf" in str(raised.value)


def test_other_files_and_damage_are_one_line(file: Path, tmp_path: Path) -> None:
    data, bad = file.read_bytes(), tmp_path / "bad.gguf"
    for content in (b"", b"PK\x03\x04" + data, b"GGUF" + b"\xff" * 200, data[:8] + b"\xff" * 16 + data[24:]):
        bad.write_bytes(content)
        with pytest.raises(ModelError) as raised:
            read_gguf_file(bad)
        assert "\n" not in str(raised.value)
    with pytest.raises(ModelError):
        read_gguf_file(tmp_path / "absent.gguf")
