"""Draws training questions and their option orders.

In: the number of rows per subject (``sampling.plan``), the pool's questions, a seed. Out: the chosen
(question, repeat) pairs, and an option order for each. Pure, and the same on any machine and polars version:
the only randomness is blake2b over seed and question id, so a larger size only adds questions to a subject.
Knows nothing of files, leakage (the pool is clean) or models.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import permutations

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.letters import is_position_bound
from kmmlu_fast.core.schema import LETTERS, Question

ORDERS = tuple("".join(order) for order in permutations(LETTERS))
MAX_REPEATS = len(ORDERS)  # uses of one question, each under another option order
_LISTED = 5  # up to this many options all orders are candidates; of more (720 to 3,628,800) _DRAWN are
_DRAWN = 4 * MAX_REPEATS

Chosen = tuple[Question, int]  # a question and the number of its use, 0 for the first


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _rank_key(seed: int, text: str) -> bytes:
    return _digest(f"{seed}:{text}")


def subject_capacity(pool: Iterable[Question], max_repeats: int) -> dict[str, int]:
    """Rows that each subject can give: one per question, ``max_repeats`` if it can be permuted."""
    counts: Counter[str] = Counter()
    for question in pool:
        counts[question.subject] += count_allowed_uses(question, max_repeats)
    return dict(counts)


def count_allowed_uses(question: Question, max_repeats: int) -> int:
    """How often a question may be used: once per option order, but only once if it must keep its own."""
    return 1 if is_position_bound(question) else min(max_repeats, math.factorial(len(question.options)))


def draw_questions(
    pool: Iterable[Question], drawn: dict[str, int], seed: int, max_repeats: int = 1
) -> list[Chosen]:
    """``drawn[subject]`` questions per subject, by rank; beyond the supply they repeat as use 1, 2, ..."""
    by_subject: dict[str, list[Question]] = {}
    for question in pool:
        by_subject.setdefault(question.subject, []).append(question)
    chosen: list[Chosen] = []
    for name, count in drawn.items():
        ranked = sorted(by_subject.get(name, []), key=lambda q: _rank_key(seed, q.question_id))
        uses = [
            (q, repeat)
            for repeat in range(max_repeats)
            for q in ranked
            if repeat < count_allowed_uses(q, max_repeats)
        ]
        if count > len(uses):
            raise DataError(f"{name}: {count} rows wanted, but its {len(ranked)} questions give {len(uses)}")
        chosen += uses[:count]
    return shuffle_chosen(chosen, seed)


def draw_wrong_questions(
    pool: Iterable[Question], margins: dict[str, float | None], size: int, order: str, seed: int
) -> list[Chosen]:
    """``size`` of the pool's questions that the run got wrong (the ids in ``margins``).

    ``order``: "hardest" (largest margin in nats for a wrong letter first, answers without margin last) or
    "random".
    """
    wrong = [question for question in pool if question.question_id in margins]
    if len(wrong) < size:
        raise ConfigError(
            f"--size {size} is larger than the {len(wrong)} wrongly answered questions of the run that can"
            " be drawn; lower --size"
        )
    ranked = sorted(wrong, key=lambda q: _rank_key(seed, q.question_id))
    if order == "hardest":
        # The sort is stable: equal margins stay in the order of their rank.
        sizes = {name: -math.inf if margin is None else margin for name, margin in margins.items()}
        ranked.sort(key=lambda question: -sizes[question.question_id])
    return shuffle_chosen([(question, 0) for question in ranked[:size]], seed)


def shuffle_chosen(chosen: list[Chosen], seed: int) -> list[Chosen]:
    """The rows in an order that mixes subjects, by rank."""
    return sorted(chosen, key=lambda item: _rank_key(seed, f"order:{item[0].question_id}:{item[1]}"))


def option_orders(chosen: Sequence[Chosen], seed: int, permute: bool = True) -> list[str]:
    """An option order per row ("CABD": the row's A is the source's C) that balances the answer letters.

    Letter counts differ by at most one within a subject and overall, as far as rows that keep their order
    allow: those whose options refer to each other by number or place. Uses of one question have different
    orders.
    """
    if not permute:
        return ["".join(question.letters) for question, _ in chosen]
    overall: Counter[str] = Counter()
    subjects: dict[str, Counter[str]] = {question.subject: Counter() for question, _ in chosen}
    orders = [""] * len(chosen)
    used: dict[str, set[str]] = {}
    for i, (question, _) in enumerate(chosen):
        if is_position_bound(question):
            orders[i] = "".join(question.letters)
            overall[question.answer] += 1
            subjects[question.subject][question.answer] += 1
    for name, counts in subjects.items():
        for i, (question, repeat) in enumerate(chosen):
            if orders[i] or question.subject != name:
                continue
            row_key = f"{seed}:{question.question_id}:{repeat}"
            target = min(
                question.letters,
                key=lambda x: (counts[x], overall[x], _rank_key(seed, f"letter:{row_key}:{x}")),
            )
            taken = used.setdefault(question.question_id, set())
            orders[i] = _pick_option_order(question, target, row_key, taken)
            taken.add(orders[i])
            letter = question.letters[orders[i].index(question.answer)]
            counts[letter] += 1
            overall[letter] += 1
    return orders


def _pick_option_order(question: Question, target: str, row_key: str, taken: set[str]) -> str:
    """The first free order by rank, if possible with the answer at ``target``."""
    place = question.letters.index(target)
    free = [order for order in _candidate_orders(question, place, row_key) if order not in taken]
    fitting = [order for order in free if order[place] == question.answer]
    return min(fitting or free, key=lambda order: _digest(f"{row_key}:{order}"))


def _candidate_orders(question: Question, place: int, row_key: str) -> Sequence[str]:
    """All orders; of many options, a sample that puts the answer at ``place`` and depends on ``row_key``."""
    letters = question.letters
    if len(letters) == len(LETTERS):
        return ORDERS
    if len(letters) <= _LISTED:
        return ["".join(order) for order in permutations(letters)]
    wrong = [letter for letter in letters if letter != question.answer]
    orders = []
    for turn in range(_DRAWN):
        ranked = sorted(wrong, key=lambda letter: _digest(f"{row_key}:{turn}:{letter}"))
        orders.append("".join([*ranked[:place], question.answer, *ranked[place:]]))
    return orders
