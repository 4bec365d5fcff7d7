"""Which token is taken and where a text ends: as vLLM does it, whatever a row is batched with."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import make_tiny_tokenizer

from kmmlu_fast.core.schema import Completion, Generation, Request
from kmmlu_fast.engines.hf.batching import GenerationRow, generation_rows
from kmmlu_fast.engines.hf.decoding import CompletionBuilder, Sampler

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -30.0])


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tiny_tokenizer()


def sampled(seed: int | None = 0, name: str = "q", temperature: float = 1.0, **cuts: Any) -> GenerationRow:
    want = Generation(max_tokens=4, seed=seed, temperature=temperature, **cuts)
    [row] = generation_rows(Request(question_id=name, stage="s", token_ids=(1,), want=want))
    return row


def draw(rows: list[GenerationRow], logits: torch.Tensor = LOGITS) -> list[int]:
    chosen: list[int] = Sampler(rows, 0, "cpu")(None, logits.repeat(len(rows), 1)).argmax(-1).tolist()
    return chosen


def test_samples_follow_the_softmax_at_their_temperature() -> None:
    for temperature in (1.0, 0.5):
        counts = Counter(draw([sampled(seed, temperature=temperature) for seed in range(8000)]))
        for token, share in enumerate((LOGITS / temperature).softmax(-1).tolist()):
            assert counts[token] / 8000 == pytest.approx(share, abs=0.02)


def test_the_nucleus_is_the_smallest_set_that_holds_top_p() -> None:
    shares = LOGITS.softmax(-1)
    assert float(shares[0]) < 0.8 < float(shares[0] + shares[1])
    assert set(draw([sampled(seed, top_p=0.8) for seed in range(500)])) == {0, 1}
    assert set(draw([sampled(seed, top_p=0.01) for seed in range(50)])) == {0}


def test_top_k_and_min_p_leave_the_likeliest_tokens() -> None:
    shares = LOGITS.softmax(-1).tolist()
    ranked = sorted(range(len(shares)), key=lambda token: -shares[token])
    for count in (1, 2):
        assert set(draw([sampled(seed, top_k=count) for seed in range(500)])) == set(ranked[:count])
    between = (shares[ranked[1]] + shares[ranked[2]]) / 2 / shares[ranked[0]]
    assert set(draw([sampled(seed, min_p=between) for seed in range(500)])) == set(ranked[:2])
    uncut = draw([sampled(seed) for seed in range(200)])
    assert draw([sampled(seed, top_k=0, min_p=0.0) for seed in range(200)]) == uncut
    assert draw([sampled(seed, top_k=10_000) for seed in range(200)]) == uncut


def test_greedy_rows_stay_greedy_beside_sampled_ones() -> None:
    [greedy] = generation_rows(
        Request(question_id="q", stage="g", token_ids=(1,), want=Generation(max_tokens=4))
    )
    logits = torch.stack([LOGITS, LOGITS.flip(0)])
    scores = Sampler([greedy, sampled()], 0, "cpu")(None, logits.clone())
    assert torch.equal(scores[0], logits[0])


def test_a_sample_depends_on_its_seed_alone() -> None:
    wide = torch.zeros(1000)
    first = draw([sampled(5)], wide)
    assert draw([sampled(9), sampled(5), sampled(7)], wide)[1:2] == first
    assert draw([sampled(6)], wide) != first
    assert draw([replace(sampled(5), sample=1)], wide) == draw(
        [sampled(6)], wide
    )  # the second sample, as in vLLM
    without = [sampled(None, "one"), sampled(None, "two")]
    assert draw(without, wide) == draw(without, wide)
    assert len(set(draw(without, wide))) == 2


def write(
    tokenizer: Any, text: str, room: int = 1000, **settings: object
) -> tuple[Completion, CompletionBuilder]:
    want = Generation(**({"max_tokens": 1000} | settings))  # type: ignore[arg-type]
    [row] = generation_rows(Request(question_id="q", stage="g", token_ids=(70, 71), want=want))
    writer = CompletionBuilder(row, tokenizer, frozenset({2, 4}), room)
    for token in tokenizer(text)["input_ids"]:
        writer.add(token)
    return writer.completion(), writer


def test_a_text_ends_at_the_first_stop_string(tokenizer: Any) -> None:
    text = "Because two.\nAnswer: B. And more"
    completion, writer = write(tokenizer, text, stop=("more", "B."))
    assert completion.text == "Because two.\nAnswer: " and completion.finish_reason == writer.reason == "stop"
    assert len(completion.token_ids) == len(tokenizer("Because two.\nAnswer: B.")["input_ids"])
    kept, _ = write(tokenizer, text, stop=("more", "B."), include_stop=True)
    assert kept.text == "Because two.\nAnswer: B." and kept.token_ids == completion.token_ids


def test_a_text_ends_at_a_stop_token_of_its_own(tokenizer: Any) -> None:
    b = tokenizer("b")["input_ids"][0]
    completion, writer = write(tokenizer, "abc", stop_ids=(b,))
    assert completion.text == "a" and completion.token_ids[-1] == b and writer.reason == "stop"
    assert write(tokenizer, "abc")[0].text == "abc"


def test_a_stop_string_over_several_tokens_and_characters_of_several_bytes(tokenizer: Any) -> None:
    completion, _ = write(tokenizer, "답은 셋입니다", stop=("셋입",))
    assert completion.text == "답은 " and completion.finish_reason == "stop"


def test_the_first_of_two_stop_strings_to_be_complete_counts(tokenizer: Any) -> None:
    assert write(tokenizer, "abcd", stop=("abcd", "bc"))[0].text == "a"


def test_end_tokens_end_a_text_and_are_not_in_it(tokenizer: Any) -> None:
    completion, _ = write(tokenizer, "yes<|im_end|>no")
    assert completion.text == "yes" and completion.finish_reason == "stop" and completion.token_ids[-1] == 4


def test_a_text_without_an_end_is_of_its_length(tokenizer: Any) -> None:
    completion, _ = write(tokenizer, "abcdef", max_tokens=3)
    assert (completion.text, len(completion.token_ids), completion.finish_reason) == ("abc", 3, "length")
    short, _ = write(tokenizer, "abcdef", room=2)  # the context is full
    assert (short.text, short.finish_reason) == ("ab", "length")


def test_half_a_character_at_the_end_is_not_shown(tokenizer: Any) -> None:
    ids = tokenizer("가나")["input_ids"]
    [row] = generation_rows(
        Request(question_id="q", stage="g", token_ids=(70,), want=Generation(max_tokens=len(ids) - 1))
    )
    writer = CompletionBuilder(row, tokenizer, frozenset(), 100)
    for token in ids[:-1]:
        writer.add(token)
    assert writer.completion().text == "가" and writer.reason == "length"


def test_special_tokens_stand_in_the_text_if_asked(tokenizer: Any) -> None:
    pad = tokenizer.pad_token_id
    texts = {}
    for keep in (False, True):
        want = Generation(max_tokens=3, keep_special=keep)
        [row] = generation_rows(Request(question_id="q", stage="g", token_ids=(70,), want=want))
        builder = CompletionBuilder(row, tokenizer, frozenset(), room=9)
        for token in (80, pad, 81):
            builder.add(token)
        texts[keep] = builder.completion().text
    assert texts[True] == tokenizer.decode([80]) + "<|pad|>" + tokenizer.decode([81])
    assert texts[False] == texts[True].replace("<|pad|>", "")
