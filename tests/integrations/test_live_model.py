"""The logits of the model in training, where its forward pass is not asked for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.integrations.live_model import logit_scale


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"model_type": "llama"}, 1.0),
        ({"model_type": "cohere", "logit_scale": 0.0625}, 0.0625),
        ({"model_type": "cohere", "logit_scale": None}, 1.0),
        ({"model_type": "falcon_h1", "lm_head_multiplier": 0.02}, 0.02),
        ({"model_type": "granite", "logits_scaling": 8.0}, 0.125),
        ({"model_type": "hyperclovax", "logits_scaling": 0.125}, 0.125),
        ({"model_type": "minicpm3", "logits_scaling": 8.0}, 1.0),
    ],
)
def test_logits_are_scaled_as_the_model_does(settings: dict[str, Any], scale: float) -> None:
    assert logit_scale(SimpleNamespace(**settings)) == scale
