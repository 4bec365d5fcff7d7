"""The KMMLU curve in a GRPO script: python examples/watch_grpo.py MODEL OUTPUT_DIR"""

import sys

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

from kmmlu_fast import watch

model, output_dir = sys.argv[1:3]
on_cpu = not torch.cuda.is_available()


def reward_digits(completions: list[str], **columns: object) -> list[float]:
    """The share of digits in each completion."""
    return [sum(letter.isdigit() for letter in text) / max(len(text), 1) for text in completions]


trainer = GRPOTrainer(
    model=model,
    reward_funcs=reward_digits,
    args=GRPOConfig(
        output_dir=output_dir,
        max_steps=4,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        report_to="none",
        use_cpu=on_cpu,
        bf16=not on_cpu,
    ),
    train_dataset=Dataset.from_list([{"prompt": f"{n} 더하기 {n}은?\n정답："} for n in range(32)]),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
)
watching = watch(trainer, dataset="sample", questions=60, every=2)
trainer.train()
print(*watching.looks, sep="\n")
