"""Counters of an engine: each kind of request counted by what an engine really makes for it."""

from __future__ import annotations

from kmmlu_fast.core.schema import Candidates, Completion, Continuation, Generation, Request, Response
from kmmlu_fast.engines.counters import Counters, cache_hit_rate, stats_between


def test_each_kind_of_request_is_counted_by_the_tokens_that_it_takes() -> None:
    counters = Counters()
    prompt = tuple(range(10))
    texts = (Completion("ab", (1, 2), "stop"), Completion("c", (3,), "length"))
    counters.add(
        Response(
            Request(question_id="q", stage="letters", token_ids=prompt, want=Candidates((1, 2))),
            (-1.0, -2.0),
            cached_tokens=6,
        )
    )
    counters.add(
        Response(Request(question_id="q", stage="whole", token_ids=prompt, want=Continuation(2)), (-1.0,))
    )
    counters.add(
        Response(
            Request(
                question_id="q",
                stage="reason",
                token_ids=prompt,
                want=Generation(max_tokens=8, num_samples=2),
            ),
            completions=texts,
        )
    )
    assert counters.counts() == {
        "requests": 3,
        "prompt_tokens": 30,
        "cached_tokens": 6,
        "output_tokens": 1 + 0 + 3,
    }
    assert counters.stats()["prefix_cache_hit_rate"] == cache_hit_rate(30, 6) == 0.2
    counters.add(
        Response(Request(question_id="q", stage="again", token_ids=prompt, want=Continuation(2)), (-1.0,)),
        output_tokens=5,
    )
    assert counters.output_tokens == 9


def test_nothing_asked_is_no_hit_rate_of_its_own() -> None:
    assert cache_hit_rate(0, 0) == 0.0


def test_what_happened_between_two_moments() -> None:
    before = {"engine": "vllm", "requests": 2, "prompt_tokens": 20, "cached_tokens": 0, "start_sec": 1.5}
    after = {**before, "requests": 6, "prompt_tokens": 60, "cached_tokens": 30, "prefix_cache_hit_rate": 0.5}
    stats = stats_between(before, after)
    assert (stats["requests"], stats["prompt_tokens"], stats["cached_tokens"]) == (4, 40, 30)
    assert stats["prefix_cache_hit_rate"] == 0.75 and stats["start_sec"] == 1.5
