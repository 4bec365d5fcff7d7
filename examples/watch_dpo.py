"""The KMMLU curve in a DPO script: python examples/watch_dpo.py MODEL OUTPUT_DIR"""

import sys

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

from kmmlu_fast import watch

model, output_dir = sys.argv[1:3]
on_cpu = not torch.cuda.is_available()
rows = [
    {"prompt": f"{number} 더하기 {number}은?\n정답：", "chosen": f" {2 * number}", "rejected": f" {number}"}
    for number in range(1, 65)
]
trainer = DPOTrainer(
    model=model,
    args=DPOConfig(
        output_dir=output_dir,
        max_steps=12,
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=on_cpu,
        bf16=not on_cpu,
    ),
    train_dataset=Dataset.from_list(rows),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
)
watching = watch(trainer, dataset="sample", questions=60, every=4)
trainer.train()
print(*watching.looks, sep="\n")
