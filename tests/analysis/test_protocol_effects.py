"""One model under several protocols: which factor differs, and the effect of one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from made_forms import form_run

from kmmlu_fast.analysis.protocol_effects import compare_protocols, find_factors, group_by_state
from kmmlu_fast.runs.run import Run

KEY = ["A", "B"] * 60
SPACED = [[0.03, 0.01, 0.0, 0.0]] * 120  # always A
BARE = [[0.7, 0.1, 0.0, 0.0], [0.1, 0.7, 0.0, 0.0]] * 60  # always right


def asked(scored: str = "lm-eval", **facts: Any) -> Run:
    known = {"model": "m", "model_digest": "d", "template_digest": "t", "num_fewshot": 0, "decoding": {}}
    return form_run("r", KEY, SPACED, BARE, scored, **{**known, **facts})


BARE_RUN = asked("bare", decoding={"letter_form": "bare"})


@pytest.mark.parametrize(
    ("other", "factors"),
    [
        (asked(), ()),
        (BARE_RUN, ("form",)),
        (asked(num_fewshot=5), ("shots",)),
        (asked(template_digest="u", prompt_style="qa"), ("wording",)),
        (asked("bare", prompt_style="chat", template_digest="u"), ("wording", "form")),
        (asked(output_type="generate_until", decoding={"temperature": 0.5, "answer_rule": "x"}), ("output",)),
        (asked(dtype="float32"), ("setting",)),
    ],
)
def test_factors_are_named(other: Run, factors: tuple[str, ...]) -> None:
    assert find_factors(asked(), other) == factors == find_factors(other, asked())


def test_sampling_and_answer_rule_differ_between_texts() -> None:
    greedy = asked(output_type="generate_until", decoding={"temperature": 0.0})
    drawn = asked(output_type="generate_until", decoding={"temperature": 0.5, "answer_rule": "x"})
    assert find_factors(greedy, drawn) == ("answer_rule", "sampling")


def test_each_protocol_is_compared_with_the_nearest_earlier_one() -> None:
    chat = asked("bare", prompt_style="chat", template_digest="u")
    rows = compare_protocols([asked(), BARE_RUN, chat], ["lm-eval", "bare", "chat"])
    assert rows[0].change is None and (rows[0].micro, rows[1].micro) == (0.5, 1.0)
    assert rows[1].reference == "lm-eval" and rows[1].factors == ("form",) and rows[1].significant
    assert rows[1].change is not None and rows[1].change.difference == 0.5
    # its form is the bare one too: only the wording is left
    assert rows[2].reference == "bare" and rows[2].factors == ("wording",) and not rows[2].significant
    assert rows[0].forms is not None and rows[0].forms.scored_mass == pytest.approx(0.04)


def test_only_states_with_several_protocols_are_grouped() -> None:
    lora = asked(adapter_digest="a")
    assert group_by_state([asked(), lora]) == []
    assert group_by_state([asked(), lora, asked()]) == []  # twice the same
    first = asked()
    assert group_by_state([first, lora, BARE_RUN]) == [[first, BARE_RUN]]
    assert group_by_state([replace(first, facts={})]) == []
