"""Tokenizers that read, begin or end texts differently are told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import write_gemma_tokenizer

from kmmlu_fast.shipping.text_comparison import compare_texts


class Changed:
    """A tokenizer whose ids or template go through a change."""

    def __init__(self, inner: Any, change: Any = None, template: Any = None) -> None:
        self._inner, self._change, self._template = inner, change or (lambda ids: ids), template
        self.chat_template, self.special_tokens_map = inner.chat_template, inner.special_tokens_map

    def __call__(self, text: str, **options: Any) -> dict[str, Any]:
        return {"input_ids": self._change(list(self._inner(text, **options)["input_ids"]))}

    def __len__(self) -> int:
        return len(self._inner)

    def apply_chat_template(self, turns: Any, **options: Any) -> str:
        text = self._inner.apply_chat_template(turns, **options)
        return self._template(text, options["enable_thinking"]) if self._template else text


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    write_gemma_tokenizer(Path(folder))
    return PreTrainedTokenizerFast.from_pretrained(folder)


def test_the_same(tokenizer: Any) -> None:
    found = compare_texts(tokenizer, Changed(tokenizer), ["물은 몇 도?"], [1], {1, 5})
    assert (found.different, found.bos, found.template, found.missing_stops) == (0, "same", "same", ())
    assert found.vocabulary is None and not found.decomposed_differ


@pytest.mark.parametrize(
    ("change", "bos"),
    [(lambda ids: ids[1:], "lost"), (lambda ids: [2, *ids], "doubled"), (lambda ids: [5, *ids], "added")],
)
def test_begin_of_text(tokenizer: Any, change: Any, bos: str) -> None:
    found = compare_texts(tokenizer, Changed(tokenizer, change), [], [], None)
    assert found.bos == bos and found.different == 0


def test_a_begin_of_text_in_the_template_too_is_one_fault(tokenizer: Any) -> None:
    """llama.cpp puts a GGUF file's BOS before texts and conversations alike."""
    own = {"bos_token": "<pad>"}
    other = Changed(tokenizer, lambda ids: [0, *ids], lambda text, thinking: f"<pad>{text}")
    other.special_tokens_map = own
    found = compare_texts(tokenizer, other, [], [], None)
    assert (found.bos, found.template) == ("added", "same")
    same_ids = Changed(tokenizer, template=lambda text, thinking: f"<pad>{text}")
    same_ids.special_tokens_map = own
    assert compare_texts(tokenizer, same_ids, [], [], None).template == "other"


def test_other_ids(tokenizer: Any) -> None:
    found = compare_texts(tokenizer, Changed(tokenizer, lambda ids: [*ids[:-1], 9]), [], [], None)
    assert found.different == found.texts and found.example


def test_stops(tokenizer: Any) -> None:
    assert compare_texts(tokenizer, tokenizer, [], [1, 5], {5}).missing_stops == ("<eos>",)
    assert compare_texts(tokenizer, tokenizer, [], [1, 5], None).missing_stops == ()  # a server does not say


def test_templates(tokenizer: Any) -> None:
    other = Changed(tokenizer, template=lambda text, thinking: text + "x")
    assert compare_texts(tokenizer, other, [], [], None).template == "other"
    bare = Changed(tokenizer)
    bare.chat_template = None
    assert compare_texts(tokenizer, bare, [], [], None).template == "lost"
    assert compare_texts(bare, tokenizer, [], [], None).template == "same"  # measured without one
    switching = Changed(tokenizer, template=lambda text, thinking: text + ("" if thinking else "</think>"))
    assert compare_texts(switching, tokenizer, [], [], None).template == "thinking"
    turned = Changed(tokenizer, template=lambda text, thinking: text + ("</think>" if thinking else ""))
    assert compare_texts(switching, turned, [], [], None).template == "thinking"
    both = Changed(tokenizer, template=lambda text, thinking: text + ("y" if thinking else "z"))
    assert compare_texts(switching, both, [], [], None).template == "other"
