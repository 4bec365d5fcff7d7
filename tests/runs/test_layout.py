"""Reading run directories: what a run that stopped early holds."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from kmmlu_fast.core.schema import Prediction
from kmmlu_fast.runs.metrics import PrefixMetrics
from kmmlu_fast.runs.store import RunStore, load_run_directory

ORDER = [3, 0, 4, 1, 2]


def _make_prediction(row: int) -> Prediction:
    return Prediction(
        question_id=f"Law/test/{row}",
        subject="Law",
        supercategory="HUMSS",
        split="test",
        row=row,
        answer="A",
        prediction="A",
        correct=True,
        read_by="loglikelihood",
        texts=[],
        prompt_digest="d",
    )


def _store_prefix(root: Path, answered: list[int]) -> Path:
    """A run of five questions in ``ORDER``, of which ``answered`` have an answer."""
    store = RunStore(root, "name", {"model": "m"}, {"config": {}})
    ids = [f"Law/test/{row}" for row in ORDER]
    order = pl.DataFrame({"question_id": ids, "answer": ["A"] * len(ids)})
    prefix = PrefixMetrics(seed=42, total=len(ids), questions=0, accuracy=[0.0, 1.0])
    store.begin_prefix(order, prefix)
    for row in answered:
        store.append(_make_prediction(row))
    store.pause(prefix)
    return store.path


def test_a_prefix_ends_at_its_first_gap(tmp_path: Path) -> None:
    # Answers beyond a gap are stored, but came sooner than the random order says: a kill chose them, not
    # chance. The sequential test may not count them.
    cases = {(3, 0, 1, 2): [3, 0], (3, 4, 1): [3], (0, 4, 1, 2): [], (2, 1, 4, 0, 3): ORDER}
    for place, (answered, counted) in enumerate(cases.items()):
        run = load_run_directory(_store_prefix(tmp_path / str(place), list(answered)), prefix=True)
        assert run.frame["row"].to_list() == counted
        assert run.prefix is not None and run.prefix.questions == len(counted)
