"""The training process never touches vLLM's compiled extensions, which kill it on a CPU without AVX-512."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from kmmlu_fast.core.errors import TrainError
from kmmlu_fast.core.schema import Question
from kmmlu_fast.data import alpaca as sft
from kmmlu_fast.machine.gpus import Gpu
from kmmlu_fast.training import libraries
from kmmlu_fast.training.libraries import use_one_gpu, without_vllm

# Looks for vLLM as unsloth.import_fixes.disable_broken_vllm does.
LIKE_UNSLOTH = """
import importlib, importlib.util
if importlib.util.find_spec("vllm") is not None:
    import vllm
    for name in ("vllm._C", "vllm._moe_C"):
        importlib.import_module(name)
"""
# Fails the process at the first attempt to find vLLM or any of its parts, before anything of it is loaded.
GUARD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name == "vllm" or name.startswith("vllm."):
            print("tried", name, flush=True)
            import os
            os._exit(132)
sys.meta_path.insert(0, Guard())
"""


def test_inside_vllm_is_not_installed_and_afterwards_it_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("here = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    before = importlib.import_module("vllm")
    with without_vllm():
        assert importlib.util.find_spec("vllm") is None
        for name in ("vllm", "vllm._C"):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)
        with without_vllm():
            pass
        assert importlib.util.find_spec("vllm") is None
    assert sys.modules["vllm"] is before
    del sys.modules["vllm"]  # not by monkeypatch, which would put it back for the tests that follow
    with without_vllm():
        pass
    assert "vllm" not in sys.modules


def test_a_library_that_probes_vllm_on_import_gets_past(tmp_path: Path) -> None:
    (tmp_path / "unsloth.py").write_text(LIKE_UNSLOTH)
    code = (
        GUARD + "from kmmlu_fast.training.libraries import import_unsloth\nprint(import_unsloth().__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "unsloth\n"), done.stderr
    bare = subprocess.run(
        [sys.executable, "-c", GUARD + LIKE_UNSLOTH], capture_output=True, text=True, check=False
    )
    assert bare.returncode == 132 and bare.stdout == "tried vllm\n"  # the guard itself works


@pytest.mark.engine
def test_unsloth_loads_and_trains_without_ever_looking_for_vllm(tmp_path: Path) -> None:
    """The program's own training, to its end, with a guard that ends the process where vLLM is looked for."""
    rows = tmp_path / "sft.jsonl"
    code = (
        GUARD
        + """
import sys
from kmmlu_fast.train import run_train_command
sys.exit(run_train_command(sys.argv[1:]))
"""
    )
    tiny.make_tiny_model(tmp_path / "model")
    questions = [
        Question(
            question_id=f"Math/train/{i}",
            subject="Math",
            supercategory="STEM",
            split="train",
            row=i,
            question=f"지어낸 물음 {i}",
            options=("하나", "둘", "셋", "넷"),
            answer="ABCD"[i % 4],
        )
        for i in range(8)
    ]
    sft.write_sft_rows(rows, [sft.SftRow(question=question, strategy="uniform") for question in questions])
    words = [
        "--data",
        str(rows),
        "--model",
        str(tmp_path / "model"),
        "--output-dir",
        str(tmp_path / "lora"),
        "--dataset",
        "sample",
    ]
    words += ["--prompt-style", "qa", "--max-steps", "2", "--effective-batch", "2", "--held-out", "2"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "tried vllm" not in done.stdout
    assert (tmp_path / "lora" / "adapter_model.safetensors").exists()


def make_gpus(count: int) -> list[Gpu]:
    return [
        Gpu(
            name=f"card {i}",
            capability=(8, 9),
            total_bytes=24 << 30,
            free_bytes=24 << 30,
            driver="580",
            index=i,
            uuid=f"GPU-{i}a",
        )
        for i in range(count)
    ]


def test_of_several_gpus_the_first_is_used_and_the_way_to_another_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="kmmlu_fast")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for count in (0, 1):
        monkeypatch.setattr(libraries, "list_gpus", lambda count=count: make_gpus(count))
        use_one_gpu()
        assert "CUDA_VISIBLE_DEVICES" not in os.environ and not caplog.text
    monkeypatch.setattr(libraries, "list_gpus", lambda: make_gpus(2))
    use_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-0a"
    assert "one of the 2 GPUs, the first: card 0" in caplog.text and "CUDA_VISIBLE_DEVICES=1" in caplog.text


@pytest.mark.parametrize("size", ["2", "8"])
def test_several_processes_are_refused(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(TrainError, match=r"training uses one GPU: .* CUDA_VISIBLE_DEVICES"):
        use_one_gpu()
