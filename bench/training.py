"""Tokens/s and peak memory of a QLoRA step: as ``train`` does it, by Unsloth alone, and by plain PEFT +
bitsandbytes, on the same rows.

In: a model, lengths and batches. Out: a row for each of them and each way, with the memory plan's estimate
beside the measured peak. A step is forward, backward and optimiser over one micro-batch whose rows are
exactly as long as said. Each way runs in a process of its own, because Unsloth patches the libraries.
``train`` and ``unsloth`` go through TRL and differ in the loss (``label_loss`` or the stack's own); PEFT's is
the plain loop of most scripts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, PositiveInt

from bench.common import (
    BenchConfig,
    finish,
    note,
    peak_since_restart,
    restart_peak,
    run_child,
    spread,
    synchronise,
    table,
)
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import DataError
from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.machine.host import best_cpu_dtype
from kmmlu_fast.training import libraries
from kmmlu_fast.training.config import PROJECTIONS

WAYS = ("train", "unsloth", "peft")
GIB = 2**30


class TrainingConfig(BenchConfig):
    """python -m bench.training: QLoRA steps by Unsloth and by PEFT + bitsandbytes, with the
    memory plan beside the measured peak.
    """

    model: str = Field("demo", description="hub id, directory, or 'demo'")
    lengths: list[int] = Field([128, 512], description="tokens a row, comma-separated")
    batches: list[int] = Field([1, 4], description="rows a step, comma-separated")
    ways: list[str] = Field(
        list(WAYS), description="train (as kmmlu_fast trains), unsloth (with the stack's own loss), peft"
    )
    r: int = Field(16, gt=0, description="LoRA rank")
    warm_ups: PositiveInt = Field(
        2, description="steps of each size before those that count: Unsloth compiles for the first it sees"
    )
    way: Literal["train", "unsloth", "peft"] | None = Field(
        None, description="internal: measure this way in this process, print JSON only"
    )


Step = Callable[[dict[str, Any]], Any]  # a batch -> its loss, gradients in place


def plain_step(model: Any) -> Step:
    """Forward with the model's own loss in mixed precision, and backward."""
    import torch

    def step(batch: dict[str, Any]) -> Any:
        with torch.autocast(batch["input_ids"].device.type, dtype=torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        return loss

    return step


def trl_step(model: Any, tokenizer: Any, labelled: bool) -> Step:
    """TRL's step as Unsloth left it: with the loss of ``train`` (logits at the labels only), or
    with the stack's own.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from kmmlu_fast.training.label_loss import attach_labelled_loss, make_labelled_trainer

    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=1,
            bf16=True,
            report_to="none",
            disable_tqdm=True,
            max_length=None,
            packing=False,
            padding_free=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            **({"loss_type": "nll"} if labelled else {}),
        )
        one = Dataset.from_dict({"input_ids": [[1, 2]], "labels": [[1, 2]]})
        trainer = make_labelled_trainer(SFTTrainer)(
            model=model, args=arguments, train_dataset=one, processing_class=tokenizer
        )
    if labelled:
        attach_labelled_loss(model)
        trainer.use_labelled_loss()
    trainer.current_gradient_accumulation_steps = 1  # set by train(), which is not called
    return lambda batch: trainer.training_step(model, batch)


def token_rows(tokenizer: Any, dataset: str, length: int, batch: int) -> list[list[int]]:
    """``batch`` rows of exactly ``length`` tokens of the dataset's questions, one after the other."""
    from kmmlu_fast.core.schema import Question
    from kmmlu_fast.data.dataset import load_frame
    from kmmlu_fast.prompting.prompts import encode_prompts, render_prompt

    frame = load_frame(dataset, "test")
    stream: list[int] = []
    for row in frame.iter_rows(named=True):
        options = (row["A"], row["B"], row["C"], row["D"])
        question = Question(
            question_id=row["question_id"],
            subject=row["subject"],
            supercategory="",
            split="test",
            row=row["row"],
            question=row["question"],
            options=options,
            answer=row["answer"],
        )
        stream += encode_prompts(tokenizer, [render_prompt(question, [], "lm-eval")])[0]
        if len(stream) >= length * batch:
            return [stream[i * length : (i + 1) * length] for i in range(batch)]
    raise DataError(
        f"{dataset}: has {len(stream)} tokens; the bench needs {length} x {batch}: use smaller --lengths or"
        " --batches"
    )


def load(way: str, path: str, r: int, max_length: int, checkpointing: bool = True) -> Any:
    """The model in 4 bit with a fresh LoRA, ready to train; ``checkpointing`` is for the ways
    that go through Unsloth.
    """
    if way != "peft":
        from kmmlu_fast.training.config import TrainConfig
        from kmmlu_fast.training.lora_model import load_lora_model

        config = TrainConfig.model_validate(
            {"data": "none.jsonl", "model": path, "r": r, "max_seq_length": max_length}
        )
        return load_lora_model(config, path, checkpointing=checkpointing)
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    device = "cuda" if has_gpu() else "cpu"
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        path, quantization_config=four_bit, dtype=torch.bfloat16, device_map={"": device}
    )
    model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
    return get_peft_model(
        model,
        LoraConfig(r=r, lora_alpha=r, lora_dropout=0.0, target_modules=PROJECTIONS, task_type="CAUSAL_LM"),
    )


