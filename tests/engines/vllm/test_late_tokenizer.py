"""Which models start without a tokenizer, and what the engine gets when the first text is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import make_tiny_model

from kmmlu_fast.engines.vllm.late_tokenizer import attach_tokenizer, can_defer_tokenizer


@pytest.mark.parametrize(
    ("config", "waits"),
    [
        ({"model_type": "qwen2"}, True),
        (
            {
                "model_type": "qwen2",
                "quantization_config": {"quant_method": "awq"},
                "rope_scaling": {"type": "yarn"},
            },
            True,
        ),
        ({"model_type": "gemma3", "text_config": {}, "vision_config": {}}, False),
        ([], False),
    ],
)
def test_models_that_take_pictures_start_with_their_tokenizer(
    tmp_path: Path, config: object, waits: bool
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert can_defer_tokenizer(str(tmp_path)) is waits


def test_what_is_not_known_starts_with_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert not can_defer_tokenizer("nobody/no-such-model") and not can_defer_tokenizer("no such id at all")


@pytest.mark.engine
def test_the_engine_is_given_vllms_own_tokenizer(tmp_path: Path) -> None:
    model = str(make_tiny_model(tmp_path / "model"))
    config = SimpleNamespace(
        skip_tokenizer_init=True,
        tokenizer=model,
        runner_type="generate",
        tokenizer_mode="auto",
        tokenizer_revision=None,
        trust_remote_code=False,
        hf_config=None,
    )
    engine = SimpleNamespace(
        model_config=config,
        renderer=SimpleNamespace(tokenizer=None),
        output_processor=SimpleNamespace(tokenizer=None),
    )
    attach_tokenizer(engine)
    assert engine.renderer.tokenizer is engine.output_processor.tokenizer
    assert engine.renderer.tokenizer.eos_token_id == 2 and engine.renderer.tokenizer.decode([262]) == " A"
