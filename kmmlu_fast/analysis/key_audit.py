"""Suspected errors in the key: questions on which many models agree on the same other letter, and repeated
questions whose keys disagree.

In: runs over the same questions, the dataset's frame if known. Out: question ids (never texts), and each
run's accuracy with and without them. A suspicion, not a correction: models that agree on another letter may
share an error.

Copies are no witnesses: an adapter, a second prompt or another seed of a model repeats what that model said.
So a witness is a base model (its runs are one vote), and the models of one vendor share that vendor's vote.
How many questions chance alone would list is estimated by letting each witness keep its wrong answers and
draw their letters anew from the wrong letters it gives under that key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from kmmlu_fast.analysis.letter_bias.letter_prior import letter_codes
from kmmlu_fast.analysis.strata import Codes, Floats
from kmmlu_fast.core.schema import OPTION_LETTERS
from kmmlu_fast.runs.run import Run

MIN_RUNS = 5
MIN_VENDORS = 5
AGREEMENT = 0.8  # smallest share of the votes for the same wrong letter
FALSE_SHARE = 0.1  # raised until chance explains at most this share of the list
CONFIDENCE = 0.6  # mean confidence of the witnesses that have one
_DRAWS = 20
_VENDORS = {
    "openai": r"gpt|o[1345]-|o[1345]$|chatgpt|davinci",
    "anthropic": r"claude",
    "google": r"gemini|gemma|palm",
    "meta": r"llama",
    "microsoft": r"phi",
    "amazon": r"nova|titan",
    "alibaba": r"qwen|qwq",
    "mistral": r"mi[sx]tral|ministral|codestral",
    "lg": r"exaone",
    "upstage": r"solar",
    "naver": r"hyperclova",
    "skt": r"a\.?x-",
    "kakao": r"kanana",
    "deepseek": r"deepseek",
    "cohere": r"command|aya",
    "01.ai": r"yi-",
    "xai": r"grok",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAudit:
    """Ids by reason, and accuracy (run, all questions, without them), 0-1."""

    # (question id, key, the witnesses' letter, share of the votes), highest share first
    against_key: tuple[tuple[str, str, str, float], ...]
    conflicting: tuple[str, ...]  # repeated questions with different keys
    accuracy: tuple[tuple[str, float, float | None], ...]
    models: int = 0  # witnesses
    vendors: int = 0
    agreement: float = AGREEMENT  # share of the votes needed
    expected_by_chance: float = 0.0  # of ``against_key``, if the witnesses err independently

    @property
    def enough_witnesses(self) -> bool:
        return self.vendors >= MIN_VENDORS


def base_model_name(run: Run) -> str:
    """The base model that a run's answers come from: runs that share it are one witness."""
    known = run.facts.get("model") or run.facts.get("model_id")
    name = str(known or run.name).lower().rstrip("/")
    if known:
        return "/".join(name.split("/")[-2:])
    return re.sub(r"[-_ .]*(\d+[-_ ]?shot|cot|direct|base|lora.*|adapter.*|s\d+|seed.*)$", "", name) or name


def vendor_name(model: str) -> str:
    """Who made a model, by its family's name, else by its owner or first word."""
    own = model.rsplit("/", 1)[-1]
    for vendor, pattern in _VENDORS.items():
        if re.match(pattern, own):
            return vendor
    return model.split("/")[0] if "/" in model else re.split(r"[-_. \d]", own)[0] or own


def audit_key(runs: list[Run], questions: pl.DataFrame | None = None) -> KeyAudit | None:
    """The audit; None if fewer than MIN_RUNS runs have predictions and no repeated question conflicts."""
    answered = [run for run in runs if run.predictions is not None]
    witnesses = _gather_votes(answered)
    found = _suspects(witnesses) if witnesses is not None else None
    against = [] if found is None else found.rows
    conflicting: list[str] = []
    if questions is not None:
        from kmmlu_fast.contamination.overlap import repeated_rows

        conflicting = sorted(repeated_rows(questions)[1])
    if not against and not conflicting and len(answered) < MIN_RUNS:
        return None
    suspect = {row[0] for row in against} | set(conflicting)
    accuracy = []
    for run in answered:
        rest = run.frame.filter(~pl.col("question_id").is_in(suspect))
        without = float(rest["correct"].mean()) if len(rest) else None  # type: ignore[arg-type]
        accuracy.append((run.name, float(run.frame["correct"].mean()), without))  # type: ignore[arg-type]
    vendors = 0 if witnesses is None else len(set(witnesses.vendors))
    return KeyAudit(
        against_key=tuple(against),
        conflicting=tuple(conflicting),
        accuracy=tuple(accuracy),
        models=0 if witnesses is None else len(witnesses.vendors),
        vendors=vendors,
        agreement=AGREEMENT if found is None else found.agreement,
        expected_by_chance=0.0 if found is None else found.expected,
    )


