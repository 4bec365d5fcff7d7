"""What is read beside a model's or an adapter's weights: template and stop ids."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kmmlu_fast.core.errors import AdapterError
from kmmlu_fast.models.chat_files import (
    describe_tokens,
    find_stop_ids,
    read_saved_stop_ids,
    read_saved_template,
    trained_template_kwargs,
)
from kmmlu_fast.models.model import load_tokenizer, resolve_model


def test_the_template_is_the_file_or_the_tokenizers_setting(tmp_path: Path) -> None:
    assert read_saved_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ 1 }}"}')
    assert read_saved_template(tmp_path) == "{{ 1 }}"
    (tmp_path / "chat_template.jinja").write_text("{{ 2 }}")
    assert read_saved_template(tmp_path) == "{{ 2 }}"


@pytest.mark.parametrize(
    ("saved", "ids"), [(4, (4,)), ([4, 2], (4, 2)), (None, ()), ("4", ()), ([True, -1, 7], (7,))]
)
def test_stop_ids_of_a_directory(saved: object, ids: tuple[int, ...], tmp_path: Path) -> None:
    assert read_saved_stop_ids(tmp_path) == ()
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": saved}))
    assert read_saved_stop_ids(tmp_path) == ids


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(AdapterError, match=r"generation_config\.json: is not valid JSON"):
        read_saved_stop_ids(tmp_path)


def test_a_model_stops_at_all_that_its_files_name(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(model, folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [4, 2]}')
    base = resolve_model(str(folder))
    tokenizer = load_tokenizer(base)
    assert find_stop_ids(base, tokenizer) == (2, 4)
    assert describe_tokens(tokenizer, (2, 4)) == "<|eos|> (2), <|im_end|> (4)"


def test_the_variables_of_an_adapters_training() -> None:
    assert trained_template_kwargs({"hyperparameters": {"chat_template_kwargs": ["a=1"]}}) == ["a=1"]
    assert trained_template_kwargs({}) == trained_template_kwargs({"hyperparameters": None}) == []


def test_a_tokenizer_without_a_length_limit_is_read(tmp_path: Path) -> None:
    """transformers writes 10**30 for "no limit", which is no 64-bit number."""
    text = '{"model_max_length": 1000000000000000019884624838656, "chat_template": "{{ messages }}"}'
    (tmp_path / "tokenizer_config.json").write_text(text)
    assert read_saved_template(tmp_path) == "{{ messages }}"
