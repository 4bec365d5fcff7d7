"""What a card's memory allows: the table of memory against settings."""

from __future__ import annotations

import pytest

from kmmlu_fast.core.fit import GIB, BatchSettings, settings_for_memory


@pytest.mark.parametrize(
    ("gib", "tokens", "seqs"),
    [
        (8, 4096, 256), (12, 4096, 256), (16, 4096, 256), (22.0, 8192, 512), (24, 8192, 512), (32, 8192, 512),
        (39.4, 16384, 1024), (40, 16384, 1024), (44.5, 16384, 1024), (48, 16384, 1024), (80, 16384, 1024),
    ],
)  # fmt: skip
def test_batch_by_memory(gib: float, tokens: int, seqs: int) -> None:
    assert settings_for_memory(int(gib * GIB)) == BatchSettings(tokens, seqs)
