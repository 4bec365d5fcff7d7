"""Measuring the held-out rows: no more memory than a training step, and on the device where the
logits are.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.training import measure as measuring
from kmmlu_fast.training.encoded import EncodedRow
from kmmlu_fast.training.measure import measure_held_out

torch = pytest.importorskip("torch")
LETTERS = [[10], [11], [12], [13]]


class Base(torch.nn.Module):  # type: ignore[name-defined]
    """A causal language model of one running sum. Its input embeddings are not where it
    computes, as Unsloth has it on small cards.
    """

    base_model_prefix = "model"

    def __init__(self, embeddings_on: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed_tokens = torch.nn.Parameter(torch.zeros(20, 8, device=embeddings_on))
        self.table = torch.randn(20, 8, generator=generator)
        self.lm_head = torch.nn.Linear(8, 20, bias=False)
        with torch.no_grad():
            self.lm_head.weight.copy_(torch.randn(20, 8, generator=generator))
        self.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(final_logit_softcapping=None))
        self.passes: list[tuple[int, int]] = []

    def model(self, input_ids: Any, use_cache: bool) -> Any:
        self.passes.append(tuple(input_ids.shape))
        return (self.table[input_ids].cumsum(dim=1),)

    def get_output_embeddings(self) -> Any:
        return self.lm_head

    def get_base_model(self) -> Any:
        return self


def rows() -> list[EncodedRow]:
    draw = torch.Generator().manual_seed(1)
    made = []
    for i in range(12):
        tokens = tuple(torch.randint(0, 20, (6 + i,), generator=draw).tolist())
        made.append(
            EncodedRow(
                question_id=f"row-{i}", answer="ABCD"[i % 4], input_ids=tokens, prompt_tokens=3 + i % 3
            )
        )
    return made


def test_pieces_and_small_passes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoded = Base("cpu"), rows()
    whole = measure_held_out(model, encoded, encoded, LETTERS, 1)
    one_pass = len(model.passes)
    monkeypatch.setattr(measuring, "LOGIT_ROWS", 2)
    model.passes.clear()
    small = measure_held_out(model, encoded, encoded, LETTERS, 1, pass_tokens=40)
    assert one_pass == 1 and all(count * length <= 40 for count, length in model.passes)
    assert small.loss == pytest.approx(whole.loss, abs=1e-6)
    assert (small.accuracy, small.letter_share) == (whole.accuracy, whole.letter_share)
    letters_alone = [
        EncodedRow(
            question_id=row.question_id,
            answer=row.answer,
            input_ids=row.input_ids[: row.prompt_tokens + 1],
            prompt_tokens=row.prompt_tokens,
        )
        for row in encoded
    ]
    assert measure_held_out(model, encoded, letters_alone, LETTERS, 1).accuracy == whole.accuracy


def test_the_loss_is_the_mean_over_response_tokens_by_hand() -> None:
    model, [row, *_] = Base("cpu"), rows()
    states = model.table[torch.tensor(row.input_ids)].cumsum(dim=0)
    logprobs = model.lm_head(states).log_softmax(-1).detach()
    places = range(row.prompt_tokens, len(row.input_ids))
    by_hand = -sum(float(logprobs[i - 1, row.input_ids[i]]) for i in places) / len(places)
    assert measure_held_out(model, [row], [row], LETTERS, 0).loss == pytest.approx(by_hand, abs=1e-5)


def test_embeddings_kept_on_the_host_do_not_take_the_rows_there() -> None:
    model = Base("meta")
    assert next(model.parameters()).device.type == "meta"
    assert measure_held_out(model, rows(), rows(), LETTERS, 0).num_rows == 12


def test_the_mass_on_the_letters_is_measured_if_they_are_one_token_each() -> None:
    model, encoded = Base("cpu"), rows()
    found = measure_held_out(model, encoded, encoded, LETTERS, 1)
    expected = []
    for row in encoded:
        hidden = model.table[list(row.input_ids)].cumsum(dim=0)[row.prompt_tokens - 1]
        shares = (hidden @ model.lm_head.weight.T).softmax(-1).detach()
        expected.append(float(sum(shares[ids[0]] for ids in LETTERS)))
    assert found.letter_mass == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    longer = [[19, ids[0]] for ids in LETTERS]
    assert measure_held_out(model, encoded, encoded, longer, 1).letter_mass is None
