"""How often ``verify`` accepts honest bundles, and rejects tampered ones, at ``--sample`` questions.

    python -m bench.verification RUN RUN           two runs of the same questions, such as bfloat16 and float32
    python -m bench.verification                   without runs: margins as weak, middling and strong models have them

In: log-probabilities of the same questions from two kinds of arithmetic. Out: per world, honest bundles accepted
(both directions: published by one kind, re-scored by the other), and tampered bundles rejected: 1 % of the
answers made right, their log-probabilities exchanged to match. Bundles are drawn from the questions with
replacement. Knows nothing of engines: nothing is asked here.
"""  # noqa: E501

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from bench.common import BenchConfig, finish, note, table
from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.command.run import run_main
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.core.schema import LOGPROB_COLUMNS, OPTION_LETTERS
from kmmlu_fast.runs.store import load_run_directory
from kmmlu_fast.shipping.verification import verify_sample

POWER = 0.85  # wanted of tampered bundles
_MARGINS = {"weak": 0.4, "middling": 1.5, "strong": 4.0}  # spread of letters' log-probabilities, nats
_STEP = 0.0625  # of a bfloat16 logit between 8 and 16
_NOISE = 0.03  # nats, of what was summed up in bfloat16 before
_MADE = 4000  # questions of a made world
_PROGRESS = 200  # bundles


class VerificationConfig(BenchConfig):
    """python -m bench.verification: honest bundles accepted, tampered ones rejected."""

    positional: ClassVar[str | None] = "runs"

    runs: list[Path] = Field([], description="two run directories of the same questions")
    bundles: PositiveInt = Field(1000, description="bundles of each kind")
    questions: PositiveInt = Field(4000, description="questions of a bundle")
    sample: PositiveInt = Field(400, description="questions that are re-scored")
    tampered: float = Field(0.01, gt=0, lt=1, description="share of a tampered bundle's answers")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The same questions' log-probabilities (A first) by two kinds of arithmetic, and the keys' places."""

    name: str
    one: Any
    other: Any
    keys: Any


def make_world(name: str, spread: float, seed: int) -> World:
    """Letters as a model of this certainty has them: float32, and bfloat16 of the same weights."""
    draw = np.random.default_rng(seed)
    exact = draw.normal(-2, spread, (_MADE, 4))
    coarse = np.round((exact + draw.normal(0, _NOISE, exact.shape)) / _STEP) * _STEP
    return World(name=name, one=exact, other=coarse, keys=draw.integers(0, 4, _MADE))


def read_world(paths: Sequence[Path]) -> World:
    """Two runs of the same questions."""
    if len(paths) != 2:
        raise ConfigError(f"give two run directories of the same questions, or none; given are {len(paths)}")
    frames = [load_run_directory(path).predictions for path in paths]
    if any(frame is None for frame in frames):
        raise ConfigError(f"{' and '.join(map(str, paths))}: both runs must be finished")
    one, other = (frame.sort("question_id") for frame in frames if frame is not None)
    if one["question_id"].to_list() != other["question_id"].to_list():
        raise ConfigError(f"{paths[0]} and {paths[1]} asked different questions")
    rows = [frame.select(LOGPROB_COLUMNS).to_numpy() for frame in (one, other)]
    keys = np.array([OPTION_LETTERS.index(answer) for answer in one["answer"]])
    return World(name="two runs", one=rows[0], other=rows[1], keys=keys)


def tamper(rows: Any, keys: Any, count: int, draw: np.random.Generator) -> Any:
    """``count`` wrong answers made right: the best letter's log-probability and the key's change places."""
    changed = rows.copy()
    wrong = np.flatnonzero(rows.argmax(1) != keys)
    chosen = draw.choice(wrong, min(count, len(wrong)), replace=False)
    best = rows[chosen].argmax(1)
    changed[chosen, best], changed[chosen, keys[chosen]] = (
        rows[chosen, keys[chosen]],
        rows[chosen, best],
    )
    return changed


def simulate(world: World, config: VerificationConfig, seed: int = 0) -> dict[str, Any]:
    """Honest bundles accepted, and tampered ones rejected, of ``config.bundles`` each."""
    draw = np.random.default_rng(seed)
    accepted = rejected = 0
    for number in range(config.bundles):
        places = draw.integers(0, len(world.keys), config.questions)
        published, elsewhere = (world.one, world.other) if number % 2 else (world.other, world.one)
        published, elsewhere, keys = published[places], elsewhere[places], world.keys[places]
        count = round(config.tampered * config.questions)
        changed = tamper(published, keys, count, draw)
        sample = draw.choice(config.questions, min(config.sample, config.questions), replace=False)
        again, right = elsewhere[sample].tolist(), keys[sample].tolist()
        accepted += verify_sample(published[sample].tolist(), again, right).accepted
        rejected += not verify_sample(changed[sample].tolist(), again, right).accepted
        if (number + 1) % _PROGRESS == 0:
            note(
                f"{world.name}: {number + 1} bundles, {accepted} accepted, {rejected} tampered ones rejected"
            )
    ordered = np.sort(world.one, axis=1)
    return {
        "world": world.name,
        "bundles": config.bundles,
        "sample": config.sample,
        "honest_accepted": accepted,
        "tampered_rejected": rejected,
        "power": rejected / config.bundles,
        "median_margin_nats": round(float(np.median(ordered[:, -1] - ordered[:, -2])), 3),
        "letters_apart": round(float((world.one.argmax(1) != world.other.argmax(1)).mean()), 4),
    }


def main(argv: list[str] | None = None) -> int:
    """Entry point; see ``--help``."""
    return run_main(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    config = parse_config(VerificationConfig, argv, "python -m bench.verification")
    if config.runs:
        worlds = [read_world(config.runs)]
    else:
        worlds = [make_world(name, spread, seed) for seed, (name, spread) in enumerate(_MARGINS.items())]
    rows = [simulate(world, config) for world in worlds]
    right = all(row["honest_accepted"] == row["bundles"] and row["power"] >= POWER for row in rows)
    result = {"rows": rows, "tampered": config.tampered, "ok": right}
    finish("verification", config, argv, result, [table("verify, at 1 % tampering", rows)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
