"""The weights that a training changes, as they were before its first step.

In: a model. Out: ``KeptWeights``, which puts them in place for a block of code and then the newer ones back,
bit for bit. Copies lie in the host's memory. Knows nothing of trainers or looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

MOST_BYTES = 1 << 30  # an adapter of rank 64 of an 8B model has 0.7 GiB in float32


class KeptWeights:
    """Copies of some parameters as they are now."""

    def __init__(self, parameters: Sequence[Any]) -> None:
        self._parameters = list(parameters)
        self._kept = self._copy()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the parameters are as they were kept; afterwards, as they were before."""
        newer = self._copy()
        try:
            self._put(self._kept)
            yield
        finally:
            self._put(newer)

    def _copy(self) -> list[Any]:
        return [parameter.detach().to("cpu", copy=True) for parameter in self._parameters]

    def _put(self, values: Sequence[Any]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.data.copy_(value)


def keep_trained_weights(model: Any) -> KeptWeights | None:
    """The weights of ``model`` that are trained; None if they are more than ``MOST_BYTES``, or not here."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    size = sum(parameter.numel() * parameter.element_size() for parameter in trained)
    if size > MOST_BYTES or any(parameter.device.type == "meta" for parameter in trained):
        return None
    return KeptWeights(trained)
