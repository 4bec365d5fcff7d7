"""Questions until adapters of one finished base are decided, in the adaptive order and in the uniform one.

In: invented answers to the questions of the packaged difficulty table. Out: mean questions by the true
difference, wrong signs, decisions where there is no difference, and ten adapters at once, nine of them null.
No engine.

The base's letters have scores: skill by the question's public ease, and Gumbel noise. An adapter adds normal
noise to each letter and a shift to the key's, found by bisection so that the difference is as wanted. So
answers change where the base's margin is small. "Ignoring it": as many changes, anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.common import note, table
from kmmlu_fast.analysis.sequential import betting
from kmmlu_fast.analysis.sequential.adaptive_order import begin_adaptive_order, redraw_remaining
from kmmlu_fast.analysis.sequential.control_variate import AnswerStream
from kmmlu_fast.analysis.sequential.question_order import (
    OrderedAnswers,
    QuestionOrder,
    stream_of_answers,
)
from kmmlu_fast.analysis.sequential.sampling_weights import list_look_places, list_redraw_places
from kmmlu_fast.analysis.sequential.several import decide_by_holm
from kmmlu_fast.data.difficulty import TABLE

Rights = NDArray[np.bool_]
# share of answers that change, about -> standard deviation of a letter's noise, nats
DISCORDANCE_NOISE = {0.05: 0.25, 0.08: 0.42, 0.12: 0.62}
DIFFERENCES = (0.005, 0.01, 0.02)
TARGETS = {"0.5": 7600, "1": 3100, "2": 1150}  # mean questions at most, by pp
MOST_PASSES = 1.6  # of the exam, for ten adapters, nine of them null
_KEY_SHARES = (0.2, 0.24, 0.27, 0.29)
_PREFIXES = (1500, 6000)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One adapter's, at one level."""

    verdict: str
    at: int | None  # the question that decided
    asked: int = 0


class Base:
    """An invented base on the exam's questions, finished."""

    def __init__(self, draw: np.random.Generator) -> None:
        table = pl.read_parquet(TABLE)
        self.ids, self.ease = table["question_id"].to_list(), table["ease"].to_numpy()
        self.total = len(self.ids)
        self.key = draw.choice(4, self.total, p=_KEY_SHARES)
        share = np.clip(self.ease, 0.03, 0.97)
        skill = 0.7 + np.log(share / (1 - share)) + draw.normal(0, 1, self.total)
        self.scores = draw.gumbel(0, 1, (self.total, 4))
        self.scores[np.arange(self.total), self.key] += skill
        self.right = self._right(self.scores)
        ranked = np.sort(self.scores, axis=1)
        self.margin = ranked[:, 3] - ranked[:, 2]
        self._draw = draw

    def _right(self, scores: NDArray[np.float64]) -> Rights:
        return np.asarray(scores.argmax(axis=1) == self.key)

    def adapter(self, noise: float, difference: float) -> Rights:
        """An adapter's answers; a difference of 0 is 0 to the question."""
        scores = self.scores + self._draw.normal(0, noise, self.scores.shape)
        hot = np.arange(4) == self.key[:, None]
        low, high = -3.0, 3.0
        for _ in range(25):
            middle = (low + high) / 2
            gain = self._right(scores + middle * hot).mean() - self.right.mean()
            low, high = (middle, high) if gain < difference else (low, middle)
        right = self._right(scores + high * hot)
        return self._level(right) if difference == 0 else right

    def ignoring_margin(self, discordance: float, difference: float) -> Rights:
        """As many changed answers, anywhere."""
        right, changed = self.right.copy(), round(discordance * self.total)
        gained = round((changed + difference * self.total) / 2)
        right[self._draw.choice(np.flatnonzero(~self.right), gained, replace=False)] = True
        right[self._draw.choice(np.flatnonzero(self.right), changed - gained, replace=False)] = False
        return right

    def _level(self, right: Rights) -> Rights:
        """The last few changes taken back, so that there is no difference."""
        surplus = int(right.sum()) - int(self.right.sum())
        changed = np.flatnonzero((right & ~self.right) if surplus > 0 else (~right & self.right))
        right[self._draw.choice(changed, abs(surplus), replace=False)] ^= True
        return right


