"""A copy of the base with an adapter merged by PEFT, compared with the unmerged model before it is used.

In: a ``Model`` and an ``Adapter``. Out: a directory in the cache, keyed by the content of both; AdapterError
with the size of the difference if the written copy answers otherwise. Where LoRA kernels are slow (CPU) or do
not know the kind of adapter, a copy is as fast as the base. Knows no engines or questions.
"""

from __future__ import annotations

import gc
import hashlib
import pickle
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from kmmlu_fast.command.child import run_module
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import AdapterError, ModelError
from kmmlu_fast.core.files import cache_root, remove_tree, sync_folder
from kmmlu_fast.core.locks import acquire_lock, sweep_lock
from kmmlu_fast.core.schema import Adapter
from kmmlu_fast.core.untrusted_text import one_line
from kmmlu_fast.machine.extras import silence_bitsandbytes
from kmmlu_fast.machine.host import detect_machine
from kmmlu_fast.machine.model_size import tensor_places
from kmmlu_fast.models.changes import check_adapter_unchanged, check_model_unchanged
from kmmlu_fast.models.model import Model, load_tokenizer

_MERGE_WAIT_SEC = 3600.0
_SAMPLE_BYTES = 4096
_BATCH, _TOKENS = 2, 48  # of the comparison
# Largest root mean square difference of the logits, in units of their spread. Merging rounds every changed
# weight once to the copy's type, and a 16-bit model rounds what it computes. Measured on nine random
# families: 1e-6 in float32, 3e-3 in float16, 3e-2 in bfloat16; on Gemma 3 270M in bfloat16: 7e-2, and 2e-2
# if the same weights compute in float32.
TOLERANCE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
_WEIGHT_TOLERANCE = 0.05  # of 16-bit weights that compute in float32


def merge_adapter(model: Model, adapter: Adapter, dtype: str) -> Path:
    """A cached merged copy: as fast as the base, also where LoRA kernels are slow (CPU)."""
    target = cache_root() / "merged" / merged_name(model, adapter, dtype)
    lock = target.parent / f".{target.name}.lock"
    if (target / "config.json").exists():
        sweep_lock(lock)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        late = AdapterError(
            f"{target}: another process has been merging this adapter for an hour; wait for it, or end it"
        )
        with acquire_lock(lock, late, wait_sec=_MERGE_WAIT_SEC):
            if (target / "config.json").exists():
                return target
            if "vllm" in sys.modules:
                return merge_in_child(model, adapter, dtype, target)
            return write_merged_model(model, adapter, dtype, target)
    except OSError as error:
        raise AdapterError(
            f"--adapter {adapter.path}: no merged copy in {target} ({error}); free disk space or set"
            " KMMLU_FAST_CACHE"
        ) from error


def merge_in_child(model: Model, adapter: Adapter, dtype: str, target: Path) -> Path:
    """``write_merged_model`` in a process of its own: vLLM changes classes of transformers (GPT-NeoX's, for
    one), and a merge must load the model that PEFT knows. Needs ``target``'s lock.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "merge.pickle")
        file.write_bytes(pickle.dumps((model, adapter, dtype, target)))
        run_module(["kmmlu_fast.models.merging", str(file)], AdapterError)
    return target


def _run_in_child() -> int:
    def body() -> None:
        write_merged_model(*pickle.loads(Path(sys.argv[1]).read_bytes()))

    return run_main(body)


def merged_name(model: Model, adapter: Adapter, dtype: str) -> str:
    """The copy's directory: other bytes in any tensor of the base or in the adapter give another one."""
    return f"{weights_digest(model)}-{adapter.digest}-{dtype}"


def weights_digest(model: Model) -> str:
    """16 hex digits over a local base's digest and the beginning and end of each of its tensors; a hub
    revision is one by itself."""
    state = hashlib.sha256(f"compared\x1f{model.digest}".encode())
    if Path(model.path).is_dir():
        for path in sorted(Path(model.path).glob("*.safetensors")):
            with path.open("rb") as file:
                for start, end in tensor_places(path):
                    file.seek(start)
                    state.update(file.read(min(_SAMPLE_BYTES, end - start)))
                    file.seek(max(start, end - _SAMPLE_BYTES))
                    state.update(file.read(min(_SAMPLE_BYTES, end - start)))
    return state.hexdigest()[:16]


def write_merged_model(model: Model, adapter: Adapter, dtype: str, target: Path) -> Path:
    """Needs ``target``'s lock. Removes what a killed process left; ``target`` appears only when complete and
    compared."""
    partial = target.with_name(target.name + ".partial")
    remove_tree(partial)
    remove_tree(target)  # without config.json it is incomplete
    try:
        wanted = _write_copy(model, adapter, dtype, partial)
        gc.collect()
        _compare_copy(model, adapter, dtype, partial, wanted)
        check_model_unchanged(model)  # the copy is found again by both digests
        check_adapter_unchanged(adapter)
    # From safe_merge for NaN, from PEFT for target modules that the base does not have.
    except (
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        NotImplementedError,
        AttributeError,
        AssertionError,
    ) as error:
        remove_tree(partial)
        raise AdapterError(
            f"--adapter {adapter.path}: cannot be merged into {model.name} ({one_line(str(error), 200)})"
        ) from error
    except (AdapterError, ModelError):
        remove_tree(partial)
        raise
    partial.rename(target)
    sync_folder(target.parent)
    return target


