"""Planted cases, a to i: what was done to the second run is known, so the sentence that must follow is
known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_runs import loaded

from kmmlu_fast.analysis.comparison import PairComparison, compare_pair
from kmmlu_fast.analysis.headline_comparison import ComparisonSettings
from kmmlu_fast.core.schema import LETTERS, LOGPROB_COLUMNS
from kmmlu_fast.data.subjects import SUBJECTS
from kmmlu_fast.reporting.wording.language import get_translator
from kmmlu_fast.reporting.wording.verdict import verdict_lines
from kmmlu_fast.runs.run import Run, fill_prediction_columns

KEY = (0.1, 0.3, 0.3, 0.3)
EVEN, RARELY_A, ONLY_A = (0.25,) * 4, (0.04, 0.32, 0.32, 0.32), (0.85, 0.05, 0.05, 0.05)


def run(
    name: str, key: np.ndarray, letters: np.ndarray, logprobs: np.ndarray | None = None, **facts: object
) -> Run:
    """Letters (0-3, -1 unparsed) over invented questions of three subjects as a run."""
    subjects = np.array(["Law", "Math", "Patent"])[np.arange(len(key)) % 3]
    predicted = pl.Series([None if code < 0 else LETTERS[code] for code in letters], dtype=pl.String)
    frame = pl.DataFrame(
        {"subject": subjects, "answer": [LETTERS[code] for code in key], "prediction": predicted}
    ).with_row_index("row")
    groups = {name: subject.supercategory for name, subject in SUBJECTS.items()}
    frame = frame.with_columns(
        pl.format("{}/test/{}", "subject", "row").alias("question_id"),
        pl.lit("test").alias("split"),
        pl.col("subject").replace_strict(groups).alias("supercategory"),
        (pl.col("prediction") == pl.col("answer")).fill_null(False).alias("correct"),
    )
    if logprobs is not None:
        normal = logprobs - np.log(np.exp(logprobs).sum(axis=1, keepdims=True))
        frame = frame.with_columns(pl.Series(name, normal[:, i]) for i, name in enumerate(LOGPROB_COLUMNS))
    known = {"prompt_style": "lm-eval", "model": "m", **facts}
    return loaded(name, fill_prediction_columns(frame), **known)


def mixture(
    n: int, known: tuple[float, float], habit: tuple[tuple[float, ...], ...], seed: int = 0
) -> tuple[Run, Run]:
    """Both know a share (the same questions first) and guess the rest by habit."""
    random = np.random.default_rng(seed)
    key, luck = random.choice(4, size=n, p=KEY), random.random(n)
    sides = [
        np.where(luck < k, key, random.choice(4, size=n, p=h)) for k, h in zip(known, habit, strict=True)
    ]
    return run("base", key, sides[0]), run("lora", key, sides[1])


def utility(
    n: int, strength: tuple[float, float], bias: tuple[float, float], stored: bool, seed: int = 0
) -> tuple[Run, Run]:
    """Both answer the option of the highest utility: noise, ``strength`` on the key, ``bias`` on A."""
    random = np.random.default_rng(seed)
    key, noise = random.choice(4, size=n, p=KEY), random.gumbel(size=(n, 4))
    made = []
    for name, power, shift in zip(("base", "lora"), strength, bias, strict=True):
        values = noise + 0.3 * random.normal(size=(n, 4)) + np.array([shift, 0, 0, 0])
        values[np.arange(n), key] += power
        made.append(run(name, key, values.argmax(axis=1), values if stored else None))
    return made[0], made[1]


def simpson() -> tuple[Run, Run]:
    """One large subject gains, many small ones lose."""
    rows = []
    random = np.random.default_rng(1)
    for place, subject in enumerate(SUBJECTS):
        size, first, second = (4000, 0.4, 0.5) if place == 0 else (60, 0.6, 0.5)
        luck = random.random(size)
        rows += [
            {
                "question_id": f"{subject}/test/{i}",
                "subject": subject,
                "supercategory": SUBJECTS[subject].supercategory,
                "split": "test",
                "row": i,
                "answer": "B",
                "one": "B" if luck[i] < first else "C",
                "two": "B" if luck[i] < second else "C",
            }
            for i in range(size)
        ]
    frame = pl.DataFrame(rows)
    return tuple(  # type: ignore[return-value]
        loaded(
            name,
            fill_prediction_columns(
                frame.with_columns(
                    pl.col(column).alias("prediction"), (pl.col(column) == "B").alias("correct")
                )
            ),
        )
        for name, column in (("base", "one"), ("lora", "two"))
    )


def leaked() -> tuple[Run, Run]:
    """The second run knows the first 300 questions by heart and has learned nothing else."""
    random = np.random.default_rng(2)
    key = random.choice(4, size=3000, p=KEY)
    first = np.where(random.random(3000) < 0.3, key, random.choice(4, size=3000))
    moved = np.where(
        random.random(3000) < 0.9,
        first,
        np.where(random.random(3000) < 0.3, key, random.choice(4, size=3000)),
    )
    return run("base", key, first), run("lora", key, np.where(np.arange(3000) < 300, key, moved))


def halves() -> tuple[Run, Run]:
    """The same weights in two precisions: a few answers flip either way."""
    random = np.random.default_rng(3)
    key = random.choice(4, size=20_000, p=KEY)
    first = np.where(random.random(20_000) < 0.4, key, random.choice(4, size=20_000))
    redrawn = np.where(random.random(20_000) < 0.4, key, random.choice(4, size=20_000))
    second = np.where(random.random(20_000) < 0.04, redrawn, first)
    return run("bf16", key, first, quantization="none"), run("fp8", key, second, quantization="fp8")


def tiny(n: int) -> tuple[Run, Run]:
    """All of n questions gained."""
    key = np.full(n, 3)
    return run("base", key, np.full(n, 1)), run("lora", key, key)


LEAKED = frozenset(f"{('Law', 'Math', 'Patent')[i % 3]}/test/{i}" for i in range(300))
Pair = Callable[[], tuple[Run, Run]]
CASES: dict[str, tuple[Pair, list[str], list[str]]] = {
    "a letter prior by mixture": (
        lambda: mixture(9000, (0.4, 0.4), (ONLY_A, RARELY_A)),
        ["lora is better than base"],
        ["Letter habit does not explain", "hides a loss"],
    ),
    "b letter prior by random utility, letters only": (
        lambda: utility(9000, (1.0, 1.0), (2.5, -0.5), stored=False),
        ["lora is better than base", "which letters alone cannot tell apart"],
        ["Letter habit does not explain", "hides a loss"],
    ),
    "b letter prior by random utility, log-probabilities": (
        lambda: utility(9000, (1.0, 1.0), (2.5, -0.5), stored=True),
        [
            "lora is better than base",
            "Letter habit can explain the change: no change beyond it is shown.",
        ],
        ["not knowledge"],
    ),
    "c letters shift with real gain": (
        lambda: utility(9000, (0.5, 1.5), (1.5, -0.5), stored=True),
        ["lora is better than base", "Letter habit is a significant part of the change."],
        ["no change beyond it is shown"],
    ),
    "d knowledge lost while habit is mended": (
        lambda: mixture(20_000, (0.45, 0.42), (ONLY_A, RARELY_A)),
        ["lora is better than base", "Without letter habit, accuracy got worse by"],
        ["no change beyond it is shown", "nothing significant remains"],
    ),
    "e Simpson": (simpson, ["opposite directions from base to lora"], ["is better than", "is worse than"]),
    "f leaked-only gain": (
        leaked,
        [
            "CAUTION: the change comes from questions that overlap training data",
            "The change on questions that overlap training data differs by",
        ],
        [],
    ),
    "g fp8 against bf16": (
        halves,
        [
            "CAUTION: the runs differ in more than the model (quantization none -> fp8)",
            "equal within ±1.0 pp",
        ],
        ["is better than", "is worse than"],
    ),
    "h one question": (
        lambda: tiny(1),
        ["No significant difference", "Undecided", "too few to show"],
        ["is better than", "hardly reads"],
    ),
    "i eight questions": (
        lambda: tiny(8),
        ["8 questions are too few to tell letter habit from the rest"],
        ["letter prior", "nats"],
    ),
}


def compared(name: str) -> PairComparison:
    settings = ComparisonSettings(overlap=LEAKED if name.startswith("f") else frozenset())
    return compare_pair(*CASES[name][0](), settings)


@pytest.mark.parametrize("name", CASES)
def test_the_planted_case_gives_its_sentence(name: str) -> None:
    _, wanted, unwanted = CASES[name]
    pair = compared(name)
    lines = verdict_lines(pair, get_translator("en"))
    for text in wanted:
        assert any(text in line for line in lines), (text, lines)
    for text in unwanted:
        assert not any(text in line for line in lines), (text, lines)
    assert len(verdict_lines(pair, get_translator("ko"))) == len(lines)


def test_cautions_come_before_the_headline() -> None:
    lines = verdict_lines(compared("f leaked-only gain"), get_translator("en"))
    assert (
        lines[0].startswith("CAUTION")
        and next(i for i, line in enumerate(lines) if "is better than" in line) == 1
    )


@pytest.mark.parametrize(
    ("prior", "rest", "significant", "said"),
    [
        ((-0.01, -0.012, -0.008), (0.02, 0.01, 0.03), False, "hidden"),
        ((-0.0064, -0.009, -0.003), (-0.0602, -0.08, -0.04), False, None),  # one direction: nothing is hidden
    ],
)
def test_hidden_needs_opposite_signs(
    prior: tuple[float, ...], rest: tuple[float, ...], significant: bool, said: str | None
) -> None:
    from kmmlu_fast.analysis.letter_bias.letter_prior import HabitSplit
    from kmmlu_fast.analysis.strata import IntervalEstimate
    from kmmlu_fast.reporting.wording.letter_habit import classify_letter_prior

    pair = compared("g fp8 against bf16")
    split = HabitSplit("logprobs", IntervalEstimate(*prior), IntervalEstimate(*rest))
    assert (
        not pair.significant
        and classify_letter_prior(
            replace(pair, letters=replace(pair.letters, splits=(split,), by_subject=None))
        )
        == said
    )
