"""Pins against what is installed, drivers, compilers, and the hub: files and servers made for the purpose."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from kmmlu_fast.machine import packages
from kmmlu_fast.machine.packages import Toolchain, check_pins, driver_problem, read_pins


def pins(root: Path, text: str, kind: str = "cpu") -> Path:
    (root / "requirements").mkdir(exist_ok=True)
    (root / "requirements" / f"{kind}.txt").write_text(text)
    return root


def test_pins_are_read_with_their_markers(tmp_path: Path) -> None:
    below = f"{sys.version_info[0]}.{sys.version_info[1] + 1}"
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    root = pins(
        tmp_path,
        f'# a comment\nTorch===2.13.0\nrich==14.1\nold==1; python_version < "{here}"\n'
        f'new==2 ; python_version < "{below}"\nnew==3; python_version >= "{below}"\n',
    )
    assert read_pins("cpu", root) == {"torch": "2.13.0", "rich": "14.1", "new": "2"}
    assert read_pins("gpu", root) == {}


def test_what_is_installed_against_the_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    have = {"a": "1", "b": "2", "torch": "2.13.0+cu130"}
    monkeypatch.setattr(packages, "installed_version", lambda name: have.get(name, ""))
    found = check_pins("cpu", pins(tmp_path, "a==1\nb==3\nc==1\ntorch===2.13.0\n"))
    assert (found.pinned, found.missing, found.differing) == (4, ("c",), (("b", "2", "3"),))
    assert found.named == {"torch": "2.13.0+cu130"} and not found.complete


def test_a_cpu_build_of_torch_is_not_the_pinned_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "installed_version", lambda name: "2.13.0+cpu" if name == "torch" else "")
    found = check_pins("gpu", pins(tmp_path, "torch===2.13.0\n", "gpu"))
    assert found.differing == (("torch", "2.13.0+cpu", "2.13.0"),)


def test_the_gpu_set_takes_torch_by_its_very_name() -> None:
    root = Path(__file__).resolve().parents[2]
    for name in ("gpu.txt", "gpu.in"):
        lines = (root / "requirements" / name).read_text().splitlines()
        assert [line.split()[0] for line in lines if line.startswith("torch=")] == ["torch===2.13.0"]
    assert packages.pinned_cuda() == 13


@pytest.mark.parametrize(
    ("driver", "cuda", "refused"),
    [
        ("550.90.07", 13, True),
        ("579.99", 13, True),
        ("580.65.06", 13, False),
        ("590.1", 13, False),
        ("550.90.07", 12, False),
        ("", 13, False),
        ("unknown", 13, False),
    ],
)
def test_drivers(driver: str, cuda: int, refused: bool) -> None:
    found = driver_problem(driver, cuda)
    assert bool(found) is refused
    assert not refused or (driver in found and "580" in found)


def test_a_missing_compiler_is_named() -> None:
    assert Toolchain("", "", "").missing == "a C compiler (gcc) and Python.h"
    assert Toolchain("/usr/bin/gcc", "", "/x/Python.h").complete


def test_the_compiler_is_looked_for_as_triton_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert packages.find_toolchain().c_compiler == ""
    for name in ("clang", "mycc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert packages.find_toolchain().c_compiler == str(tmp_path / "clang")
    monkeypatch.setenv("CC", "mycc -m64")
    assert packages.find_toolchain().c_compiler == str(tmp_path / "mycc")


@pytest.mark.parametrize(("status", "words"), [(200, ""), (404, ""), (503, "answered 503")])
def test_a_hub_that_answers(status: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    try:
        assert packages.check_hub().problem == words
    finally:
        server.shutdown()
        server.server_close()
    assert packages.check_hub(0.5).problem.startswith("no answer")


def test_offline_by_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in packages.check_hub().problem


def test_a_token_is_seen_and_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not packages.has_hub_token()
    (tmp_path / "token").write_text("made-up-secret")
    assert packages.has_hub_token()
    monkeypatch.setenv("HF_TOKEN", "made-up-secret")
    found = packages.check_hub()
    assert found.token and "made-up-secret" not in repr(found)


def test_names_of_quantisation_are_vllms_own() -> None:
    names = packages.quantization_names()
    if not packages.installed_kind():
        pytest.skip("vLLM is not installed")
    assert {"fp8_per_channel", "awq", "gptq"} <= set(names)
    assert "bitsandbytes" not in names


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_recorded_hashes_are_those_of_the_pinned_set(kind: str) -> None:
    root = Path(__file__).parents[2] / "requirements"
    lines = (root / f"{kind}.hashes.txt").read_text(encoding="utf-8").splitlines()
    hashed = {line.split(" ")[0].split(";")[0] for line in lines if "==" in line}
    pinned = {
        line.split(";")[0].strip()
        for line in (root / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line and "+cpu" not in line
    }
    assert hashed == pinned  # else: bash scripts/hashes.sh cpu|gpu
    assert sum("--hash=sha256:" in line for line in lines) >= len(hashed)


def test_where_flashinfers_kernels_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: dict[str, str] = {}
    monkeypatch.setattr(packages, "installed_version", lambda name: installed.get(name, ""))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    for name in ("bin/nvcc", "ninja"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert packages.flashinfer_state() == "", "FlashInfer is not installed"
    installed["flashinfer-python"] = "0.7.0.post1"
    assert packages.flashinfer_state() == "compiled", "nvcc and ninja are there: the project's own image"
    installed["flashinfer-cubin"] = "0.7.0.post1"
    assert packages.flashinfer_state() == "compiled", "cubins alone leave modules to compile"
    installed["flashinfer-jit-cache"] = "0.7.0.post1+cu130"
    assert packages.flashinfer_state() == "precompiled"
    installed["flashinfer-jit-cache"] = "0.6.9+cu130"
    assert packages.flashinfer_state() == "compiled", "of another version"
    installed = {"flashinfer-python": "0.7.0"}
    (tmp_path / "ninja").unlink()
    assert packages.flashinfer_state() == "", "vLLM leaves it out"


def test_the_set_for_a_machine_that_keeps_its_torch_is_the_pinned_one_without_torch() -> None:
    folder = Path(__file__).resolve().parents[2] / "requirements"
    whole, beside = (
        {line.split("=")[0]: line for line in (folder / name).read_text().splitlines() if "==" in line}
        for name in ("gpu.txt", "gpu-torch211.txt")
    )
    assert {name: whole.get(name) for name in beside} == beside, "regenerate with: bash scripts/lock.sh gpu"
    left_out = whole.keys() - beside.keys()
    assert {"torch", "triton", "torchvision", "nvidia-cudnn-cu13", "cuda-toolkit"} <= left_out
    assert not left_out & {"vllm", "transformers", "unsloth", "nvidia-ml-py", "nvidia-cudnn-frontend"}


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: str | None = None\nhip = None\nxpu = None", ("2.13.0+cpu", True)),
        ("__version__ = '2.13.0+cu130'\ncuda: str | None = '13.0'\nhip = None", ("2.13.0+cu130", False)),
        ("__version__ = '2.13.0+rocm'\ncuda = None\nhip = '7.0'", ("2.13.0+rocm", False)),
        ("__version__ = '2.13.0+xpu'\ncuda = None\nhip = None\nxpu = '2026'", ("2.13.0+xpu", False)),
        ("__version__ = make()", None),  # not to be read: torch itself is asked
        ("__version__ = '2.13.0'", None),
        ("def (", None),
    ],
)
def test_torch_s_build_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, build: tuple[str, bool] | None
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "torch" / "version.py").write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    found = packages.read_torch_build()
    assert (None if found is None else (found.version, found.computes_on_cpu)) == build
