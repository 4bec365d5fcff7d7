"""The order in which rows are trained, which rows are held out, and which letter is the answer each time.

In: rows, lengths, a seed. Out: indices, letters, rows, as pure functions of the seed, so a resumed training
has nothing to reconstruct. Knows nothing of tokens or tokenizers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from kmmlu_fast.core.letters import reorder_question
from kmmlu_fast.core.schema import LETTERS, OPTION_LETTERS
from kmmlu_fast.data.alpaca import SftRow

_WINDOW_BATCHES = 4  # batches whose rows are sorted by length together: less padding, still well shuffled


def rotate_row_options(row: SftRow, target: str) -> SftRow:
    """The row with its options rotated so that the answer's letter is ``target``. A row with a rationale is
    unchanged: its text names letters.
    """
    if row.response is not None:
        return row
    letters = row.question.letters
    shift = letters.index(row.question.answer) - letters.index(target)
    order = "".join(letters[(i + shift) % len(letters)] for i in range(len(letters)))
    return replace(row, question=reorder_question(row.question, order))


def split_held_out(rows: list[SftRow], wanted: int, seed: int) -> tuple[list[SftRow], list[SftRow]]:
    """(train, held out): at most a fifth is held out, evenly over the answer letters; repetitions of a
    question stay on one side.
    """
    groups: dict[tuple[str, str, int, str], list[SftRow]] = {}
    for row in rows:
        question = row.question  # rows of two files may have the same number, but not the same id
        key = (question.subject, question.split, question.row, question.question_id)
        groups.setdefault(key, []).append(row)
    keys = sorted(groups)
    random.Random(f"held-out:{seed}").shuffle(keys)
    by_letter = {
        letter: [key for key in keys if groups[key][0].question.answer == letter] for letter in OPTION_LETTERS
    }
    held: set[tuple[str, str, int, str]] = set()
    room = min(wanted, len(groups) // 5)
    while len(held) < room:
        for letter in OPTION_LETTERS:
            if by_letter[letter] and len(held) < room:
                held.add(by_letter[letter].pop())
    train = [row for key, group in groups.items() if key not in held for row in group]
    return train, [group[0] for key, group in groups.items() if key in held]


def balanced_letters(
    order: list[int], batch: int, seed: int, own: Sequence[Sequence[str]] | None = None
) -> list[str]:
    """An answer letter for every position of an order of rows: balanced within each batch, and different each
    time a row comes back.

    Balanced batches have no gradient towards a letter as such, and a row under four letters cannot be
    memorised by its letter. ``own``: the letters of each row, if they are not A-D; a row with none gets "".
    """
    draw = random.Random(f"letters:{seed}")
    unused: dict[int, list[str]] = {}
    letters: list[str] = []
    for start in range(0, len(order), batch):
        used: Counter[str] = Counter()
        for row in order[start : start + batch]:
            if own and not own[row]:
                letters.append("")
                continue
            if not unused.get(row):
                unused[row] = list(own[row] if own else LETTERS)
                draw.shuffle(unused[row])
            letter = min(unused[row], key=lambda choice: used[choice])
            unused[row].remove(letter)
            used[letter] += 1
            letters.append(letter)
    return letters


def order_rows(lengths: list[int], rows_an_epoch: int, effective_batch: int, seed: int) -> list[int]:
    """The order of training: indices into the rows of all epochs (``lengths``), batch after batch.

    Every epoch is a seeded shuffle. Rows within a window of four batches are sorted by length, so that a
    batch needs little padding; then the batches are shuffled. The batch with the longest row comes first: if
    memory runs out, it does so at once.
    """
    stream: list[int] = []
    for start in range(0, len(lengths), rows_an_epoch):
        indices = list(range(start, min(start + rows_an_epoch, len(lengths))))
        random.Random(f"epoch:{seed}:{start}").shuffle(indices)
        stream += indices
    window = effective_batch * _WINDOW_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(stream), window):
        part = stream[start : start + window]
        tail = part[len(part) - len(part) % effective_batch :]  # an incomplete batch: only at the end
        whole = sorted(part[: len(part) - len(tail)], key=lambda i: (lengths[i], i))
        chunks = [whole[i : i + effective_batch] for i in range(0, len(whole), effective_batch)]
        random.Random(f"window:{seed}:{start}").shuffle(chunks)
        batches += [*chunks, tail] if tail else chunks
    complete = [batch for batch in batches if len(batch) == effective_batch]
    if complete:
        longest = max(range(len(complete)), key=lambda b: max(lengths[i] for i in complete[b]))
        batches[0], batches[longest] = batches[longest], batches[0]
    return [i for batch in batches for i in batch]
