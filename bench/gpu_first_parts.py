"""The parts of ``bench.gpu`` that need no vLLM: files, ceilings, doctor, label loss, training, transformers.

In: a ``PartConfig``. Out: a part's result as plain types. Torch, transformers and PEFT are enough for the
ceilings, the label loss and the transformers engine; training needs Unsloth. Knows nothing of time limits.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.gpu_commands import has_ended, run_command, start_command
from bench.shape_model import SHAPES, write_random_weights, write_shape
from kmmlu_fast.core.errors import EngineError, KmmluError
from kmmlu_fast.machine.device import has_gpu
from kmmlu_fast.machine.host import best_cpu_dtype

if TYPE_CHECKING:
    from bench.gpu_parts import PartConfig

_CEILING_TOKENS = (2048, 8192)
_SOME_TEXTS = 8000  # that the tokenizer is trained on


def write_files(config: PartConfig) -> dict[str, Any]:
    """Questions, the model's config and tokenizer, and training rows, in the folder."""
    from bench.overhead import enlarge
    from kmmlu_fast.data import alpaca, dataset
    from kmmlu_fast.prompting.prompts import render_prompt

    (config.folder / "data").mkdir()
    enlarge(config.dataset_name(), config.questions, config.folder / "data", distinct=True)
    questions = dataset.load_questions(config.data, "test", None)
    draw = random.Random(0)
    shown = draw.sample(questions, min(_SOME_TEXTS, len(questions)))
    texts = [f"{render_prompt(q, [], 'lm-eval').text} {q.answer}" for q in shown]
    write_shape(config.folder / "model", config.shape, texts)
    rows = []
    for number, question in enumerate(draw.choices(questions, k=config.train_rows)):
        own = replace(
            question,
            question_id=f"{question.subject}/train/{number}",
            split="train",
            row=number,
            question=question.question.strip(),
        )
        row = alpaca.SftRow(question=own, strategy="uniform")
        try:
            alpaca.sft_row_to_record(row)
        except KmmluError:  # a question whose own lines look like options
            continue
        rows.append(row)
    alpaca.write_sft_rows(config.folder / "train.jsonl", rows)
    return {"questions": len(questions), "rows": len(rows)}


def write_weights(config: PartConfig) -> dict[str, Any]:
    """Random weights of the shape."""
    began = time.monotonic()
    write_random_weights(config.folder / "model")
    return {"weights_sec": round(time.monotonic() - began, 1)}


def measure_ceilings(config: PartConfig) -> dict[str, Any]:
    """What everything else is a share of: a layer's own products in 16 bit, by the device's clock; a copy."""
    import torch

    from bench.common import device_seconds, matmul_rate
    from bench.flops import shape_of

    shape = shape_of(SHAPES[config.shape])
    device = "cuda" if has_gpu() else "cpu"
    dtype = "bfloat16" if device == "cuda" else best_cpu_dtype()
    kind = getattr(torch, dtype)
    rates: dict[str, dict[str, float]] = {}
    for tokens in _CEILING_TOKENS if device == "cuda" else (512,):
        seconds, flops, by_name = 0.0, 0, {}
        for name, inputs, outputs in shape.products:
            left = torch.randn(tokens, inputs, device=device).to(kind)
            # several operands, more than a cache holds
            right = [torch.randn(outputs, inputs, device=device).to(kind) for _ in range(3)]
            products = [lambda w=w, x=left: torch.nn.functional.linear(x, w) for w in right]
            each = statistics.median(device_seconds(products[i % 3], 1) for i in range(12))
            by_name[name] = round(2 * tokens * inputs * outputs / each / 1e12, 3)
            seconds, flops = seconds + each, flops + 2 * tokens * inputs * outputs
        rates[str(tokens)] = {**by_name, "layer": round(flops / seconds / 1e12, 3)}
    size = (2 << 30) if device == "cuda" else (64 << 20)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copies = device_seconds(lambda: target.copy_(source), 5) / 5
    largest = 1024 if config.shape == "tiny" else 4096
    rate = matmul_rate(dtype, repeats=5 if device == "cuda" else 1, largest=largest)
    return {
        **rate,
        "torch": torch.__version__,
        "layer_tflop_per_sec": rates,
        "copy_gb_per_sec": round(2 * size / copies / 1e9, 1),
    }


