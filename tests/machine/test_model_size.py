"""How large a model is: by its config, by the headers of its weights, by the hub's metadata. All made up."""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.machine.model_size import facts_from_config, find_model_facts, read_safetensors_header

LLAMA = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}
# query and output 64 x 64, key and value 64 x 32; three of 64 x 96; two layers
LINEAR = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)


def safetensors(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> None:
    """A file with that header, and no values behind it."""
    header = {name: {"dtype": d, "shape": s, "data_offsets": [0, 0]} for name, (d, s) in tensors.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_of_that_name_does_not_hide_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    found = find_model_facts("demo", offline=True)
    assert found is not None and round(found.parameters / 1e6) == 268


def test_counts_by_shape() -> None:
    found = facts_from_config(LLAMA, "m", "made")
    assert (found.linear, found.active) == (LINEAR, LINEAR)
    assert found.parameters == LINEAR + 2 * 100 * 64 + 2 * 2 * 64
    assert found.stored_as == "float16" and not found.quantised
    assert found.kv_values_per_token == 2 * 2 * 2 * 16
    assert found.flops_per_token == 2 * LINEAR


def test_tied_tables_count_once() -> None:
    tied = facts_from_config({**LLAMA, "tie_word_embeddings": True}, "m", "made")
    assert facts_from_config(LLAMA, "m", "made").parameters - tied.parameters == 100 * 64


def test_text_settings_of_a_multimodal_model_count() -> None:
    assert facts_from_config({"model_type": "x", "text_config": LLAMA}, "m", "made").linear == LINEAR


def test_a_mixture_of_experts_computes_with_few_of_its_weights() -> None:
    config = {**LLAMA, "num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    found = facts_from_config(config, "m", "made")
    attention = 2 * (2 * 64 * 64 + 2 * 64 * 32)
    assert found.linear == attention + 2 * 8 * 3 * 64 * 32
    assert found.active == attention + 2 * 2 * 3 * 64 * 32


def test_the_default_model_has_its_published_size() -> None:
    found = find_model_facts("skt/A.X-4.0-Light", offline=True)
    assert found is not None and round(found.parameters / 1e9, 2) == 7.26
    assert round(found.flops_per_token / 1e9, 2) == 13.05


def test_headers_are_counted_exactly(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "model", LLAMA)
    safetensors(
        folder / "model.safetensors",
        {
            "model.embed_tokens.weight": ("BF16", [100, 64]),
            "model.layers.0.mlp.up_proj.weight": ("BF16", [96, 64]),
            "model.norm.weight": ("F32", [64]),
        },
    )
    found = find_model_facts(str(folder))
    assert found is not None and found.source == "local directory"
    assert (found.parameters, found.linear) == (100 * 64 + 96 * 64 + 64, 96 * 64)
    assert found.stored_bytes == 2 * (100 * 64 + 96 * 64) + 4 * 64


def test_some_of_the_shards_are_not_taken_for_all(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "model", LLAMA)
    safetensors(folder / "model-00001-of-00002.safetensors", {"a.weight": ("BF16", [4, 4])})
    index = {
        "weight_map": {
            "a.weight": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors",
        }
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = find_model_facts(str(folder))
    assert found is not None and found.linear == LINEAR


def test_packed_weights_tell_their_bytes_only(tmp_path: Path) -> None:
    folder = write_config(
        tmp_path / "model", {**LLAMA, "quantization_config": {"quant_method": "awq", "bits": 4}}
    )
    safetensors(folder / "model.safetensors", {"a.qweight": ("I32", [64, 12]), "a.scales": ("F16", [1, 96])})
    found = find_model_facts(str(folder))
    assert found is not None and found.quantised and found.stored_as == "awq"
    assert found.stored_bytes == 4 * 64 * 12 + 2 * 96 and found.linear == LINEAR


@pytest.mark.parametrize("content", [b"", b"\x05\x00\x00\x00\x00\x00\x00\x00[1,2]", b"\xff" * 16])
def test_what_is_no_safetensors_file_has_no_tensors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    assert read_safetensors_header(tmp_path / "x.safetensors") == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"text_config": 3}'])
def test_a_config_that_cannot_be_read_is_no_model(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert find_model_facts(str(tmp_path)) is None


def test_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    write_config(tmp_path / "models--made--up" / "snapshots" / "abc", LLAMA)
    found = find_model_facts("made/up", offline=True)
    assert found is not None and found.source == "hub cache" and found.linear == LINEAR
    assert find_model_facts("made/other", offline=True) is None


@contextlib.contextmanager
def serving(pages: dict[str, Any]) -> Iterator[str]:
    """A hub on this machine that has these pages."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages.get(self.path)
            self.send_response(200 if found is not None else 401)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


COUNTS = {"safetensors": {"parameters": {"BF16": 1_000_000, "F32": 10}}}


def test_the_hub_is_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    pages = {"/made/up/resolve/main/config.json": LLAMA, "/api/models/made/up": COUNTS}
    with serving(pages) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        found = find_model_facts("made/up")
    assert found is not None and found.source == "hub"
    assert (found.parameters, found.linear, found.stored_bytes) == (1_000_010, LINEAR, 2_000_040)


def test_a_gated_repository_shows_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    about = {**COUNTS, "config": {"quantization_config": {"quant_method": "gptq"}}}
    with serving({"/api/models/made/gated": about}) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        found = find_model_facts("made/gated")
        assert find_model_facts("made/nothing") is None
    assert found is not None and found.source == "hub metadata"
    assert found.quantised and found.stored_as == "gptq" and found.parameters == 1_000_010


@pytest.mark.parametrize("lost", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_of_a_config_without_a_shape_nothing_is_known(tmp_path: Path, lost: str) -> None:
    assert find_model_facts(str(write_config(tmp_path / "whole", LLAMA))) is not None
    assert find_model_facts(str(write_config(tmp_path / "bent", {**LLAMA, lost: 0}))) is None


def test_an_unknown_user_s_home_holds_no_model_and_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "~nosuchuser/hub")
    assert find_model_facts("~nosuchuser/model", offline=True) is None
    assert find_model_facts("somebody/model", offline=True) is None