def ask_uniformly(base: Base, second: Rights, seed: int) -> Verdict:
    """One adapter along a uniform order."""
    places = np.random.default_rng(seed).permutation(base.total)
    order = QuestionOrder(
        tuple(base.ids[place] for place in places), base.key[places], base.ease[places], seed
    )
    first = OrderedAnswers(base.right[places], base.margin[places])
    for most in (*(prefix for prefix in _PREFIXES if prefix < base.total), base.total):
        answers = OrderedAnswers(second[places][:most], first.margin[:most])
        verdict, at = betting.first_verdict(stream_of_answers(order, first, answers), margin=None)
        if at is not None:
            return Verdict(verdict, at)
    return Verdict("undecided", None)


def ask_adaptively(
    base: Base, adapters: Sequence[Rights], seed: int, margin: float | None = None
) -> list[Verdict]:
    """Adapters along one adaptive order, Holm over them; each asked until the look after its decision."""
    where = {question_id: place for place, question_id in enumerate(base.ids)}
    uniform = QuestionOrder(tuple(base.ids), base.key, base.ease, seed)
    order = begin_adaptive_order(uniform, OrderedAnswers(base.right, base.margin))
    verdicts: dict[str, Verdict] = {}
    names = [str(number) for number in range(len(adapters))]
    asked = dict.fromkeys(names, 0)
    left, looks = names, list_look_places(base.total)
    decider = _Decider(asked, margin)
    for start, end in pairwise([0, *list_redraw_places(base.total), base.total]):
        places = np.array([where[name] for name in order.ids])
        first = OrderedAnswers(base.right[places], base.margin[places])
        answers = {name: OrderedAnswers(adapters[int(name)][places], first.margin) for name in left}
        for name in left:
            decider.answer(name, stream_of_answers(order, first, answers[name], most=end))
        for place in (look for look in looks if start < look <= end):
            asked |= dict.fromkeys(left, place)
            verdicts = decide_by_holm(names, decider.decide)
            left = [name for name in names if verdicts[name].verdict == "undecided"]
            if not left:
                break
        if not left or end == base.total:
            break
        order = redraw_remaining(order, first, [answers[name] for name in left], end)
    return [Verdict(verdicts[name].verdict, verdicts[name].at, asked[name]) for name in names]


class _Decider:
    """What a look shows. Between two redraws an adapter's answers are one stream, computed once: a look sees
    what was decided within the answers ``asked`` for.
    """

    def __init__(self, asked: Mapping[str, int], margin: float | None) -> None:
        self._asked, self._margin = asked, margin
        self._streams: dict[str, AnswerStream] = {}
        self._decided: dict[str, dict[tuple[float, float], Verdict]] = {}  # by adapter and levels

    def answer(self, name: str, stream: AnswerStream) -> None:
        """The adapter's answers until the next redraw."""
        self._streams[name], self._decided[name] = stream, {}

    def decide(self, name: str, level: float, equal_level: float) -> Verdict:
        """The adapter's verdict after the answers it was asked for."""
        known, levels = self._decided[name], (level, equal_level)
        if levels not in known:
            known[levels] = Verdict(
                *betting.first_verdict(self._streams[name], level, self._margin, equal_level)
            )
        verdict = known[levels]
        if verdict.at is None or verdict.at > self._asked[name]:
            return Verdict("undecided", None)
        return verdict


