"""Faults read from files: settings, tokenizers, templates and weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from made_weights import NORM, K, Q, on_grid, tensor, weights

from kmmlu_fast.shipping.file_faults import find_text_causes, find_weight_causes
from kmmlu_fast.shipping.text_comparison import TextComparison
from kmmlu_fast.shipping.weights import WeightComparison


def names(found: WeightComparison) -> list[str]:
    return [cause.name for cause in find_weight_causes(found)]


@pytest.mark.parametrize(
    ("slope", "name"),
    [(0.02, "not applied"), (2.01, "twice"), (0.5, "scale"), (1.4, "scale"), (-1.0, "scale")],
)
def test_slopes_of_weights(slope: float, name: str) -> None:
    assert names(weights(tensor(Q, slope), tensor(K, slope))) == [name]


def test_half_of_the_modules_without_the_adapter_are_named_as_such() -> None:
    (cause,) = find_weight_causes(weights(*(tensor(f"{Q}{n}", float(n % 2)) for n in range(6))))
    assert "the adapter is not applied to 3 of 6" in cause.phrase


def test_some_modules_without_the_adapter() -> None:
    found = weights(tensor(Q, 0.0), tensor(K, 1.0), tensor(K + "2", 1.0))
    assert names(found) == ["missing part"]


def test_bases() -> None:
    assert names(weights(tensor(Q, 1.0), tensor(NORM, residual=0.05))) == ["base"]
    assert names(weights(tensor(Q, 1.0, residual=0.09))) == ["4 bit"]
    assert names(weights(tensor(Q, 1.0, residual=0.02))) == ["base"]
    head = weights(tensor(Q, 1.0), tensor("lm_head.weight", residual=0.1))
    assert names(head) == ["tied head"]
    assert names(weights(tensor(Q, 1.0), rows=(100, 128))) == ["vocabulary"]


def test_rounding_of_a_4_bit_file_is_no_fault() -> None:
    packed = weights(
        tensor(Q, 1.0, residual=0.07, stored_as="Q4_K"), tensor(NORM, residual=0.0, stored_as="F32")
    )
    assert names(packed) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"bos": "lost"}, "bos"),
        ({"bos": "doubled"}, "bos"),
        ({"template": "thinking"}, "template"),
        ({"missing_stops": ("<eos>",)}, "stop"),
        ({"vocabulary": (10, 11), "different": 3}, "tokens"),
        ({"different": 3}, "tokenizer"),
    ],
)
def test_faults_of_texts(change: dict[str, Any], name: str) -> None:
    texts = replace(TextComparison(texts=20, different=0), **change)
    assert [cause.name for cause in find_text_causes(texts, (), "")] == [name]


def test_decomposed_hangul_is_a_note_and_no_fault() -> None:
    decomposed = TextComparison(texts=20, different=0, decomposed_differ=True)
    assert find_text_causes(decomposed, (), "") == []


def test_settings_and_an_adapter_of_other_base_weights() -> None:
    found = find_text_causes(None, ("rope_theta", "vocab_size"), "pissa")
    assert [cause.name for cause in found] == ["pissa", "settings"]
    assert "rope_theta, vocab_size" in found[1].phrase


@pytest.mark.parametrize(("scale", "name"), [(0.0, "not applied"), (2.0, "twice"), (0.5, "scale")])
def test_a_wrong_scale_is_named_beside_rounding(scale: float, name: str) -> None:
    found = weights(on_grid(Q, 0.66, scale), on_grid(K, 0.94, scale), on_grid(K + "2", 0.75, scale))
    assert names(found) == [name]


def test_a_module_without_the_adapter_is_named_beside_rounding() -> None:
    found = weights(on_grid(Q, 0.66, 0.0), on_grid(K, 0.94), on_grid(K + "2", 0.75))
    assert names(found) == ["missing part"]


def test_a_scale_common_to_all_quantised_modules_is_a_scale() -> None:
    packed = [tensor(f"{Q}{n}", 0.5 + 0.01 * n, 0.06, "Q4_K") for n in range(4)]
    assert names(weights(*packed)) == ["scale"]


def test_a_merge_into_a_finer_base_holds_the_whole_change() -> None:
    # Rounded once from float32: nothing is lost on average, although adding to 16-bit weights would lose it.
    finer = weights(*(replace(on_grid(f"{Q}{n}", 0.7), slope=1.0, scale=1.4) for n in range(3)))
    assert names(finer) == []
    scaled = [replace(on_grid(f"{Q}{n}", 0.7, 1.3), slope=0.95 + 0.1 * n) for n in range(3)]
    assert names(weights(*scaled)) == ["scale"]
