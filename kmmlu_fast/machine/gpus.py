"""The NVIDIA cards of this machine, read from the driver without torch or CUDA, so that forking stays safe.

In: nothing. Out: ``GpuInventory``. The driver's own library (NVML, by ctypes) answers in milliseconds; if it
cannot be loaded, ``nvidia-smi`` is run. Standard library only. Source: NVIDIA's NVML API reference (functions
and the layout of ``nvmlMemory_t``). Knows nothing of what fits on a card (``machine.memory_fit``).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARIES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
PCI_DEVICES = Path("/sys/bus/pci/devices")
_SMI_FIELDS = "index,name,compute_cap,memory.total,memory.free,uuid,driver_version"
_MIB = 1 << 20
_TEXT_BYTES = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE; a UUID needs as many, the driver's version 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card. ``capability`` is CUDA's, such as (8, 9); sizes in bytes, 0 if not reported by the driver."""

    name: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int
    driver: str
    index: int = 0
    uuid: str = ""

    def __str__(self) -> str:
        major, minor = self.capability
        size = f"{self.total_bytes / 2**30:.0f} GiB"
        return f"{self.name} ({size}, compute capability {major}.{minor}, driver {self.driver})"


@dataclass(frozen=True, slots=True)
class GpuInventory:
    """The cards that this process may use. ``problem``: why there are none, if something is wrong."""

    cards: tuple[Gpu, ...] = ()
    driver: str = ""
    problem: str = ""


# RTX 30, A40: bfloat16, without fp8 units. What such a card can do, newer ones can too.
ASSUMED_CAPABILITY = (8, 6)


def assume_gpu(memory_gib: float) -> Gpu:
    """A card that is not here, by its memory alone; all of it is free."""
    size = int(memory_gib * 2**30)
    return Gpu(
        name=f"a GPU with {memory_gib:g} GiB",
        capability=ASSUMED_CAPABILITY,
        total_bytes=size,
        free_bytes=size,
        driver="",
    )


class _NvmlMemory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _NvmlError(Exception):
    """An error status from NVML."""


def list_gpus() -> list[Gpu]:
    """The cards that this process may use; [] if there is no driver, or they are hidden."""
    return list(find_gpus().cards)


def find_gpus() -> GpuInventory:
    """The cards in CUDA's order (CUDA_VISIBLE_DEVICES), and the problem if there is one. Raises nothing."""
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    library = _load_nvml()
    if library is not None:
        try:
            return select_visible_gpus(*_query_nvml(library, setting or ""), setting)
        except (_NvmlError, AttributeError) as error:
            return GpuInventory(problem=f"the NVIDIA driver does not answer: {error}")
    cards, driver, problem = _query_nvidia_smi() if shutil.which("nvidia-smi") else ([], "", "")
    if not cards and not problem and _has_gpu_on_pci_bus():
        advice = "install the driver, or start the container with --gpus all"
        problem = f"an NVIDIA card is on the bus, but no driver answers: {advice}"
    if problem:
        return GpuInventory(driver=driver, problem=problem)
    return select_visible_gpus(cards, driver, setting)


def select_visible_gpus(cards: Sequence[Gpu], driver: str, setting: str | None) -> GpuInventory:
    """The cards in CUDA_VISIBLE_DEVICES: indices or (prefixes of) UUIDs, up to the first unknown one.

    A slice of a card (MIG) is visible only if its UUID is named.
    """
    whole = [card for card in cards if not card.uuid.startswith("MIG-")]
    if setting is None or not cards:
        return GpuInventory(tuple(whole), driver)
    chosen: list[Gpu] = []
    for word in (part.strip() for part in setting.split(",")):
        if word.startswith(("GPU-", "MIG-")):
            matches = [card for card in cards if card.uuid.startswith(word)]
        else:
            matches = [card for card in whole if word == str(card.index)]
        if not matches:
            break
        chosen.append(matches[0])
    problem = "" if chosen else f"CUDA_VISIBLE_DEVICES={setting!r} hides every card ({len(whole)})"
    return GpuInventory(tuple(chosen), driver, problem)


def parse_nvidia_smi(text: str) -> list[Gpu]:
    """The lines of ``nvidia-smi --query-gpu=index,name,... --format=csv,noheader,nounits``."""
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines()]
    return [
        Gpu(
            name=name,
            capability=parse_capability(capability),
            total_bytes=_mib_to_bytes(total),
            free_bytes=_mib_to_bytes(free),
            driver=driver,
            index=int(index),
            uuid=uuid,
        )
        for index, name, capability, total, free, uuid, driver in (row for row in rows if len(row) == 7)
        if index.isdigit()
    ]


def parse_capability(text: str) -> tuple[int, int]:
    """Parse "8.9" as (8, 9); (0, 0) if it is not such a pair."""
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _mib_to_bytes(text: str) -> int:
    return int(text) * _MIB if text.isdigit() else 0


def _load_nvml() -> Any:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _query_nvml(nvml: Any, setting: str) -> tuple[list[Gpu], str]:
    """All cards and the slices that ``setting`` names; the driver's version."""

    def call(function: str, *arguments: Any) -> None:
        status = getattr(nvml, function)(*arguments)
        if status:
            nvml.nvmlErrorString.restype = ctypes.c_char_p
            words = (nvml.nvmlErrorString(status) or b"").decode(errors="replace")
            raise _NvmlError(f"{words} ({function}: {status})")

    def text(function: str, *handle: Any) -> str:
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        call(function, *handle, buffer, ctypes.c_uint(_TEXT_BYTES))
        return buffer.value.decode(errors="replace")

    def card(place: int | str) -> Gpu:
        handle, major, minor, memory = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int(), _NvmlMemory()
        if isinstance(place, int):
            call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(place), ctypes.byref(handle))
        else:
            call("nvmlDeviceGetHandleByUUID", place.encode(), ctypes.byref(handle))
        call("nvmlDeviceGetCudaComputeCapability", handle, ctypes.byref(major), ctypes.byref(minor))
        # Fails for cards that share the host's memory, whose sizes stay 0.
        nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
        return Gpu(
            name=text("nvmlDeviceGetName", handle),
            capability=(major.value, minor.value),
            total_bytes=memory.total,
            free_bytes=memory.free,
            driver=driver,
            index=place if isinstance(place, int) else 0,
            uuid=text("nvmlDeviceGetUUID", handle),
        )

    call("nvmlInit_v2")
    try:
        driver, count = text("nvmlSystemGetDriverVersion"), ctypes.c_uint()
        call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        slices = [word.strip() for word in setting.split(",") if word.strip().startswith("MIG-")]
        return [card(place) for place in (*range(count.value), *slices)], driver
    finally:
        nvml.nvmlShutdown()


def _query_nvidia_smi() -> tuple[list[Gpu], str, str]:
    """All cards, the driver's version, and the problem if there is no answer."""
    command = ["nvidia-smi", f"--query-gpu={_SMI_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=4, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], "", f"nvidia-smi does not answer ({type(error).__name__})"
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        return [], "", f"nvidia-smi: {lines[0]}"
    cards = parse_nvidia_smi(done.stdout)
    return cards, cards[0].driver if cards else "", ""


def _has_gpu_on_pci_bus() -> bool:
    """Whether sysfs shows a display controller (class 03) of NVIDIA (vendor 10de)."""
    try:
        devices = list(PCI_DEVICES.iterdir())
        return any(
            (device / "vendor").read_text().strip() == "0x10de"
            and (device / "class").read_text().startswith("0x03")
            for device in devices
        )
    except OSError:
        return False
