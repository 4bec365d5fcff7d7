"""What stops set-up before it downloads anything, by reason, and as the shell script sees it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fake_card
import pytest

from kmmlu_fast.machine.gpus import Gpu, GpuInventory
from kmmlu_fast.machine.host import Cpu, Machine
from kmmlu_fast.machine.packages import Toolchain
from kmmlu_fast.machine.preflight import find_setup_obstacles

GIB = 1 << 30
ROOT = Path(__file__).resolve().parents[2]
HERE = Machine(
    cpu=Cpu("made", frozenset({"avx2"})),
    cores=4,
    memory_total_bytes=32 * GIB,
    memory_free_bytes=30 * GIB,
    disk_free_bytes=100 * GIB,
    architecture="x86_64",
    python=(3, 11),
)
TOOLS = Toolchain("/usr/bin/gcc", "/usr/bin/g++", "/usr/include/python3.11/Python.h")


def cards(
    capability: tuple[int, int] = (8, 9), driver: str = "580.95.05", name: str = "made"
) -> GpuInventory:
    return GpuInventory(
        (Gpu(name=name, capability=capability, total_bytes=24 * GIB, free_bytes=23 * GIB, driver=driver),),
        driver,
    )


def test_nothing_is_in_the_way() -> None:
    assert find_setup_obstacles("cpu", HERE, GpuInventory(), TOOLS, 13) == []
    assert find_setup_obstacles("gpu", HERE, cards(), TOOLS, 13) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (GpuInventory(), "no NVIDIA card answers"),
        (GpuInventory(problem="nvidia-smi: NVIDIA-SMI has failed"), "NVIDIA-SMI has failed"),
        (cards(driver="550.90.07"), "driver 550.90.07 is older than CUDA 13 needs (580)"),
        (cards((7, 0), name="Tesla V100-SXM2-16GB"), "Tesla V100-SXM2-16GB has compute capability 7.0"),
    ],
)
def test_cards_that_stop_the_gpu_set(found: GpuInventory, words: str) -> None:
    (only,) = find_setup_obstacles("gpu", HERE, found, TOOLS, 13)
    assert words in only
    assert find_setup_obstacles("cpu", HERE, found, TOOLS, 13) == []  # the CPU set does not ask for a card


def test_one_usable_card_among_others_is_enough() -> None:
    both = GpuInventory((*cards((7, 0)).cards, *cards((8, 6)).cards), "580.1")
    assert find_setup_obstacles("gpu", HERE, both, TOOLS, 13) == []


def test_disk_and_processor() -> None:
    small = replace(HERE, disk_free_bytes=5 * 10**9)
    (only,) = find_setup_obstacles("gpu", small, cards(), TOOLS, 13)
    assert only.startswith("5.0 GB are free") and "14" in only
    assert find_setup_obstacles("gpu", small, cards(), TOOLS, 13, done=True) == []
    (only,) = find_setup_obstacles(
        "cpu", replace(HERE, cpu=Cpu("old", frozenset())), GpuInventory(), TOOLS, 13
    )
    assert "no AVX2" in only
    (only,) = find_setup_obstacles("cpu", replace(HERE, architecture="aarch64"), GpuInventory(), TOOLS, 13)
    assert "aarch64" in only


def test_triton_needs_a_compiler_only_on_a_gpu() -> None:
    bare = Toolchain("", "", "")
    (only,) = find_setup_obstacles("gpu", HERE, cards(), bare, 13)
    assert "Python.h" in only and "python3.11-dev" in only
    assert find_setup_obstacles("cpu", HERE, GpuInventory(), bare, 13) == []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of the project that set-up's first part needs, away from any .venv."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    (folder / "kmmlu_fast").mkdir()
    shutil.copy(ROOT / "kmmlu_fast" / "__init__.py", folder / "kmmlu_fast")
    shutil.copytree(ROOT / "kmmlu_fast" / "core", folder / "kmmlu_fast" / "core")
    fake_card.build(folder)
    return folder


def setup(project: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """scripts/setup.sh there, beside the fake card. pip reaches nothing, should it come so far."""
    environment = {
        **os.environ,
        "KMMLU_PYTHON": sys.executable,
        "LD_LIBRARY_PATH": str(project),
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        **variables,
    }
    command = ["bash", str(project / "scripts" / "setup.sh"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"FAKE_COUNT": "0"}, "no NVIDIA card answers"),
        ({"FAKE_DRIVER": "550.90.07"}, "driver 550.90.07 is older than CUDA 13 needs (580)"),
        (
            {"FAKE_CC": "70", "FAKE_NAME": "Tesla V100-SXM2-16GB"},
            "Tesla V100-SXM2-16GB has compute capability 7.0",
        ),
    ],
)
def test_the_script_stops_before_it_makes_anything(
    project: Path, variables: dict[str, str], words: str
) -> None:
    done = setup(project, "gpu", **variables)
    assert done.returncode == 2
    assert words in done.stderr and "nothing was downloaded" in done.stderr
    assert not (project / ".venv").exists()


def test_the_script_wants_a_python(project: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "printf"):
        (tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    done = setup(project, "cpu", KMMLU_PYTHON="", PATH=str(tools))
    assert done.returncode == 2 and "no Python 3.11 to 3.13" in done.stderr


def test_the_two_sets_do_not_mix(project: Path) -> None:
    (project / ".venv").mkdir()
    (project / ".venv" / ".installed-cpu").touch()
    try:
        done = setup(project, "gpu", KMMLU_SETUP_ANYWAY="1")
        assert done.returncode == 2 and "do not mix: rm -rf .venv && bash scripts/setup.sh gpu" in done.stderr
    finally:
        shutil.rmtree(project / ".venv")


def test_why_the_newer_pip_was_not_installed_is_told(project: Path) -> None:
    """A file that is not the one with the pinned hash must not pass for one that no source has."""
    try:
        done = setup(project, "cpu", KMMLU_SETUP_ANYWAY="1")
    finally:
        shutil.rmtree(project / ".venv", ignore_errors=True)
    if "requirements/pip.txt" in done.stdout:  # else Python brings a new one
        assert "was not installed, for pip's reason above" in done.stdout
        assert "No matching distribution found for pip==" in done.stderr
