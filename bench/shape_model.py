"""A model directory with a real model's shape and no real weights: for speed and memory, which need none.

In: a shape's name, texts. Out: config.json, and a tokenizer trained on the texts; random weights only on
request (training reads them, vLLM makes its own with load_format=dummy). Says nothing of accuracy. Knows
nothing of engines.

The tokenizer is a byte-level BPE of at most 32,000 tokens trained on the very texts that are asked: its
tokens a question are those it reports, not those of the real model's tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.files import write_json_atomically
from kmmlu_fast.machine.device import has_gpu

# skt/A.X-4.0-Light: Qwen2 architecture, 7.26 B parameters. "tiny" is for trying the scripts out on any
# machine.
SHAPES: dict[str, dict[str, Any]] = {
    "ax4-light": {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 102400,
    },
    # Qwen/Qwen2.5-0.5B: 0.49 B parameters, a vocabulary of 151,936 on tied embeddings
    "qwen2-0.5b": {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 4096,
    },
}
_SPECIAL = ("<|pad|>", "<|eos|>", "<|endoftext|>")


def write_shape(folder: Path, shape: str, texts: Iterable[str]) -> Path:
    """config.json and tokenizer of the shape."""
    if shape not in SHAPES:
        raise ConfigError(f"--shape {shape}: allowed are {', '.join(SHAPES)}")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(texts, min(32_000, SHAPES[shape]["vocab_size"]))
    tokenizer.save_pretrained(folder)
    write_json_atomically(
        folder / "config.json",
        {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "tie_word_embeddings": False,
            **SHAPES[shape],
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.02,
            "max_position_embeddings": 16384,
            "rope_theta": 1000000.0,
            "use_sliding_window": False,
            "dtype": "bfloat16",
            "use_cache": True,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": None,
        },
    )
    return folder


def train_tokenizer(texts: Iterable[str], size: int) -> Any:
    """Byte-level BPE in which " A" to " D" are one token each, as multiple_choice wants."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    special = [AddedToken(token, special=True, normalized=False) for token in _SPECIAL]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    letters = [f"： {letter}" for letter in "ABCD"] * 1000
    tokenizer.train_from_iterator([*letters, *texts], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|eos|>", pad_token="<|pad|>", model_max_length=16384
    )


def write_random_weights(folder: Path) -> None:
    """Random bfloat16 weights for the config, on the GPU where there is one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    device = "cuda" if has_gpu() else "cpu"
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
