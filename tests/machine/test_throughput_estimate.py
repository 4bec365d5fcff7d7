"""The estimate of a full pass: FLOPs by hand, peaks by name."""

from __future__ import annotations

import pytest

from kmmlu_fast.machine import throughput_estimate
from kmmlu_fast.machine.model_size import find_model_facts


@pytest.mark.parametrize(
    ("name", "half", "eight"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 1979),
        ("NVIDIA H100 PCIe", 756, 1513),
        ("NVIDIA GeForce RTX 4090", 165, 330),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 88, 176),
        ("NVIDIA GeForce RTX 3090", 71, 0),
        ("Tesla T4", 65, 0),
        ("NVIDIA A100-SXM4-80GB", 312, 0),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 0, 0),
        ("Quadro of another time", 0, 0),
    ],
)
def test_peaks(name: str, half: float, eight: float) -> None:
    assert throughput_estimate.peak_flops(name) == half * 1e12
    assert throughput_estimate.peak_flops(name, fp8=True) == eight * 1e12


def test_minutes_by_hand() -> None:
    model = find_model_facts("skt/A.X-4.0-Light", offline=True)
    assert model is not None
    found = throughput_estimate.estimate_pass_minutes(model, 1e14, (0.5, 0.8))
    assert found is not None
    question = 65 * 2 * model.linear + 2 * 102400 * 3584  # 65 tokens through the layers, one through the head
    assert found[0] == pytest.approx(35_030 * question / 0.8e14 / 60)
    assert found[1] == pytest.approx(2 * found[0] * 0.8 / 0.5, rel=0.01)
    assert throughput_estimate.estimate_pass_minutes(model, 0.0) is None


@pytest.mark.parametrize(
    ("name", "half", "eight"),
    [
        ("NVIDIA H100 80GB HBM3", (0.60, 0.64), (0.48, 0.50)),
        ("NVIDIA H200", (0.60, 0.64), (0.48, 0.50)),
        ("NVIDIA B200", (0.60, 0.64), (0.48, 0.50)),
        ("NVIDIA A100-SXM4-80GB", (0.75, 0.85), (0.75, 0.85)),
        ("NVIDIA GeForce RTX 4090", (0.75, 0.85), (0.75, 0.85)),
        ("NVIDIA H20", (0.75, 0.85), (0.75, 0.85)),  # an H200's memory with a seventh of its products
        ("a card of another time", (0.75, 0.85), (0.75, 0.85)),
    ],
)
def test_the_share_of_the_peak_is_the_cards_classes(
    name: str, half: tuple[float, float], eight: tuple[float, float]
) -> None:
    assert throughput_estimate.reached_share(name) == half
    assert throughput_estimate.reached_share(name, fp8=True) == eight


def test_a_cpu_with_bfloat16_counts_more() -> None:
    plain = throughput_estimate.measure_cpu_flops(())
    assert plain > 0
    assert throughput_estimate.measure_cpu_flops({"amx_bf16", "avx512_bf16"}) > plain