def computing_device(model: Any) -> Any:
    """Where batches go: not the first parameters' device, because on small GPUs Unsloth keeps the input
    embeddings on the host.
    """
    return model.get_base_model().get_output_embeddings().weight.device


def optimiser(model: Any) -> Any:
    """8-bit AdamW on a GPU, torch's on a CPU: what Unsloth takes in either place."""
    import torch

    weights = [p for p in model.parameters() if p.requires_grad]
    if has_gpu():
        from bitsandbytes import optim

        eight_bit: Any = optim.AdamW8bit  # type: ignore[attr-defined]
        return eight_bit(weights, lr=2e-4)
    return torch.optim.AdamW(weights, lr=2e-4, fused=True)


def measure(config: TrainingConfig, way: str) -> dict[str, Any]:
    """All sizes in this process, the smallest first."""
    if way != "peft":
        libraries.import_unsloth()
    import torch

    from kmmlu_fast.machine.device_memory import available_memory, release_freed_memory
    from kmmlu_fast.models import model as models
    from kmmlu_fast.training.memory import MemoryPlan, plan_memory
    from kmmlu_fast.training.model_shape import read_model_shape

    model_record = models.resolve_model(config.model)
    tokenizer = models.load_tokenizer(model_record)
    cpu = not has_gpu()
    shape = read_model_shape(model_record.path, config.r, PROJECTIONS)
    available_bytes, _, _ = available_memory()

    def planned(length: int, batch: int, checkpointing: str) -> MemoryPlan:
        return plan_memory(
            shape,
            length,
            batch,
            available_bytes,
            micro_batch=batch,
            cpu=cpu,
            checkpointing=checkpointing,
            float32=cpu and best_cpu_dtype() == "float32",
            labels=2 if way == "train" else None,
        )

    # as kmmlu_fast trains: layers are computed twice only where keeping them would not fit; the other ways do
    # it always
    kept = way == "train" and not planned(max(config.lengths), max(config.batches), "auto").checkpointing
    began = time.perf_counter()
    model = load(way, model_record.path, config.r, max(config.lengths), not kept)
    load_sec = time.perf_counter() - began
    model.train()
    step_with = optimiser(model)
    backward = plain_step(model) if way == "peft" else trl_step(model, tokenizer, way == "train")
    rows = []
    for length, batch in sorted(
        ((n, b) for n in config.lengths for b in config.batches), key=lambda size: size[0] * size[1]
    ):
        note(f"{way}: {batch} x {length}")
        device = computing_device(model)
        ids = torch.tensor(token_rows(tokenizer, config.dataset_name(), length, batch), device=device)
        labels = ids.clone()
        labels[:, :-2] = -100  # the answer and end-of-text, as in training on letters
        if way == "train":
            release_freed_memory()
        restart_peak()
        if not cpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        seconds, cpu_seconds, losses = [], [], []
        for turn in range(config.repeats + config.warm_ups):
            began, cpu_began = time.perf_counter(), time.process_time()
            loss = backward({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
            step_with.step()
            step_with.zero_grad(set_to_none=True)
            synchronise()
            losses.append(float(loss.detach()))
            if turn >= config.warm_ups:
                seconds.append(time.perf_counter() - began)
                cpu_seconds.append(time.process_time() - cpu_began)
        peak = peak_since_restart() if cpu else int(torch.cuda.max_memory_reserved())
        plan = planned(length, batch, "off" if kept else "on")
        rows.append(
            {
                "way": way,
                "length": length,
                "batch": batch,
                "checkpointing": not kept,
                "step_sec": spread(seconds, 3),
                "cpu_sec": spread(cpu_seconds, 3),
                "tokens_per_sec": round(length * batch / spread(seconds)["median"], 1),
                "peak_gib": round(peak / GIB, 3),
                "planned_gib": round(plan.total_bytes / GIB, 3),
                "first_loss": round(losses[0], 4),
                "load_sec": round(load_sec, 1),
            }
        )
    return {"rows": rows}


def main(argv: list[str] | None = None) -> int:
    def body() -> int:
        config = parse_config(TrainingConfig, argv, "python -m bench.training")
        if config.way:
            with libraries.without_vllm():
                found = measure(config, config.way)
            print("\n" + json.dumps(found))
            return 0
        flags = [
            "--model",
            config.model,
            "--dataset",
            config.dataset,
            "--repeats",
            str(config.repeats),
            "--warm-ups",
            str(config.warm_ups),
            "--r",
            str(config.r),
        ]
        flags += [
            "--lengths",
            ",".join(map(str, config.lengths)),
            "--batches",
            ",".join(map(str, config.batches)),
        ]
        rows = [
            row for way in config.ways for row in run_child(["bench.training", "--way", way, *flags])["rows"]
        ]
        base = {(row["length"], row["batch"]): row["tokens_per_sec"] for row in rows if row["way"] == "peft"}
        for row in rows:
            plain = base.get((row["length"], row["batch"]))
            row["times_peft"] = round(row["tokens_per_sec"] / plain, 2) if plain else None
        shown = [
            {**row, "step_sec": row["step_sec"]["median"], "cpu_sec": row["cpu_sec"]["median"]}
            for row in rows
        ]
        name = config.model.rsplit("/", 1)[-1]
        finish(
            "training",
            config,
            argv,
            {"model": name, "r": config.r, "rows": rows},
            [table("QLoRA step (median)", shown)],
        )
        return 0

    return run_main(body)


if __name__ == "__main__":
    sys.exit(main())