def ask_doctor(config: PartConfig) -> dict[str, Any]:
    """What the doctor says of this machine; exit code 2 (nothing can run) is an answer too."""
    out = run_command(["kmmlu_fast.doctor", "--json"], allowed=(0, 2))
    return {"doctor": json.loads(out)}


def check_label_loss(config: PartConfig) -> dict[str, Any]:
    """Loss and LoRA gradients of ``label_loss`` against the stack's own (Unsloth's, or plain PEFT's)."""
    with_unsloth = find_spec("unsloth") is not None and find_spec("trl") is not None
    if with_unsloth:
        from kmmlu_fast.training import libraries

        libraries.import_unsloth()  # nothing to do where it is warm
    shape = "qwen2-0.5b" if has_gpu() and config.shape != "tiny" else "tiny"
    folder = config.folder / f"label-loss-{shape}"
    write_shape(folder, shape, ["가나다 답： A", "라마바 답： B"] * 50)
    write_random_weights(folder)
    cases = []
    kinds = [(True, True), (True, False), (False, False)] if with_unsloth else [(False, False)]
    if not has_gpu():
        kinds = kinds[::2]  # loading is most of it there
    for four_bit, checkpointing in kinds:
        model = _load_adapted(folder, four_bit, checkpointing, with_unsloth)
        for kind in ("letters", "all"):
            about = {"four_bit": four_bit, "checkpointing": checkpointing, "labels": kind}
            cases.append({**about, **_compare_losses(model, SHAPES[shape]["vocab_size"], kind == "letters")})
        del model
    right = [
        case["attached"] and case["loss_apart"] <= 0.02 and case["gradients_apart"] <= 0.1 for case in cases
    ]
    return {"shape": shape, "unsloth": with_unsloth, "cases": cases, "wrong": right.count(False)}