def _load_unmerged(model: Model, adapter: Adapter, dtype: str, in_float32: bool = False) -> Any:
    """The base with the adapter beside it. ``in_float32``: weights rounded to ``dtype``, computing in
    float32."""
    silence_bitsandbytes()
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    kind = "auto" if dtype == "auto" else getattr(torch, dtype)
    base = AutoModelForCausalLM.from_pretrained(
        model.path, revision=model.revision, dtype=kind, trust_remote_code=model.trust_remote_code
    )
    if in_float32:
        base = base.float()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # about tied weights, which are untied and compared
        torch.manual_seed(0)  # some ways to start training draw numbers
        adapted = PeftModel.from_pretrained(base, str(adapter.path), autocast_adapter_dtype=False).eval()
    untie_changed_head(adapted)
    return adapted


def _write_copy(model: Model, adapter: Adapter, dtype: str, folder: Path) -> Any:
    """Merge and save. Returns the unmerged logits of the comparison's batch."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    adapted = _load_unmerged(model, adapter, dtype)
    unmerged_logits = _logits(adapted)
    merged = adapted.merge_and_unload(safe_merge=True)
    if _is_untied(merged):
        merged.config.get_text_config().tie_word_embeddings = False
        merged.config.tie_word_embeddings = False
    folder.mkdir(parents=True)
    merged.save_pretrained(folder)
    load_tokenizer(model).save_pretrained(folder)
    return unmerged_logits


def untie_changed_head(adapted: Any) -> None:
    """Give the output layer its own weights if it shares them with the input embeddings and an adapter
    changes one of the two: merging into a shared matrix would change both."""
    import torch

    ends = [adapted.get_input_embeddings(), adapted.get_output_embeddings()]
    if None in ends or not any(_is_adapted(end) for end in ends):
        return
    for source, place in (ends, ends[::-1]):
        inner, outer = _base_layer(source), _base_layer(place)
        if inner is not outer and inner.weight is outer.weight and _is_adapted(place):
            outer.weight = torch.nn.Parameter(outer.weight.detach().clone(), requires_grad=False)
            return


def _base_layer(module: Any) -> Any:
    while hasattr(module, "base_layer"):
        module = module.base_layer
    return getattr(module, "original_module", module)


def _is_adapted(module: Any) -> bool:
    return hasattr(module, "base_layer") or hasattr(module, "original_module")


def _is_untied(model: Any) -> bool:
    """Whether the config says that head and embeddings share their weights, but they no longer do."""
    head = model.get_output_embeddings()
    tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    return tied and head is not None and head.weight is not model.get_input_embeddings().weight


def _logits(model: Any) -> Any:
    """Float32 logits of a fixed batch of token ids, spread over the vocabulary."""
    import torch

    vocabulary = model.get_input_embeddings().weight.shape[0]
    steps = torch.arange(_BATCH * _TOKENS)
    ids = ((steps * 7919 + 11) % max(2, min(vocabulary, model.config.get_text_config().vocab_size))).view(
        _BATCH, _TOKENS
    )
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


def _compare_copy(model: Model, adapter: Adapter, dtype: str, folder: Path, wanted: Any) -> None:
    """AdapterError unless the written copy, loaded again, gives the unmerged model's logits. If 16-bit
    numbers leave a doubt, both compute again in float32."""
    from transformers import AutoModelForCausalLM

    code = model.trust_remote_code
    copy = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=code).eval()
    kind = str(next(copy.parameters()).dtype).removeprefix("torch.")
    parameters = sum(parameter.numel() for parameter in copy.parameters())
    found, tolerance = _logits(copy), TOLERANCE.get(kind, TOLERANCE["bfloat16"])
    if kind != "float32" and not _difference(found, wanted) <= tolerance and _fits_in_float32(parameters):
        found, tolerance = _logits(copy.float()), _WEIGHT_TOLERANCE
        del copy
        wanted = _logits(_load_unmerged(model, adapter, dtype, in_float32=True))
    difference = _difference(found, wanted)
    if difference <= tolerance:  # False for NaN
        return
    largest = float((found - wanted).abs().max())
    raise AdapterError(
        f"--adapter {adapter.path}: the merged copy does not answer as the unmerged model: logits differ by"
        f" up to {largest:.3g} ({difference:.1%} of their spread; {tolerance:.2%} can be rounding in {kind});"
        " use --engine transformers, which applies it unmerged, or --dtype float32"
    )


def _difference(found: Any, wanted: Any) -> float:
    """Root mean square difference, in units of the wanted logits' spread."""
    return float((found - wanted).pow(2).mean().sqrt()) / max(float(wanted.std()), 1e-30)


def _fits_in_float32(parameters: int) -> bool:
    return 4.5 * parameters < detect_machine().memory_free_bytes


if __name__ == "__main__":
    sys.exit(_run_in_child())
