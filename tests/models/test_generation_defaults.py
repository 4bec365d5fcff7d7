"""A model's own sampling settings, as its generation_config.json says them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.models.generation_defaults import SamplingDefaults, read_sampling_defaults
from kmmlu_fast.models.model import Model


def model_with(folder: Path, settings: dict[str, Any] | None) -> Model:
    (folder / "config.json").write_text("{}", encoding="utf-8")
    if settings is not None:
        (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return Model("m", str(folder), None, "d")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (None, None),
        ({}, None),
        ({"eos_token_id": 1, "max_length": 20}, None),
        ({"do_sample": False, "temperature": 0.6}, None),
        ({"temperature": 0.0}, None),
        ({"do_sample": True}, SamplingDefaults(temperature=1.0)),
        ({"temperature": 0.6}, SamplingDefaults(temperature=0.6)),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0, "foo": 1},
            SamplingDefaults(temperature=0.6, top_p=0.95, top_k=20),
        ),
        ({"do_sample": True, "top_k": -1, "top_p": None}, SamplingDefaults(temperature=1.0)),
        (
            {"temperature": 1, "min_p": 0.1, "repetition_penalty": 1.05, "presence_penalty": 0.0},
            SamplingDefaults(temperature=1.0, min_p=0.1, left_out=("repetition_penalty",)),
        ),
    ],
)
def test_what_the_file_says(settings: Any, found: SamplingDefaults | None, tmp_path: Path) -> None:
    assert read_sampling_defaults(model_with(tmp_path, settings)) == found


@pytest.mark.parametrize(
    "settings",
    [{"temperature": "hot"}, {"temperature": -1}, {"do_sample": True, "top_p": 0}, {"temperature": True}],
)
def test_a_value_that_no_engine_takes_is_named(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"generation_config\.json: (temperature|top_p) is .* give"):
        read_sampling_defaults(model_with(tmp_path, settings))


def test_it_is_said_as_flags_would_say_it() -> None:
    assert SamplingDefaults(temperature=0.6, top_p=0.95, top_k=20).describe() == (
        "temperature 0.6, top-p 0.95, top-k 20"
    )


def test_a_gguf_file_says_nothing(tmp_path: Path) -> None:
    assert read_sampling_defaults(Model("m", str(tmp_path / "m.gguf"), None, "d")) is None
