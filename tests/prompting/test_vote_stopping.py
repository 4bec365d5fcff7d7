"""A vote stops only where the rule says so: the exact rule changes none, the likely one few."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from bench.sample_worlds import SAMPLE_WORLDS, measure_stopping
from kmmlu_fast.prompting.vote_stopping import (
    VoteStopping,
    change_probability,
    count_samples_drawn,
    count_samples_to_draw,
    first_round,
    majority_vote,
)


@pytest.mark.parametrize("total", [3, 4, 5, 6])
def test_the_exact_rule_changes_no_vote_whatever_comes(total: int) -> None:
    for letters in itertools.product("ABC", repeat=total):
        drawn = count_samples_drawn(letters, "exact")
        assert majority_vote(letters[:drawn], None)[0] == majority_vote(letters, None)[0]
        if drawn < total:  # and it is settled: not even if all others agreed on another letter
            leader = majority_vote(letters[:drawn], None)[0]
            for other in {"A", "B", "C", "D"} - {leader}:
                assert majority_vote([*letters[:drawn], *other * (total - drawn)], None)[0] == leader


@pytest.mark.parametrize("rule", ["exact", "likely"])
def test_no_sample_is_drawn_that_a_vote_could_have_spared(rule: VoteStopping) -> None:
    for letters in itertools.product("AB", repeat=6):
        places = [n for n in range(7) if count_samples_to_draw(letters[:n], 6, rule) == 0]
        assert count_samples_drawn(letters, rule) == places[0]


def test_rounds_and_the_rule_that_draws_all() -> None:
    assert [first_round(8, rule) for rule in ("none", "exact", "likely")] == [8, 5, 3]
    assert count_samples_to_draw("AAAA", 8, "none") == 4
    assert count_samples_to_draw("AABB", 4, "exact") == 0  # nothing is left to draw
    assert count_samples_to_draw("AAABB", 8, "exact") == 2
    assert count_samples_to_draw((None, None, None), 3, "likely") == 0


@pytest.mark.parametrize(("leader", "second", "remaining"), [(3, 0, 5), (5, 2, 9), (1, 0, 7), (4, 4, 3)])
def test_the_probability_of_a_change_is_the_simulated_one(leader: int, second: int, remaining: int) -> None:
    random = np.random.default_rng(4)
    share = random.beta(1 + leader, 1 + second, 200_000)
    more = random.binomial(remaining, share)
    simulated = float((second + remaining - more >= leader + more).mean())
    assert math.isclose(change_probability(leader, second, remaining), simulated, abs_tol=0.005)


@pytest.mark.parametrize("world", SAMPLE_WORLDS)
def test_settled_votes_are_as_right_as_all_samples(world: str) -> None:
    share, whole, stopped = measure_stopping(world, 3000, 16, "exact", 5)
    assert whole == stopped and share < 0.9
    share, whole, stopped = measure_stopping(world, 3000, 16, "likely", 5)
    assert abs(whole - stopped) < 0.005
    assert share < (0.5 if world in ("sure", "easy") else 0.75)  # half the tokens where a model is sure
