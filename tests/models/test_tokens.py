"""The light tokenizer: transformers' ids, taken only where the whole state agrees, and
transformers itself for the rest.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_model, make_tiny_tokenizer
from tokenizers import Tokenizer

from kmmlu_fast.models import tokens
from kmmlu_fast.models.model import Model, load_tokenizer
from kmmlu_fast.models.tokens import LightTokenizer, is_equivalent_tokenizer, open_tokenizer
from kmmlu_fast.prompting.prompts import Prompt, encode_prompts

TEXTS = [
    "",
    " ",
    "물은 몇 도에서 어는가?\nA. 0도\nB. 10도\n정답：",
    "정답: A",
    " A B C D",
    "<|bos|>x<|eos|>",
    "1234 — “인용” 😀\n\n",
    "가" * 300,
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))


def model_at(folder: Path) -> Model:
    return Model(folder.name, str(folder), None, "digest")


def tokenizer_at(folder: Path, **more: Any) -> Model:
    """A directory with a tokenizer that transformers takes from its file, as it takes Gemma's
    or Llama 3's.
    """
    make_tiny_tokenizer(**more).save_pretrained(folder)
    return model_at(folder)


@pytest.mark.parametrize("bos", [False, True])
def test_ids_are_those_of_transformers(tmp_path: Path, bos: bool) -> None:
    model = tokenizer_at(tmp_path / "model", bos=bos)
    full, light = open_tokenizer(model), open_tokenizer(model)
    assert isinstance(light, LightTokenizer) and not isinstance(full, LightTokenizer)
    assert len(light) == len(full)
    for special in (True, False):
        prompts = [Prompt(text, special) for text in TEXTS]
        assert encode_prompts(light, prompts) == encode_prompts(full, prompts)
        assert encode_prompts(light, prompts[3:4]) == encode_prompts(full, prompts[3:4])
        assert (
            light(TEXTS[2], add_special_tokens=special)["input_ids"]
            == full(TEXTS[2], add_special_tokens=special)["input_ids"]
        )


def test_transformers_is_loaded_once_a_model_and_then_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tokenizer_at(tmp_path / "model", chat=True)
    loads = []
    monkeypatch.setattr(tokens, "load_tokenizer", lambda model: (loads.append(1), load_tokenizer(model))[1])
    full, light = open_tokenizer(model), open_tokenizer(model)
    assert encode_prompts(light, [Prompt("정답: A", True)] * 2) and light.chat_template == full.chat_template
    assert len(loads) == 1
    turn = [{"role": "user", "content": "물"}]
    assert light.apply_chat_template(turn, tokenize=False) == full.apply_chat_template(turn, tokenize=False)
    assert len(loads) == 2


def test_special_tokens_are_known_without_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tokenizer_at(tmp_path / "model", chat=True)
    full = open_tokenizer(model)
    monkeypatch.setattr(tokens, "load_tokenizer", lambda model: pytest.fail("loaded"))
    light = open_tokenizer(model)
    assert light.all_special_ids == full.all_special_ids and light.all_special_ids
    assert light.all_special_tokens == full.all_special_tokens
    assert light.special_tokens_map == full.special_tokens_map and light.special_tokens_map
    light.special_tokens_map.clear()
    light.all_special_ids.append(7)
    assert light.special_tokens_map == full.special_tokens_map
    assert light.all_special_ids == full.all_special_ids


@pytest.mark.parametrize("special", ["x", ["all_special_ids"], {"decode": "x"}])
def test_a_damaged_record_of_special_tokens_is_not_believed(tmp_path: Path, special: Any) -> None:
    model = tokenizer_at(tmp_path / "model", chat=True)
    full = open_tokenizer(model)
    (record,) = (tmp_path / "cache" / "tokenizers").glob("*.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "special": special}))
    assert open_tokenizer(model).all_special_ids == full.all_special_ids


def test_another_file_is_settled_anew(tmp_path: Path) -> None:
    model = tokenizer_at(tmp_path / "model")
    open_tokenizer(model)
    path = tmp_path / "model" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 17}))
    assert not isinstance(open_tokenizer(model), LightTokenizer)
    assert isinstance(open_tokenizer(model), LightTokenizer)


def test_a_tokenizer_that_transformers_changes_stays_transformers(tmp_path: Path) -> None:
    """For models of type qwen2 transformers puts Qwen's own normaliser in, whatever the file
    says: other ids for decomposed Hangul.
    """
    model = model_at(make_tiny_model(tmp_path / "model"))
    full, again = open_tokenizer(model), open_tokenizer(model)
    assert not isinstance(full, LightTokenizer) and not isinstance(again, LightTokenizer)
    decomposed = unicodedata.normalize("NFD", "정답")
    alone = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json")).encode(decomposed).ids
    assert full(decomposed)["input_ids"] != alone


def test_what_changes_no_id_may_differ(tmp_path: Path) -> None:
    model = tokenizer_at(tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    state = json.loads(path.read_text())
    state["model"]["continuing_subword_prefix"] = ""
    path.write_text(json.dumps(state))
    full = make_tiny_tokenizer()
    assert is_equivalent_tokenizer(full, tmp_path / "model")
    assert open_tokenizer(model)("정답")["input_ids"] == full("정답")["input_ids"]
    state["model"]["merges"] = state["model"]["merges"][:-1]
    path.write_text(json.dumps(state))
    assert not is_equivalent_tokenizer(full, tmp_path / "model")


def test_truncation_in_the_file_is_left_to_transformers(tmp_path: Path) -> None:
    model = tokenizer_at(tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    cut = {"max_length": 4, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncation": cut}))
    open_tokenizer(model)
    assert not isinstance(open_tokenizer(model), LightTokenizer)
