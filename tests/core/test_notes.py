"""Notes come back with what was read, and go to the log only when somebody says them."""

from __future__ import annotations

import pytest

from kmmlu_fast.core.digests import describe_differences
from kmmlu_fast.core.notes import WithNotes


def test_notes_are_said_once_and_only_on_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="kmmlu_fast")
    found = WithNotes(7, ("two rows left out",))
    assert found.value == 7 and not caplog.records
    assert found.log_and_unwrap() == 7
    assert [record.getMessage() for record in caplog.records] == ["warning: two rows left out"]


def test_what_differs_is_named_with_both_values() -> None:
    assert describe_differences({"a": 1, "b": 2}, {"a": 1, "b": 2}) == []
    model, seed = describe_differences({"seed": 1, "model": "x"}, {"seed": 2, "model": "y", "absent": None})
    assert model.startswith("model (") and "x" in model and "y" in model
    assert seed.startswith("seed (") and "1" in seed and "2" in seed
