"""Batches by length and by common prefix: what goes together, within which budget."""

from __future__ import annotations

import random

import pytest

from kmmlu_fast.core.schema import Candidates, Continuation, Generation, Request
from kmmlu_fast.engines.hf.batching import (
    BatchLimits,
    ScoringBatch,
    generating_batches,
    generation_rows,
    scoring_batches,
)

LIMITS = BatchLimits(tokens=200, rows=8, cached_tokens=400)


def letters(name: str, *token_ids: int) -> Request:
    return Request(question_id=name, stage="letters", token_ids=token_ids, want=Candidates((1, 2, 3, 4)))


def asked(prefix_tokens: int, questions: int = 10, seed: int = 0) -> list[Request]:
    """Questions of 5 to 30 tokens behind a common prefix; their first tokens differ."""
    draw = random.Random(seed)
    prefix = [draw.randrange(100) for _ in range(prefix_tokens)]
    tails = [
        [1000 * seed + row, *(draw.randrange(100) for _ in range(draw.randrange(4, 30)))]
        for row in range(questions)
    ]
    return [letters(f"{seed}/{row}", *prefix, *tail) for row, tail in enumerate(tails)]


def padded(batch: ScoringBatch) -> int:
    return len(batch.requests) * batch.longest_suffix_tokens


@pytest.mark.parametrize("least", [None, 0, 100])
def test_every_request_once_and_within_the_budget(least: int | None) -> None:
    requests = [*asked(50, seed=1), *asked(0, seed=2), *asked(90, 1, seed=3)]
    random.Random(4).shuffle(requests)
    batches = list(scoring_batches(requests, LIMITS, least))
    assert sorted(r.question_id for b in batches for r in b.requests) == sorted(
        r.question_id for r in requests
    )
    assert all(len(batch.requests) <= LIMITS.rows for batch in batches)
    assert all(padded(batch) <= LIMITS.tokens or len(batch.requests) == 1 for batch in batches)


def test_rows_of_a_batch_are_of_like_length() -> None:
    batches = list(scoring_batches(asked(0, 60), LIMITS, None))
    lengths = [[len(request.token_ids) for request in batch.requests] for batch in batches]
    assert [n for row in lengths for n in row] == sorted(n for row in lengths for n in row)


def test_a_common_prefix_is_shared_where_it_saves_enough() -> None:
    few_shot, other = asked(50, seed=1), asked(0, seed=2)
    batches = list(scoring_batches([*few_shot, *other], LIMITS, 100))
    shared = [batch for batch in batches if batch.shared_tokens]
    assert {batch.shared_tokens for batch in shared} == {50}
    assert {r.question_id[0] for batch in shared for r in batch.requests} == {"1"}
    assert all(
        request.token_ids[:50] == batch.shared_prefix for batch in shared for request in batch.requests
    )
    assert not any(
        batch.shared_tokens for batch in scoring_batches(few_shot, LIMITS, 451)
    )  # 9 x 50 would be saved
    assert not any(batch.shared_tokens for batch in scoring_batches(few_shot, LIMITS, None))


def test_two_subjects_are_two_groups() -> None:
    batches = list(scoring_batches([*asked(50, seed=1), *asked(40, seed=2)], LIMITS, 100))
    assert {batch.shared_tokens for batch in batches} == {50, 40}
    for batch in batches:
        assert len({request.question_id[0] for request in batch.requests}) == 1


def test_the_prefix_leaves_what_is_read() -> None:
    alike = [letters(str(i), *range(60)) for i in range(4)]  # the same question four times
    [batch] = scoring_batches(alike, LIMITS, 0)
    assert batch.shared_tokens == 59 and batch.longest_suffix_tokens == 1
    continued = [
        Request(question_id=str(i), stage="c", token_ids=(*range(50), 7, 8, i), want=Continuation(3))
        for i in range(4)
    ]
    [batch] = scoring_batches(continued, LIMITS, 0)
    assert batch.shared_tokens == 49  # the token before the first one that is scored is computed again


def test_generation_counts_prompt_and_output() -> None:
    rows = [
        row
        for i in range(6)
        for row in generation_rows(
            Request(
                question_id=str(i),
                stage="g",
                token_ids=tuple(range(10 + i)),
                want=Generation(max_tokens=30, num_samples=2),
            )
        )
    ]
    batches = list(generating_batches(rows, LIMITS))
    assert sorted((row.request.question_id, row.sample) for b in batches for row in b) == sorted(
        (row.request.question_id, row.sample) for row in rows
    )
    for batch in batches:
        assert (
            len(batch) <= LIMITS.rows
            and len(batch) * max(row.tokens for row in batch) <= LIMITS.cached_tokens
        )


def test_limits_shrink_to_half_of_what_did_not_fit() -> None:
    less = BatchLimits(16384, 256, 65536).after_out_of_memory(rows=100, tokens_per_row=100)
    assert less == BatchLimits(5000, 50, 5000)
    assert less.after_out_of_memory(1, 100) == BatchLimits(50, 1, 50)
