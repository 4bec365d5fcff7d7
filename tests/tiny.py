"""A tiny Qwen2-shaped model with random weights and its LoRA adapters, made on the spot: real files for real
engines.

In: a directory. Out: the same directory, holding what ``AutoModelForCausalLM``, vLLM, Unsloth and PEFT load.
The tokenizer is a byte-level BPE (any UTF-8 goes through) in which ``A``-``D`` and `` A``-`` D`` are single
tokens. Knows nothing of kmmlu_fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL_TOKENS = (
    "<|pad|>",
    "<|bos|>",
    "<|eos|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
)  # transformers would add the last
MAX_POSITIONS = 4096
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_tiny_tokenizer(bos: bool = False, chat: bool = False, letters: str = "ABCD") -> Any:
    """Byte-level BPE: 6 special tokens, 256 bytes, and a space glued to each of ``letters``.
    ``bos``: encoding adds <|bos|> in front.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    space = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(" ")[0][0]
    merges = [(space, letter) for letter in letters]
    vocabulary = {
        token: index for index, token in enumerate([*SPECIAL_TOKENS, *symbols, *(a + b for a, b in merges)])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A",
            pair="<|bos|> $A $B",
            special_tokens=[("<|bos|>", SPECIAL_TOKENS.index("<|bos|>"))],
        )
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>" if bos else None,
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        model_max_length=MAX_POSITIONS,
    )
    if chat:
        wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def make_tiny_model(
    path: Path | str,
    seed: int = 0,
    *,
    bos: bool = False,
    chat: bool = False,
    dtype: str = "float32",
    letters: str = "ABCD",
) -> Path:
    """Write a 2-layer model (hidden 64, 2 heads of 32, which vLLM's CPU attention takes) and its tokenizer.
    Another seed, another model.

    Weights are drawn wider than usual: with 0.02 all answers would be near-ties, which rounding could flip
    between two engines.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    path = Path(path)
    tokenizer = make_tiny_tokenizer(bos, chat, letters)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=0.15,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    model.generation_config.do_sample = False
    model.to(getattr(torch, dtype)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def make_tiny_adapter(
    model_path: Path | str, path: Path | str, seed: int = 0, scale: float = 1.0, rank: int = 4
) -> Path:
    """Write a PEFT LoRA adapter for the model with B drawn at random (times ``scale``): it
    changes answers. ``scale`` 0 changes nothing.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    path = Path(path)
    base = AutoModelForCausalLM.from_pretrained(model_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(
            base,
            LoraConfig(
                r=rank, lora_alpha=2 * rank, target_modules=list(TARGET_MODULES), task_type="CAUSAL_LM"
            ),
        )
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(torch.randn_like(weight) * 0.2 * scale)
    model.save_pretrained(path)
    return path