@dataclass(frozen=True, slots=True)
class _Witnesses:
    """The models' letters (questions, models), -1 for none."""

    ids: list[str]
    key: Codes
    letters: Codes
    confidence: Floats  # (questions,) mean over those that have one, else 1
    vendors: list[str]


@dataclass(frozen=True, slots=True)
class _Suspects:
    rows: list[tuple[str, str, str, float]]
    agreement: float
    expected: float


def _gather_votes(answered: list[Run]) -> _Witnesses | None:
    """The witnesses on the questions that all of them answered; None if there are too few runs. If a model
    has several runs, its first counts.
    """
    by_model: dict[str, Run] = {}
    for run in sorted(answered, key=lambda run: bool(run.facts.get("adapter_digest"))):
        by_model.setdefault(base_model_name(run), run)
    if len(by_model) < MIN_RUNS:
        return None
    runs = list(by_model.values())
    joined = runs[0].frame.select("question_id", "answer", "prediction", "confidence")
    for place, run in enumerate(runs[1:], 1):
        other = run.frame.select("question_id", "answer", "prediction", "confidence")
        joined = joined.join(other, on=["question_id", "answer"], suffix=f"_{place}", maintain_order="left")
    names = ["prediction", *(f"prediction_{place}" for place in range(1, len(runs)))]
    letters = np.column_stack([letter_codes(joined[name], OPTION_LETTERS) for name in names])
    sure = [name.replace("prediction", "confidence") for name in names]
    confidence = joined.select(pl.mean_horizontal(sure).fill_null(1.0)).to_series().to_numpy()
    vendors = [vendor_name(name) for name in by_model]
    key = letter_codes(joined["answer"], OPTION_LETTERS)
    return _Witnesses(joined["question_id"].to_list(), key, letters, confidence, vendors)


def _vote_shares(letters: Codes, vendors: list[str]) -> Floats:
    """(questions, options) share of the votes; a vendor's vote is shared by its models."""
    count = int(letters.max(initial=0)) + 1
    names = set(vendors)
    weights = np.array([1.0 / (len(names) * vendors.count(vendor)) for vendor in vendors])
    given = letters.T >= 0
    cells = (np.arange(len(letters)) * count + letters.T)[given]
    shares = np.broadcast_to(weights[:, None], given.shape)[given]
    votes = np.bincount(cells, shares, len(letters) * count).astype(float)
    return votes.reshape(len(letters), count)


def _suspects(witnesses: _Witnesses) -> _Suspects:
    """Questions with too much agreement on another letter, at the lowest agreement that chance does not
    explain.
    """
    if len(set(witnesses.vendors)) < MIN_VENDORS or not len(witnesses.ids):
        return _Suspects([], AGREEMENT, 0.0)
    rows = np.arange(len(witnesses.key))

    def most_against(letters: Codes) -> tuple[Codes, Floats]:
        votes = _vote_shares(letters, witnesses.vendors)
        within = witnesses.key < votes.shape[1]
        votes[rows[within], witnesses.key[within]] = -1.0
        return votes.argmax(axis=1), votes.max(axis=1)

    letter, share = most_against(witnesses.letters)
    sure = witnesses.confidence >= CONFIDENCE
    random = np.random.default_rng(0)
    errors = _group_errors(witnesses)
    chance = [most_against(_redraw_errors(witnesses.letters, errors, random))[1][sure] for _ in range(_DRAWS)]
    agreement, listed, expected = AGREEMENT, sure & (share >= AGREEMENT - 1e-9), 0.0
    for agreement in np.unique(np.concatenate([[AGREEMENT], share[share > AGREEMENT]])):
        listed = sure & (share >= agreement - 1e-9)
        expected = sum(float((drawn >= agreement - 1e-9).sum()) for drawn in chance) / _DRAWS
        if expected <= FALSE_SHARE * listed.sum():
            break
    order = sorted(np.flatnonzero(listed), key=lambda place: (-share[place], witnesses.ids[place]))
    found = [
        (
            witnesses.ids[place],
            OPTION_LETTERS[witnesses.key[place]],
            OPTION_LETTERS[letter[place]],
            float(share[place]),
        )
        for place in order
    ]
    return _Suspects(found, float(agreement), expected)


def _group_errors(witnesses: _Witnesses) -> list[tuple[int, Codes]]:
    """(model, questions) of each model's wrong answers under the same key."""
    groups = []
    codes = np.unique(witnesses.key)
    for place in range(witnesses.letters.shape[1]):
        letters = witnesses.letters[:, place]
        wrong = (letters != witnesses.key) & (letters >= 0)
        groups += [(place, np.flatnonzero(wrong & (witnesses.key == code))) for code in codes]
    return groups


def _redraw_errors(letters: Codes, errors: list[tuple[int, Codes]], random: np.random.Generator) -> Codes:
    """The same wrong answers with letters drawn anew, from each model's wrong letters under the same key."""
    drawn = letters.copy()
    for place, there in errors:
        drawn[there, place] = random.permutation(drawn[there, place])
    return drawn
