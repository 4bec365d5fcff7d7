"""How long a full pass over KMMLU would take: an estimate from FLOPs and a device's matrix-product rate.

In: a model's counts, a card's name or a rate. Out: minutes, as a range. **Nothing is measured on the card**:
rates are the makers' published peaks (dense, accumulated in float32), of which a share is computed by class
of card. Only a CPU's rate is measured, in a fifth of a second. Knows nothing of memory.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection

from kmmlu_fast.machine.model_size import ModelFacts

QUESTIONS = 35_030  # KMMLU's test split
TOKENS = (65, 130)  # a zero-shot prompt: with a tokenizer made for Korean, and with a poor one
# The share of the peak that a pass reaches, lowest and highest. Computed for a model of 7 B, not measured:
# the faster the products, the more a step's memory traffic and launches weigh.
_FAST_16_BIT, _FAST_8_BIT, _SLOWER = (0.60, 0.64), (0.48, 0.50), (0.75, 0.85)
_FAST_FLOPS = 500e12  # H100 and newer data-centre cards; an A100 has 312e12, an RTX 5090 209e12
CPU_SHARE = (0.60, 0.76)  # 0.76 was measured for the demo model on two CPU cores

# TFLOP/s in 16 bit and in fp8 (0 = the card has none), from NVIDIA's data sheets and white papers.
# The first pattern that matches the name counts.
_PEAKS: tuple[tuple[str, float, float], ...] = (
    (r"laptop|max-q|mobile", 0, 0),  # a name with many power limits: no estimate
    (r"B300|B200", 2250, 4500),
    (r"GH200|H200|H800|H100.*(SXM|HBM3)", 989, 1979),
    (r"H100 NVL", 835, 1671),
    (r"H100", 756, 1513),
    (r"\bH20\b", 148, 296),
    (r"A100|A800", 312, 0),
    (r"\bA30\b", 165, 0),
    (r"\bA40\b", 150, 0),
    (r"\bA10G\b", 70, 0),
    (r"\bA10\b", 125, 0),
    (r"\bA2\b", 18, 0),
    (r"L40S", 362, 733),
    (r"\bL40\b", 181, 362),
    (r"\bL4\b", 121, 242),
    (r"\bT4\b", 65, 0),
    (r"RTX PRO 6000", 503, 1007),
    (r"RTX 6000 Ada", 364, 728),
    (r"RTX A6000", 155, 0),
    (r"RTX A5000", 111, 0),
    (r"RTX A4000", 77, 0),
    (r"5090", 209, 419),
    (r"5080", 113, 225),
    (r"5070 Ti", 88, 176),
    (r"5070", 62, 123),
    (r"4090", 165, 330),
    (r"4080 SUPER", 104, 209),
    (r"4080", 97, 195),
    (r"4070 Ti SUPER", 88, 176),
    (r"4070 Ti", 80, 160),
    (r"4070 SUPER", 71, 142),
    (r"4070", 58, 117),
    (r"4060 Ti", 44, 88),
    (r"4060", 30, 60),
    (r"3090 Ti", 80, 0),
    (r"3090", 71, 0),
    (r"3080 Ti", 68, 0),
    (r"3080", 60, 0),
    (r"3070 Ti", 43, 0),
    (r"3070", 41, 0),
    (r"3060 Ti", 32, 0),
    (r"3060", 25, 0),
    (r"2080 Ti", 54, 0),
)


def peak_flops(card: str, fp8: bool = False) -> float:
    """The maker's stated FLOP/s; 0.0 for a card that is not in the table."""
    for pattern, half, eight in _PEAKS:
        if re.search(pattern, card, re.IGNORECASE):
            return 1e12 * (eight if fp8 else half)
    return 0.0


def reached_share(card: str, fp8: bool = False) -> tuple[float, float]:
    """The share of the card's peak that a pass reaches, lowest and highest."""
    if peak_flops(card) < _FAST_FLOPS:
        return _SLOWER
    return _FAST_8_BIT if fp8 else _FAST_16_BIT


def estimate_pass_minutes(
    model: ModelFacts, rate: float, share: tuple[float, float] = CPU_SHARE
) -> tuple[float, float] | None:
    """A full zero-shot pass in minutes: with the better tokenizer and the highest share, and with the worse
    and the lowest; None if the rate is unknown.

    ``rate``: the device's FLOP/s in the compute type, of which ``share`` is reached. The head is computed
    once per question. Start-up (one to three minutes on a card) is not included.
    """
    if rate <= 0:
        return None
    head = 2.0 * model.vocabulary * model.hidden
    flops = [QUESTIONS * (tokens * model.flops_per_token + head) for tokens in TOKENS]
    lowest, highest = share
    return flops[0] / (highest * rate) / 60, flops[1] / (lowest * rate) / 60


def measure_cpu_flops(flags: Collection[str]) -> float:
    """This CPU's FLOP/s: float32 products in numpy for a fifth of a second, scaled to its compute type.

    0.0 without numpy. AVX512_BF16 is assumed to be 1.8 times float32 (two Zen 4 cores: 415 against 230
    GFLOP/s), AMX four times (Intel states 16; memory and clock take most of it).
    """
    try:
        import numpy as np
    except ImportError:
        return 0.0
    size = 1024
    left, right = (np.random.default_rng(seed).random((size, size), dtype=np.float32) for seed in (0, 1))
    left @ right  # warm-up: threads start, pages are touched
    best, until = 0.0, time.perf_counter() + 0.2
    while time.perf_counter() < until:
        began = time.perf_counter()
        left @ right
        best = max(best, 2.0 * size**3 / (time.perf_counter() - began))
    if "amx_bf16" in flags:
        return 4.0 * best
    return 1.8 * best if "avx512_bf16" in flags else best
