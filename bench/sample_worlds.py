"""Do avg@k's intervals hold, and does stopping a settled vote cost accuracy? Simulated questions with known
probabilities.

In: a seed, a number of questions, of samples, of repetitions. Out: coverage by source of variance and world;
samples drawn and accuracy by stopping rule; for ``bench.soundness``. No model, no data set.

A question's p is the probability that one sample is right; a wrong sample gives one of three other letters,
the first of them (a popular mistake) with probability 0.6.

    even      p uniform on 0 to 1
    spread    p at either end more often (beta 1/2, 1/2)
    sure      three of five questions at .97, the others at .05: what a model knows it nearly always says
    easy      p near 1 (beta 8, 1)
    hard      p near 0 (beta 1, 6)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kmmlu_fast.analysis.sample_variance import estimate_sampled_accuracy
from kmmlu_fast.prompting.vote_stopping import VoteStopping, count_samples_drawn, majority_vote

Floats = NDArray[np.float64]
MISTAKES = (0.6, 0.2, 0.2)  # of the wrong letters
SAMPLE_WORLDS = ("even", "spread", "sure", "easy", "hard")
WORLD_MEANS = {"even": 0.5, "spread": 0.5, "sure": 0.6 * 0.97 + 0.4 * 0.05, "easy": 8 / 9, "hard": 1 / 7}


def draw_chances(world: str, n: int, random: np.random.Generator) -> Floats:
    """p of n questions."""
    if world == "even":
        return random.random(n)
    if world == "sure":
        return np.where(random.random(n) < 0.6, 0.97, 0.05)
    a, b = {"spread": (0.5, 0.5), "easy": (8.0, 1.0), "hard": (1.0, 6.0)}[world]
    return np.asarray(random.beta(a, b, n))


def measure_coverage(world: str, n: int, samples: int, seed: int, number: int) -> tuple[float, float]:
    """Shares of ``number`` runs whose interval holds the truth: of other questions, of the same questions."""
    random = np.random.default_rng([seed, n, samples, *world.encode()])
    other = same = 0
    for _ in range(number):
        chances = draw_chances(world, n, random)
        found = estimate_sampled_accuracy(random.binomial(samples, chances).astype(np.int64), samples)
        other += found.low <= WORLD_MEANS[world] <= found.high
        if found.sampling_low is not None and found.sampling_high is not None:
            same += found.sampling_low <= float(chances.mean()) <= found.sampling_high
    return other / number, same / number


def measure_stopping(
    world: str, n: int, samples: int, rule: VoteStopping, seed: int
) -> tuple[float, float, float]:
    """Share of the samples that is drawn, and the vote's accuracy with all samples and with these."""
    random = np.random.default_rng([seed, n, samples, 3, *world.encode()])
    drawn = whole = stopped = 0
    for chance in draw_chances(world, n, random):
        shares = [chance, *((1 - chance) * share for share in MISTAKES)]
        letters = list(random.choice(list("ABCD"), size=samples, p=shares))
        count = count_samples_drawn(letters, rule)
        drawn += count
        whole += majority_vote(letters, None)[0] == "A"
        stopped += majority_vote(letters[:count], None)[0] == "A"
    return drawn / (n * samples), whole / n, stopped / n
