"""What is said of an adapter that answers (nearly) everything with one letter.

In: the base's predictions and the adapter's. Out: a few words, or None. Knows nothing of searches.
"""

from __future__ import annotations

import polars as pl

from kmmlu_fast.analysis.training_look import find_letter_collapse


def describe_collapse(base: pl.DataFrame, adapter: pl.DataFrame, looks: int = 1) -> str | None:
    """As ``watch`` and ``train`` find it, on the questions that both answered: the share of one letter has
    risen above 60 %. ``looks``: how many times it was looked for.
    """
    now = dict(adapter.select("question_id", "prediction").iter_rows())
    before = {
        name: letter for name, letter in base.select("question_id", "prediction").iter_rows() if name in now
    }
    shared = {name: now[name] for name in before}
    letter = find_letter_collapse(before, shared, looks) if shared else None
    if letter is None:
        return None
    share, was = (
        sum(each == letter for each in answers.values()) / len(shared) for answers in (shared, before)
    )
    return f"answers {letter} to {share:.0%} of the questions (the base: {was:.0%})"
