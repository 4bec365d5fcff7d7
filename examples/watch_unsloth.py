"""The KMMLU curve in an Unsloth script: python examples/watch_unsloth.py MODEL OUTPUT_DIR"""

import sys

# A CPU without AVX-512 cannot load vLLM, which Unsloth would import.
sys.modules["vllm"] = None  # type: ignore[assignment]
import unsloth  # isort: skip  - before transformers and TRL
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from kmmlu_fast import watch

path, output_dir = sys.argv[1:3]
on_cpu = not torch.cuda.is_available()
model, tokenizer = unsloth.FastLanguageModel.from_pretrained(path, max_seq_length=512, load_in_4bit=False)
model = unsloth.FastLanguageModel.get_peft_model(model, r=8, lora_alpha=16)
rows = [{"text": f"{number} 더하기 {number}은?\n정답： {2 * number}"} for number in range(64)]
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    args=SFTConfig(
        output_dir=output_dir,
        max_steps=12,
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=on_cpu,
        bf16=not on_cpu,
    ),
    train_dataset=Dataset.from_list(rows),
)
watching = watch(trainer, dataset="sample", questions=60, every=4)
trainer.train()
print(*watching.looks, sep="\n")
