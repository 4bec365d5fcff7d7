"""Which training questions to take: error counts + pool -> a plan by subject, the questions drawn, their
option orders.

In: scores by subject (``subject, correct, total``), the pool's questions, a seed. Out: a plan that shows
every number, the chosen (question, repeat) pairs, and an option order for each. Pure, and the same on any
machine and polars version: the only randomness is blake2b over seed and question id, so a larger size only
adds questions to a subject. Knows nothing of files, leakage (the pool comes in clean) or models.

Strategies:
    strategic     ``weak_share`` of the size goes to weak subjects in proportion to their errors, the rest evenly to all subjects
    uniform       evenly to all subjects
    proportional  in proportion to what the pool holds, as a plain random draw would
    errors        only questions that the run got wrong, whatever their subject (``draw_wrong_questions``)

Targets become whole numbers by largest remainder, so 500 means 500. A subject that cannot fill its quota
gives what it has; the shortfall goes to subjects with room, in proportion to their targets, again by largest
remainder, until none is over.
"""  # noqa: E501

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import permutations
from math import factorial

from kmmlu_fast.core.errors import ConfigError, DataError
from kmmlu_fast.core.letters import is_position_bound
from kmmlu_fast.core.schema import LETTERS, Question

ORDERS = tuple("".join(order) for order in permutations(LETTERS))
MAX_REPEATS = len(ORDERS)  # uses of one question, each under another option order
_LISTED = 5  # options whose orders are all gone through; of more (720 to 3,628,800) some are drawn
_DRAWN = 4 * MAX_REPEATS

Chosen = tuple[Question, int]  # a question and which use of it this is, 0 for the first


def _rank_key(seed: int, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest()


def subject_capacity(pool: Iterable[Question], max_repeats: int) -> dict[str, int]:
    """Rows that each subject's questions can give: every question once, and ``max_repeats``
    times where its options may change places.
    """
    counts: Counter[str] = Counter()
    for question in pool:
        counts[question.subject] += count_allowed_uses(question, max_repeats)
    return dict(counts)


def count_allowed_uses(question: Question, max_repeats: int) -> int:
    """How often it may be used: as often as it has option orders, and once where it has to keep its own."""
    return 1 if is_position_bound(question) else min(max_repeats, factorial(len(question.options)))


def draw_questions(
    pool: Iterable[Question], drawn: dict[str, int], seed: int, max_repeats: int = 1
) -> list[Chosen]:
    """``drawn[subject]`` questions of each subject, by rank; beyond a subject's supply they are
    used again, as repeat 1, 2, ...
    """
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
    """``size`` of the pool's questions that the run got wrong (ids in ``margins``): "hardest" = the largest
    margin (nats) for a wrong letter first, answers without one last; or "random".
    """
    wrong = [question for question in pool if question.question_id in margins]
    if len(wrong) < size:
        raise ConfigError(
            f"--size {size} is larger than the {len(wrong)} wrongly answered questions of the run that are"
            " left to draw from; lower --size"
        )
    ranked = sorted(wrong, key=lambda q: _rank_key(seed, q.question_id))
    if order == "hardest":
        # Stable: equal margins stay in the order of their rank.
        ranked.sort(key=lambda q: -m if (m := margins[q.question_id]) is not None else float("inf"))
    return shuffle_chosen([(question, 0) for question in ranked[:size]], seed)


def shuffle_chosen(chosen: list[Chosen], seed: int) -> list[Chosen]:
    """Rows in an order that mixes subjects, by rank."""
    return sorted(chosen, key=lambda item: _rank_key(seed, f"order:{item[0].question_id}:{item[1]}"))


def option_orders(chosen: Sequence[Chosen], seed: int, permute: bool = True) -> list[str]:
    """An option order for each row ("CABD": the row's A is the source's C) such that answer letters are
    balanced.

    Within a subject the letters' counts differ by one at most, and so they do overall, as far as rows whose
    options speak of each other by number or place, which keep their order, allow. Uses of one question have
    different orders.
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
            where = f"{seed}:{question.question_id}:{repeat}"
            target = min(
                question.letters,
                key=lambda x: (counts[x], overall[x], _rank_key(seed, f"letter:{where}:{x}")),
            )
            taken = used.setdefault(question.question_id, set())
            orders[i] = _pick_option_order(question, target, where, taken)
            taken.add(orders[i])
            letter = question.letters[orders[i].index(question.answer)]
            counts[letter] += 1
            overall[letter] += 1
    return orders


def _pick_option_order(question: Question, target: str, where: str, taken: set[str]) -> str:
    """The first by rank of the orders that are not taken and put the source's answer at
    ``target``, or else anywhere.
    """
    place = question.letters.index(target)
    free = [order for order in _candidate_orders(question, place, where) if order not in taken]
    fitting = [order for order in free if order[place] == question.answer]
    return min(
        fitting or free,
        key=lambda order: hashlib.blake2b(f"{where}:{order}".encode(), digest_size=8).digest(),
    )


def _candidate_orders(question: Question, place: int, where: str) -> Sequence[str]:
    """Orders to choose from: all of them, or, of many options, some with the answer at ``place``, which
    differ for each ``where``."""
    letters = question.letters
    if len(letters) == len(LETTERS):
        return ORDERS
    if len(letters) <= _LISTED:
        return ["".join(order) for order in permutations(letters)]
    found = []
    for turn in range(_DRAWN):
        ranked = sorted(
            (letter for letter in letters if letter != question.answer),
            key=lambda letter: hashlib.blake2b(f"{where}:{turn}:{letter}".encode(), digest_size=8).digest(),
        )
        found.append("".join([*ranked[:place], question.answer, *ranked[place:]]))
    return found
