"""Settings of ``watch`` that do not go together are named at once, before anything is read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.integrations.watch_settings import changes_weights_in_backward, check_watch_settings


def check(tmp_path: Path, processes: int = 1, **changes: Any) -> None:
    trainer = SimpleNamespace(
        add_callback=None, model=object(), accelerator=SimpleNamespace(num_processes=processes)
    )
    settings: dict[str, Any] = {
        "split": "train",
        "questions": 450,
        "share_of_time": 0.05,
        "every": None,
        "stop_when": None,
        "base_run": None,
    }
    check_watch_settings(trainer, **(settings | changes))


def test_all_faults_are_named_together(tmp_path: Path) -> None:
    check(tmp_path)
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, 2, split="test", questions=5, share_of_time=5.0, every=0, stop_when="bad")
    for fault in ("questions=5", "share_of_time=5.0", "every=0", "stop_when='bad'", "needs base_run"):
        assert fault in str(caught.value)
    assert "several processes" in str(caught.value)


def test_a_model_without_words_is_refused() -> None:
    trainer = SimpleNamespace(
        add_callback=None,
        model=SimpleNamespace(get_output_embeddings=lambda: None),
        accelerator=SimpleNamespace(num_processes=1),
    )
    with pytest.raises(ConfigError, match="has no output layer over a vocabulary"):
        check_watch_settings(trainer, "train", 450, 0.05, None, None, None)


@pytest.mark.parametrize(
    ("optimiser", "deepspeed", "early"),
    [
        ("adamw_torch_fused", False, False),
        ("OptimizerNames.GALORE_ADAMW_LAYERWISE", False, True),
        ("adalomo", False, True),
        ("adamw_torch", True, True),
    ],
)
def test_optimisers_that_do_not_wait_for_the_step(optimiser: str, deepspeed: bool, early: bool) -> None:
    trainer = SimpleNamespace(args=SimpleNamespace(optim=optimiser), is_deepspeed_enabled=deepspeed)
    assert changes_weights_in_backward(trainer) is early


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a finished run directory"):
        check(tmp_path, split="test", base_run=tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    check(tmp_path, split="test", base_run=tmp_path)