def _load_adapted(folder: Path, four_bit: bool, checkpointing: bool, with_unsloth: bool) -> Any:
    import torch

    if with_unsloth:
        from kmmlu_fast.training.config import TrainConfig
        from kmmlu_fast.training.lora_model import load_lora_model

        values = {"data": "none.jsonl", "model": str(folder), "max_seq_length": 512, "load_in_4bit": four_bit}
        model = load_lora_model(TrainConfig.model_validate(values), str(folder), checkpointing=checkpointing)
    else:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        base = base.to("cuda" if has_gpu() else "cpu")
        targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
        model = get_peft_model(base, LoraConfig(r=16, target_modules=targets, task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return model


def _compare_losses(model: Any, vocabulary: int, letters: bool) -> dict[str, Any]:
    """Both losses and their gradients on four rows; the model keeps its own loss afterwards."""
    import torch

    from bench.training import computing_device
    from kmmlu_fast.training.label_loss import attach_labelled_loss

    device = computing_device(model)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, min(vocabulary, 300), (4, 160), generator=generator).to(device)
    labels, mask = ids.clone(), torch.ones_like(ids)
    if letters:
        labels[:, :-2] = -100
        labels[1, -32:-30] = ids[1, -32:-30]
    mask[1, -30:], labels[1, -30:] = 0, -100

    def gradients() -> tuple[float, dict[str, Any]]:
        model.train()
        model.zero_grad(set_to_none=True)
        count = torch.tensor(40.0, device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
            loss = model(**batch, num_items_in_batch=count).loss
        loss.backward()
        weights = model.named_parameters()
        return float(loss.detach()), {n: w.grad.float().clone() for n, w in weights if w.grad is not None}

    with _own_loss_kept(model.get_base_model()):
        usual, usual_gradients = gradients()
        row = {"input_ids": ids[:1], "attention_mask": mask[:1], "labels": labels[:1]}
        began = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            attached = attach_labelled_loss(model, row)
        attach_sec = time.perf_counter() - began
        labelled, new_gradients = gradients()
    apart = [
        float((usual_gradients[name] - new_gradients[name]).norm() / (usual_gradients[name].norm() + 1e-12))
        for name in usual_gradients
    ]
    return {
        "attached": attached,
        "losses": [usual, labelled],
        "loss_apart": abs(usual - labelled) / max(abs(usual), 1e-9),
        "gradients_apart": max(apart),
        "attach_sec": round(attach_sec, 2),
    }


@contextmanager
def _own_loss_kept(base: Any) -> Iterator[None]:
    was_replaced, usual = "forward" in vars(base), base.forward
    try:
        yield
    finally:
        if was_replaced:
            base.forward = usual
        else:
            vars(base).pop("forward", None)


def compare_batches(config: PartConfig) -> dict[str, Any]:
    """The transformers engine, 16 bit and nf4: letters in batches against one prompt at a time."""
    from kmmlu_fast.core.schema import Candidates, Request
    from kmmlu_fast.engines.hf.engine import TransformersEngine
    from kmmlu_fast.engines.hf.model import TransformersSettings

    draw = random.Random(0)
    prefix = [draw.randrange(3, 290) for _ in range(200)]
    prompts = []
    for number in range(64 if has_gpu() else 16):
        own = [draw.randrange(3, 290) for _ in range(draw.randrange(40, 120))]
        prompts.append(tuple((prefix if number % 2 else []) + own))
    requests = [
        Request(question_id=str(n), stage="letters", token_ids=prompt, want=Candidates((10, 11, 12, 13)))
        for n, prompt in enumerate(prompts)
    ]
    found: dict[str, Any] = {}
    for quantization in (None, *(["nf4"] if find_spec("bitsandbytes") else [])):
        settings = TransformersSettings(model=config.model_path, quantization=quantization, max_model_len=512)
        engine = TransformersEngine(settings)
        list(engine.generate(requests[:4]))
        began = time.perf_counter()
        together = {response.request.key: response.logprobs for response in engine.generate(requests)}
        sec = time.perf_counter() - began
        apart = []
        for request in requests:
            [alone] = engine.generate([request])
            apart += [abs(a - b) for a, b in zip(alone.logprobs, together[request.key], strict=True)]
        rate = round(len(requests) / sec, 1)
        found[quantization or "16 bit"] = {"questions_per_sec": rate, "largest_nats": max(apart)}
        engine.close()
    return found


def train_adapter(config: PartConfig) -> dict[str, Any]:
    """The product's own ``train`` on the rows, three epochs."""
    out = config.folder / "lora"
    began = time.monotonic()
    run_command([*_training(config, out), "--save-every", "1000000"])
    return {"total_sec": round(time.monotonic() - began, 1), "card": _adapter_card(out)}


def kill_and_resume(config: PartConfig) -> dict[str, Any]:
    """The product's ``train``, killed after a checkpoint and resumed."""
    out = config.folder / "killed"
    words = [*_training(config, out), "--max-steps", "12", "--save-every", "2", "--effective-batch", "8"]
    child, is_over = start_command(words), False
    try:
        while not list(out.glob("checkpoints/checkpoint-*/complete.json")):
            if is_over := has_ended(child):
                raise EngineError("training ended before its first checkpoint; its own message is above")
            time.sleep(0.02)
    finally:
        if not is_over:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    steps = [int(path.parent.name.rsplit("-", 1)[-1]) for path in out.glob("checkpoints/*/complete.json")]
    began = time.monotonic()
    run_command([*words, "--resume"])
    metrics = _adapter_card(out)["metrics"]
    return {
        "killed_after": max(steps),
        "resumed_from": metrics["resumed_from"],
        "steps": metrics["steps"],
        "resumed_sec": round(time.monotonic() - began, 1),
    }


def _training(config: PartConfig, out: Path) -> list[str]:
    words = ["kmmlu_fast.train", "--data", str(config.folder / "train.jsonl"), "--model", config.model_path]
    words += ["--output-dir", str(out), "--dataset", "sample", "--allow-leakage", "--num-train-epochs", "3"]
    return [*words, "--held-out", "0", "--keep", "last"]


def _adapter_card(out: Path) -> dict[str, Any]:
    from kmmlu_fast.models import adapters

    card: dict[str, Any] = json.loads((out / adapters.ADAPTER_CARD).read_text(encoding="utf-8"))
    return card
