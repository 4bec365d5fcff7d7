"""What bench.training needs of a model: that batches go where it computes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bench.training import computing_device


def test_batches_go_to_the_card_where_the_input_embeddings_are_on_the_host() -> None:
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(4, 2)
            self.head = torch.nn.Linear(2, 4, device="meta")  # stands in for the card

        def get_base_model(self) -> Any:
            return SimpleNamespace(get_output_embeddings=lambda: self.head)

    model = Model()
    assert next(model.parameters()).device.type == "cpu"
    assert computing_device(model).type == "meta"
