"""A saved probe is used only if it is whole; else it is measured again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kmmlu_fast.evaluation.adapter_probe import FILE, load_base_probe, save_base_probe

ROWS = [[-1.0, -2.0], [-3.0, -0.5]]


def test_a_whole_probe_is_used(tmp_path: Path) -> None:
    save_base_probe(tmp_path, "key", ROWS)
    assert load_base_probe(tmp_path, "key", (2, 2)) == ROWS
    assert load_base_probe(tmp_path, "other", (2, 2)) is None
    assert load_base_probe(tmp_path / "none", "key", (2, 2)) is None


@pytest.mark.parametrize(
    "bent", [None, [], "x", ROWS[:1], [[-1.0], [-2.0]], [[-1.0, "x"], [0, 0]], [[-1.0, None], [0, 0]], [1, 2]]
)
def test_a_bent_probe_is_not(tmp_path: Path, bent: Any) -> None:
    (tmp_path / FILE).write_text(json.dumps({"digest": "key", "logprobs": bent}))
    assert load_base_probe(tmp_path, "key", (2, 2)) is None
