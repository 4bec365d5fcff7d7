"""Exports are whole or absent, replace nothing, and keep what was measured: stops, template, tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_adapter
from tiny_gguf import make_gguf_ready_model

from kmmlu_fast.core.errors import AdapterError, ConfigError, EngineError
from kmmlu_fast.shipping import export as module
from kmmlu_fast.shipping.config import CheckConfig, ExportConfig
from kmmlu_fast.shipping.export import RECORD, export_adapter
from kmmlu_fast.shipping.source import load_shipping_source

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf_ready_model(tmp_path_factory.mktemp("export") / "base", "gemma3")


@pytest.fixture(scope="module")
def lora(base: Path) -> Path:
    return make_tiny_adapter(base, base.parent / "lora")


def config(lora: Path, out: Path, **more: Any) -> ExportConfig:
    return ExportConfig(adapter=[str(lora)], out=out, **more)


@pytest.mark.engine
def test_merged_directory_is_whole(base: Path, lora: Path, tmp_path: Path) -> None:
    export = export_adapter(config(lora, tmp_path / "ship" / "out"))
    names = {path.name for path in export.path.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "tokenizer.model", "chat_template.jinja", RECORD} <= names
    for name in ("tokenizer.json", "tokenizer.model", "chat_template.jinja"):
        assert (export.path / name).read_bytes() == (base / name).read_bytes()
    stops = json.loads((export.path / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    assert stops == export.record["stop_ids"] and len(stops) == 2  # <eos> and the end of a turn
    assert export.record["stop_texts"] == ["<eos>", "<end_of_turn>"]
    card = (export.path / "README.md").read_text("utf-8")
    assert "CC-BY-ND-4.0" in card and export.record["adapter"]["digest"] in card
    assert sorted(path.name for path in export.path.parent.iterdir()) == [".out.lock", "out"]


@pytest.mark.engine
def test_template_of_the_adapter_goes_along(lora: Path, tmp_path: Path) -> None:
    import shutil

    own = tmp_path / "lora"
    shutil.copytree(lora, own)
    (own / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    export = export_adapter(config(own, tmp_path / "out"))
    assert (export.path / "chat_template.jinja").read_text("utf-8") == "{{ messages[0]['content'] }}"


def test_nothing_is_replaced(lora: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists"):
        export_adapter(config(lora, tmp_path))


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), EngineError("no"), KeyboardInterrupt()]
)
def test_a_failure_leaves_nothing(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_: Any, __: Any, folder: Path, *rest: Any) -> dict[str, Any]:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(module, "_write_export", fail)
    expected = ConfigError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        export_adapter(config(lora, tmp_path / "ship" / "out"))
    assert [path.name for path in (tmp_path / "ship").iterdir()] == [".out.lock"]


def test_what_a_killed_export_left_is_removed(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "old").write_text("x", encoding="utf-8")
    monkeypatch.setattr(module, "_write_export", lambda *_: {"files": {}})
    assert list(export_adapter(config(lora, tmp_path / "out")).path.iterdir()) == []


def test_disk_space_is_said_and_refused_before(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "disk_free_bytes", lambda _: 1000)
    with pytest.raises(ConfigError, match="GB are free"):
        export_adapter(config(lora, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_4_bit_base_is_refused(base: Path, lora: Path, tmp_path: Path) -> None:
    import shutil

    packed = tmp_path / "packed"
    shutil.copytree(base, packed)
    settings = json.loads((packed / "config.json").read_text("utf-8"))
    settings["quantization_config"] = {"quant_method": "bitsandbytes"}
    (packed / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ConfigError, match="16-bit model"):
        export_adapter(config(lora, tmp_path / "out", model=str(packed)))


def test_not_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
        export_adapter(config(tmp_path, tmp_path / "out"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adapter": []}, "one adapter"),
        ({"adapter": ["x"], "quantize": ["q8_0"]}, "goes with --to gguf"),
        ({"adapter": ["x"], "to": "gguf", "quantize": ["q9"]}, "allowed are"),
        ({"adapter": ["x"], "name": "../y"}, "part of a file's name"),
    ],
)
def test_faults_of_flags(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExportConfig(**values)


def test_check_needs_an_artefact() -> None:
    with pytest.raises(ValueError, match="at least one artefact"):
        CheckConfig(artefacts=["out/lora"])


@pytest.mark.parametrize(
    ("dtype", "kinds", "first"),
    [
        ("auto", ["q8_0"], "bf16"),
        ("float32", ["q8_0"], "f32"),
        ("float32", ["bf16", "q8_0"], "f32"),
        ("float16", ["q4_k_m"], "f16"),
        ("float32", [], "bf16"),
        ("auto", ["f16", "bf16"], "f16"),
    ],
)
def test_quantised_files_are_made_from_the_merged_type(
    lora: Path, tmp_path: Path, dtype: str, kinds: list[str], first: str
) -> None:
    source = load_shipping_source(str(lora), None)
    values = config(lora, tmp_path / "out", to="gguf", dtype=dtype, quantize=kinds)
    assert module._first_kind(values, source) == first


def test_disk_of_a_float32_merge_is_twice_as_much(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(module, "_weight_bytes", lambda _: 10_000_000_000)
    monkeypatch.setattr(module, "disk_free_bytes", lambda _: 1000)
    for dtype in ("auto", "float32"):
        with pytest.raises(ConfigError, match="needs up to") as caught:
            export_adapter(config(lora, tmp_path / "out", dtype=dtype))
        asked.append(round(float(str(caught.value).split("needs up to ")[1].split()[0])))
    assert asked in ([10, 21], [11, 21])  # GB, with a spare of 5 %
