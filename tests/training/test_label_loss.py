"""The loss of labelled positions only: the model's own loss and gradients, alone, in pieces,
and over accumulated micro-batches in TRL.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kmmlu_fast.training import label_loss
from kmmlu_fast.training.encoded import MASKED
from kmmlu_fast.training.label_loss import (
    attach_labelled_loss,
    labelled_loss,
    logit_chunk_rows,
    make_labelled_trainer,
)


def tiny(architecture: str = "Qwen2", **more: Any) -> Any:
    """A two-layer model with random LoRA weights of all projections, in float32."""
    import transformers
    from peft import LoraConfig, get_peft_model

    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        **more,
    )
    torch.manual_seed(0)
    kind = {"Gemma3Text": "Gemma3ForCausalLM"}.get(architecture, f"{architecture}ForCausalLM")
    model = get_peft_model(
        getattr(transformers, kind)(config),
        LoraConfig(r=4, target_modules=["q_proj", "o_proj", "up_proj"], task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return model


def batch(rows: int = 3, tokens: int = 12) -> dict[str, Any]:
    """Rows of different lengths, padded on the right, with one to three labels each."""
    torch.manual_seed(1)
    ids = torch.randint(0, 96, (rows, tokens))
    labels, mask = torch.full_like(ids, MASKED), torch.ones_like(ids)
    for row in range(rows):
        end = tokens - 2 * row
        mask[row, end:] = 0
        labels[row, end - 1 - row : end] = ids[row, end - 1 - row : end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def gradients(model: Any, inputs: dict[str, Any], **more: Any) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**inputs, **more).loss
    loss.backward()
    return float(loss), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_close(
    one: tuple[float, dict[str, torch.Tensor]], two: tuple[float, dict[str, torch.Tensor]]
) -> None:
    assert one[0] == pytest.approx(two[0], rel=1e-5)
    assert one[1].keys() == two[1].keys()
    assert any(grad.abs().max() > 1e-4 for grad in one[1].values())
    for name, grad in one[1].items():
        torch.testing.assert_close(grad, two[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("Qwen2", {}),
        ("Llama", {"tie_word_embeddings": True}),
        ("Gemma3Text", {"head_dim": 16, "final_logit_softcapping": 5.0}),
    ],
)
@pytest.mark.parametrize("num_items", [None, 17])
def test_loss_and_gradients_are_the_models_own(
    architecture: str, more: dict[str, Any], num_items: int | None
) -> None:
    model, inputs = tiny(architecture, **more), batch()
    count = {} if num_items is None else {"num_items_in_batch": torch.tensor(num_items)}
    usual = gradients(model, inputs, **count)
    logits = model(input_ids=inputs["input_ids"]).logits
    assert attach_labelled_loss(model, {name: value[:1] for name, value in inputs.items()})
    assert_close(gradients(model, inputs, **count), usual)
    assert model(**inputs).logits is None  # nothing was computed that has no label
    torch.testing.assert_close(
        model(input_ids=inputs["input_ids"]).logits, logits
    )  # without labels it stays the model's own


def test_only_labelled_positions_reach_the_head() -> None:
    seen = []
    hidden, inputs = torch.randn(3, 12, 8), batch()

    def head(states: torch.Tensor) -> torch.Tensor:
        seen.append(len(states))
        return states.repeat(1, 12)

    labelled_loss(hidden, inputs["labels"], head)
    assert seen == [int((inputs["labels"] != MASKED).sum())] == [6]


def test_many_labels_go_through_in_pieces_with_the_same_result() -> None:
    head = torch.nn.Linear(8, 96)
    inputs, results = batch(), []
    for chunk in (None, 2):
        torch.manual_seed(2)
        hidden = torch.randn(3, 12, 8, requires_grad=True)
        loss = labelled_loss(hidden, inputs["labels"], head, chunk=chunk)
        loss.backward()
        results.append((float(loss.detach()), {"hidden": hidden.grad}))
    assert_close(results[0], results[1])


def test_a_batch_without_labels_has_no_loss_and_no_gradient() -> None:
    hidden = torch.randn(2, 5, 8, requires_grad=True)
    loss = labelled_loss(hidden, torch.full((2, 5), MASKED), torch.nn.Linear(8, 96))
    loss.backward()
    assert float(loss.detach()) == 0.0 and not hidden.grad.any()


def test_pieces_are_bounded_by_bytes() -> None:
    assert logit_chunk_rows(262_144) * 262_144 * 16 <= 2**30
    assert logit_chunk_rows(10**9) == 16


def test_a_model_whose_loss_is_more_than_cross_entropy_keeps_its_own() -> None:
    model, inputs = tiny(), batch(1)
    base = model.get_base_model()
    usual = type(base).forward

    def with_router_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = usual(self, *args, **kwargs)
        out.loss = out.loss + 1.0
        return out

    base.forward = with_router_loss.__get__(base)
    before = float(model(**inputs).loss)
    assert not attach_labelled_loss(model, inputs)
    assert float(model(**inputs).loss) == before


def test_accumulated_steps_in_trl_make_the_same_adapter(tmp_path: Path) -> None:
    """Micro-batches with different numbers of labels, two to a step: the adapter is that of
    TRL's own loss, and of one larger batch.
    """
    from datasets import Dataset
    from tiny import make_tiny_tokenizer
    from trl import SFTConfig, SFTTrainer

    inputs = batch(4)
    rows = {"input_ids": inputs["input_ids"].tolist(), "labels": inputs["labels"].tolist()}

    def trained(labelled: bool, size: int) -> tuple[float, dict[str, torch.Tensor]]:
        model = tiny()
        arguments = SFTConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
            max_steps=2,
            learning_rate=1e-2,
            optim="sgd",
            max_grad_norm=0,
            lr_scheduler_type="constant",
            use_cpu=True,
            bf16=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=1,
            max_length=None,
            packing=False,
            loss_type="nll",
            train_sampling_strategy="sequential",
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = make_labelled_trainer(SFTTrainer)(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(rows),
            processing_class=make_tiny_tokenizer(),
        )
        if labelled:
            assert attach_labelled_loss(model)
            trainer.use_labelled_loss()
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return losses[-1], {
            name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
        }

    whole = trained(True, 4)
    assert_close(trained(True, 2), whole)
    assert_close(trained(False, 2), whole)


class Placeholder:
    """As Unsloth returns for logits it did not compute: every attribute is a function."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_a_placeholder_for_logits_is_not_taken_for_states(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = tiny(), batch()
    base, seen = model.get_base_model(), []

    def usual(**more: Any) -> Any:
        seen.append(os.environ.get("UNSLOTH_RETURN_HIDDEN_STATES"))
        return SimpleNamespace(logits=Placeholder())

    labels = SimpleNamespace(device=SimpleNamespace(type="cuda"))  # the branch for Unsloth's GPU forward
    for _ in range(2):
        states = label_loss._hidden_states(
            base, usual, inputs["input_ids"], inputs["attention_mask"], labels, {}
        )
        assert states.shape == (3, 12, 32)
    assert seen == ["1"], "the switch was tried once, found to be ignored, and put back"
    assert "UNSLOTH_RETURN_HIDDEN_STATES" not in os.environ


def test_the_check_uses_the_logits_of_the_model_not_its_fused_loss() -> None:
    """Unsloth compiles its fused loss at the first call, which takes longer than the check."""
    model, inputs = tiny(), batch()
    base, fused = model.get_base_model(), []
    usual = type(base).forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("labels") is not None and os.environ.get("UNSLOTH_RETURN_LOGITS") != "1":
            fused.append(1)
        return usual(self, *args, **kwargs)

    base.forward = forward.__get__(base)
    assert attach_labelled_loss(model, {name: value[:1] for name, value in inputs.items()})
    assert not fused and "UNSLOTH_RETURN_LOGITS" not in os.environ
