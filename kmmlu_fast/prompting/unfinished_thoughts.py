"""Says how many generated texts ended inside a thought, so that their letters had to be forced.

In: a method and the predictions of a run. Out: a note, or none. Knows nothing of engines or files.
"""

from __future__ import annotations

import polars as pl

from kmmlu_fast.prompting.cot import ChainOfThought


def describe_unfinished_thoughts(method: object, predictions: pl.DataFrame) -> list[str]:
    """A note if texts of chain of thought ended while the model was thinking; [] if none did."""
    if not isinstance(method, ChainOfThought):
        return []
    texts = predictions["texts"].explode().drop_nulls().to_list()
    count = sum(method.find_answer(text) is None for text in texts)
    if not count:
        return []
    return [
        f"{count:,} of {len(texts):,} texts ({count / len(texts):.0%}) ended inside a thought, most likely at"
        f" --max-tokens {method.max_tokens}: nothing in a thought is read as the answer, so their letters"
        " were forced; give more --max-tokens"
    ]
