"""Which settings a card's memory allows: pure functions of numbers.

In: bytes, a compute capability, a model's weights. Out: batch settings, what fits, and the one line of
advice where it does not. Knows nothing of torch, vLLM or the machine it runs on
(``core.machine`` looks).
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1024**3

# Cards report less than their name says (a "24 GB" one 22 to 24 GiB, a "40 GB" one 39.4, a "48 GB" one 44.5).
_LARGE_BYTES = 36 * GIB
_MEDIUM_BYTES = 20 * GIB


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Tokens of one engine step, and sequences alive at once."""

    max_num_batched_tokens: int
    max_num_seqs: int


def settings_for_memory(total_bytes: int) -> BatchSettings:
    """The engine's batch by the card's total memory: 40 GB and over, 24 GB, and 16 GB or less."""
    if total_bytes >= _LARGE_BYTES:
        return BatchSettings(16384, 1024)
    if total_bytes >= _MEDIUM_BYTES:
        return BatchSettings(8192, 512)
    return BatchSettings(4096, 256)
