"""What the driver says of its cards: through a library that answers as told, and nvidia-smi's lines."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

import fake_card
import pytest

from kmmlu_fast.machine import gpus
from kmmlu_fast.machine.gpus import Gpu, find_gpus, parse_capability, parse_nvidia_smi, select_visible_gpus

GIB = 1 << 30
SMI = """0, NVIDIA GeForce RTX 3090, 8.6, 24576, 23000, GPU-aa, 550.90.07
1, Tesla V100-SXM2-16GB, 7.0, 16384, 16000, GPU-bb, 550.90.07
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_card.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def card(library: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The fake library in the driver's place; the test says by environment what it answers."""
    monkeypatch.setattr(gpus, "LIBRARIES", (str(library),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


def test_a_card(card: pytest.MonkeyPatch) -> None:
    card.setenv("FAKE_CC", "120")
    card.setenv("FAKE_GIB", "32")
    card.setenv("FAKE_NAME", "NVIDIA GeForce RTX 5090")
    found = find_gpus()
    free = 32 * GIB - (500 << 20)
    assert found.cards == (
        Gpu(
            name="NVIDIA GeForce RTX 5090",
            capability=(12, 0),
            total_bytes=32 * GIB,
            free_bytes=free,
            driver="580.95.05",
            index=0,
            uuid="GPU-0a",
        ),
    )
    assert (found.driver, found.problem) == ("580.95.05", "")
    assert gpus.list_gpus() == list(found.cards)
    expected = "NVIDIA GeForce RTX 5090 (32 GiB, compute capability 12.0, driver 580.95.05)"
    assert str(found.cards[0]) == expected


def test_a_driver_that_answers_an_error(card: pytest.MonkeyPatch) -> None:
    card.setenv("FAKE_STATUS", "18")
    found = find_gpus()
    assert found.cards == ()
    assert "Driver/library version mismatch (nvmlInit_v2: 18)" in found.problem


def test_hidden_cards(card: pytest.MonkeyPatch) -> None:
    card.setenv("CUDA_VISIBLE_DEVICES", "-1")
    found = find_gpus()
    assert found.cards == () and "hides every card" in found.problem


def test_a_slice_that_is_named(card: pytest.MonkeyPatch) -> None:
    card.setenv("CUDA_VISIBLE_DEVICES", "MIG-7")
    assert [found.uuid for found in find_gpus().cards] == ["MIG-7"]


def test_no_driver_and_no_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpus, "LIBRARIES", ())
    monkeypatch.setattr(gpus, "PCI_DEVICES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == gpus.GpuInventory()


def test_a_card_on_the_bus_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "0000:01:00.0"
    device.mkdir()
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030000\n")
    monkeypatch.setattr(gpus, "LIBRARIES", ())
    monkeypatch.setattr(gpus, "PCI_DEVICES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no driver answers" in find_gpus().problem


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, [0, 1]),
        ("1", [1]),
        ("1,0", [1, 0]),
        ("GPU-b", [1]),
        ("0,9,1", [0]),  # CUDA reads the list up to the first that names no card
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_visible_devices(setting: str | None, expected: list[int]) -> None:
    assert [
        card.index for card in select_visible_gpus(parse_nvidia_smi(SMI), "550.90.07", setting).cards
    ] == expected


def test_lines_of_nvidia_smi() -> None:
    first, second = parse_nvidia_smi(SMI)
    assert first == Gpu(
        name="NVIDIA GeForce RTX 3090",
        capability=(8, 6),
        total_bytes=24 * GIB,
        free_bytes=23000 << 20,
        driver="550.90.07",
        index=0,
        uuid="GPU-aa",
    )
    assert second.capability == (7, 0)
    assert parse_nvidia_smi("No devices were found\n") == []


def test_nvidia_smi_is_asked_where_there_is_no_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{SMI}END\n")
    script.chmod(0o755)
    monkeypatch.setattr(gpus, "LIBRARIES", ())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert [card.name for card in find_gpus().cards] == ["NVIDIA GeForce RTX 3090", "Tesla V100-SXM2-16GB"]
    script.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    assert find_gpus().problem == "nvidia-smi: NVIDIA-SMI has failed"


@pytest.mark.parametrize(
    ("text", "pair"), [("8.9", (8, 9)), ("12.0", (12, 0)), ("[N/A]", (0, 0)), ("", (0, 0))]
)
def test_capability(text: str, pair: tuple[int, int]) -> None:
    assert parse_capability(text) == pair


def test_two_cards_of_different_sizes(card: pytest.MonkeyPatch) -> None:
    card.setenv("FAKE_COUNT", "2")
    card.setenv("FAKE_GIB", "80")
    card.setenv("FAKE_GIB_1", "24")
    assert [found.total_bytes // GIB for found in find_gpus().cards] == [80, 24]
    assert [found.uuid for found in find_gpus().cards] == ["GPU-0a", "GPU-1b"]


def test_the_stub_of_the_cuda_driver_has_no_device(tmp_path: Path) -> None:
    """It only has to be loaded by CUDA extensions; every call says that there is no device."""
    folder = fake_card.build_all(tmp_path)
    driver = ctypes.CDLL(str(folder / "libcuda.so.1"))
    assert driver.cuInit(0) == 100 == driver.cuMemCreate()  # CUDA_ERROR_NO_DEVICE


def test_a_stub_that_was_loaded_is_not_taken_for_the_driver(library: Path) -> None:
    ctypes.CDLL(str(library))
    with contextlib.suppress(OSError):  # a machine with a real driver
        assert ctypes.CDLL("libnvidia-ml.so.1")._name != str(library)
        assert "FAKE_NAME" not in os.environ and all(card.uuid != "GPU-0a" for card in find_gpus().cards)
