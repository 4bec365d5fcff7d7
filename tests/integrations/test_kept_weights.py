"""Weights of step 0 are put in place and the newer ones back, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from kmmlu_fast.integrations import kept_weights
from kmmlu_fast.integrations.kept_weights import keep_trained_weights


class Model:
    def __init__(self) -> None:
        self.frozen = torch.nn.Parameter(torch.ones(4), requires_grad=False)
        self.trained = torch.nn.Parameter(torch.tensor([0.1, -0.0, 3e-39], dtype=torch.bfloat16))

    def parameters(self) -> Iterator[Any]:
        return iter((self.frozen, self.trained))


def bits(parameter: Any) -> list[int]:
    return parameter.detach().view(torch.int16).tolist()


def test_the_start_is_in_place_inside_and_gone_after() -> None:
    model = Model()
    start = bits(model.trained)
    kept = keep_trained_weights(model)
    assert kept is not None
    with torch.no_grad():
        model.trained += 0.25
        model.frozen += 1
    newer, place = bits(model.trained), model.trained.data_ptr()
    with pytest.raises(ValueError, match="a look"), kept.in_place():
        assert bits(model.trained) == start and model.trained.data_ptr() == place
        raise ValueError("a look that fails")
    assert bits(model.trained) == newer != start
    assert model.trained.requires_grad and model.frozen.tolist() == [2.0] * 4


def test_too_many_weights_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_weights, "MOST_BYTES", 5)
    assert keep_trained_weights(Model()) is None
    monkeypatch.setattr(kept_weights, "MOST_BYTES", 6)
    assert keep_trained_weights(Model()) is not None