def measure_adapters(repeats: int, nulls: int, tens: int, seed: int) -> dict[str, Any]:
    """Each difference and discordance ``repeats`` times, ``nulls`` nulls, ``tens`` times ten at once."""
    draw = np.random.default_rng([seed, 7])
    began = time.perf_counter()
    rows = []
    for number in range(repeats):
        spent = time.perf_counter() - began
        note(f"decide: adapters {number + 1} of {repeats}, {spent:.0f} s")
        base = Base(draw)
        for share, noise in DISCORDANCE_NOISE.items():
            for difference in DIFFERENCES:
                for kind in ("by margin", "ignoring it"):
                    if kind == "by margin":
                        second = base.adapter(noise, difference)
                    elif share == 0.08:
                        second = base.ignoring_margin(share, difference)
                    else:
                        continue
                    rows.append(_ask_one(base, second, kind, difference, int(draw.integers(2**31))))
    note(f"decide: {nulls} null adapters")
    false = 0
    for number in range(nulls):
        base = Base(draw)
        noise = list(DISCORDANCE_NOISE.values())[number % 3]
        (verdict,) = ask_adaptively(base, [base.adapter(noise, 0.0)], int(draw.integers(2**31)))
        false += verdict.verdict in ("better", "worse")
    note(f"decide: {tens} times ten adapters")
    passes, wrong = [], 0
    for _ in range(tens):
        base = Base(draw)
        adapters = [base.adapter(0.42, 0.0) for _ in range(9)] + [base.adapter(0.42, 0.02)]
        found = ask_adaptively(base, adapters, int(draw.integers(2**31)), margin=betting.MARGIN)
        passes.append(sum(verdict.asked for verdict in found) / base.total)
        claims = [verdict.verdict for verdict in found]
        wrong += any(claim in ("better", "worse") for claim in claims[:9]) or claims[9] in ("worse", "equal")
    return _summarise_adapters(rows, false, nulls, passes, wrong)


def _ask_one(base: Base, second: Rights, kind: str, difference: float, seed: int) -> dict[str, Any]:
    (adaptive,), uniform = ask_adaptively(base, [second], seed), ask_uniformly(base, second, seed)
    return {
        "kind": kind,
        "difference": difference,
        "discordance": float((base.right != second).mean()),
        "adaptive": adaptive.at or base.total,
        "uniform": uniform.at or base.total,
        "wrong": adaptive.verdict == "worse",
    }


def _summarise_adapters(
    rows: list[dict[str, Any]], false: int, nulls: int, passes: list[float], wrong: int
) -> dict[str, Any]:
    from bench.decide import mean_of, share

    kinds: dict[str, dict[str, Any]] = {}
    for kind in ("by margin", "ignoring it"):
        kinds[kind] = {}
        for difference in DIFFERENCES:
            some = [row for row in rows if row["kind"] == kind and row["difference"] == difference]
            counts = {name: mean_of([row[name] for row in some]) for name in ("uniform", "adaptive")}
            kinds[kind][f"{100 * difference:g}"] = counts
    found = {name: counts["adaptive"]["mean"] for name, counts in kinds["by margin"].items()}
    result: dict[str, Any] = {
        "mean_questions": found,
        "intervals": kinds,
        "wrong_sign_share": share(sum(row["wrong"] for row in rows), len(rows)),
    }
    within = {f"{name} pp": found[name] <= most for name, most in TARGETS.items()}
    within["wrong signs"] = result["wrong_sign_share"]["share"] < 0.005
    if nulls:
        result["null_decided_share"] = share(false, nulls)
        within["nulls"] = false / nulls <= _most_of(nulls)
    if passes:
        result["ten_adapters"] = {
            "passes": round(float(np.mean(passes)), 3),
            "family_wise_error": share(wrong, len(passes)),
        }
        within["ten adapters, passes"] = float(np.mean(passes)) <= MOST_PASSES
        within["ten adapters, error"] = wrong / len(passes) <= _most_of(len(passes))
    return result | {"within": within, "ok": all(within.values())}


def _most_of(number: int) -> float:
    """5 % and two standard errors."""
    return 0.05 + 2 * float((0.05 * 0.95 / number) ** 0.5)


def tables_of_adapters(result: dict[str, Any]) -> list[str]:
    """What people read."""
    shown = [
        {"answers change": kind, "difference, pp": name, "order": order, **row}
        for kind, sizes in result["intervals"].items()
        for name, orders in sizes.items()
        for order, row in orders.items()
    ]
    shares = [
        {"what": name, **result[name]}
        for name in ("wrong_sign_share", "null_decided_share", "like_null_decided_share")
        if name in result
    ]
    tables = [table("Questions until an adapter is decided", shown), table("Shares", shares)]
    if "ten_adapters" in result:
        ten = result["ten_adapters"]
        row = {"passes over the exam": ten["passes"], **ten["family_wise_error"]}
        tables.append(table("Ten adapters, nine of them null; with an error", [row]))
    return tables
