"""Several processes at one thing: merges, trainings; and what kills leave."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny_adapter, make_tiny_model

from kmmlu_fast.core.errors import KmmluError, TrainError
from kmmlu_fast.core.partials import partial_name
from kmmlu_fast.models import adapters, merging
from kmmlu_fast.models.model import resolve_model
from kmmlu_fast.training.config import TrainConfig
from kmmlu_fast.training.state import CHECKPOINTS, is_training_finished, lock_output_directory


def test_three_merges_of_one_adapter_make_one_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    path = make_tiny_model(tmp_path / "model")
    model = resolve_model(str(path))
    [adapter] = adapters.load_adapters([str(make_tiny_adapter(path, tmp_path / "lora"))], model, "merge")
    merges: list[int] = []
    real = merging.write_merged_model

    def counted(*arguments: Any) -> Path:
        merges.append(1)
        return real(*arguments)

    monkeypatch.setattr(merging, "write_merged_model", counted)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)  # with it, a child would merge, uncounted
    found: list[Any] = []

    def merge() -> None:
        try:
            found.append(merging.merge_adapter(model, adapter, "float32"))
        except BaseException as error:
            found.append(error)

    threads = [threading.Thread(target=merge) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(merges) == 1 and len(set(found)) == 1 and (found[0] / "config.json").exists(), found


def test_a_half_merged_copy_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMMLU_FAST_CACHE", str(tmp_path / "cache"))
    path = make_tiny_model(tmp_path / "model")
    model = resolve_model(str(path))
    [adapter] = adapters.load_adapters([str(make_tiny_adapter(path, tmp_path / "lora"))], model, "merge")
    target = tmp_path / "cache" / "merged" / merging.merged_name(model, adapter, "float32")
    for left in (target, target.with_name(target.name + ".partial")):
        left.mkdir(parents=True)
        (left / "model.safetensors").write_bytes(b"half")
    merged = merging.merge_adapter(model, adapter, "float32")
    assert (merged / "model.safetensors").stat().st_size > 1000 and not target.with_name(
        target.name + ".partial"
    ).exists()


def test_two_trainings_do_not_share_a_directory(tmp_path: Path) -> None:
    config = TrainConfig(data=tmp_path / "x", output_dir=tmp_path / "lora")
    with lock_output_directory(config):
        with pytest.raises(TrainError, match="another process is training there"):
            lock_output_directory(config)
        with pytest.raises(TrainError, match="another process is training there"):
            lock_output_directory(config.model_copy(update={"resume": True}))
    assert is_training_finished(config) is False, "a lock alone is no training"
    (config.output_dir / CHECKPOINTS / partial_name(".lock.owner")).write_text("{")
    assert is_training_finished(config) is False, "nor is what a kill while taking it leaves"
    lock_output_directory(config).close()
    (config.output_dir / CHECKPOINTS / "checkpoint-1").mkdir()
    with pytest.raises(TrainError, match="holds no training of this tool"):
        is_training_finished(config)


def test_checkpoints_that_a_kill_left_beside_a_finished_adapter_go(tmp_path: Path) -> None:
    import json

    from kmmlu_fast.training.inputs import data_digest
    from kmmlu_fast.training.job import TrainedAdapter, run_training_job

    (tmp_path / "rows").write_text("{}")
    config = TrainConfig(data=tmp_path / "rows", output_dir=tmp_path / "lora", resume=True)
    (config.output_dir / CHECKPOINTS / "checkpoint-4").mkdir(parents=True)
    state = {"settings": config.result_settings(), "data_digest": data_digest(config)}
    for name, content in (
        ("training.json", state),
        ("kmmlu_fast.json", {"metrics": {}}),
        ("adapter_config.json", {}),
    ):
        (config.output_dir / name).write_text(json.dumps(content))
    done = run_training_job(config)
    assert isinstance(done, TrainedAdapter) and done.path == config.output_dir
    assert not (config.output_dir / CHECKPOINTS).exists()


def test_an_unfinished_adapter_is_not_taken_for_one(tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path / "model")
    lora = make_tiny_adapter(path, tmp_path / "lora")
    (lora / "training.json").write_text("{}")
    with pytest.raises(KmmluError, match="its training is not finished"):
        adapters.load_adapters([str(lora)], resolve_model(str(path)), "merge")
    (lora / "kmmlu_fast.json").write_text("{}")
    assert adapters.load_adapters([str(lora)], resolve_model(str(path)), "merge")[0].name == "lora"


def test_the_card_names_the_step_of_the_weights_after_a_kill(tmp_path: Path) -> None:
    """best/ of a step after the checkpoint must not be taken for the best as of the checkpoint."""
    from kmmlu_fast.training import checkpoints
    from kmmlu_fast.training.held_out import HeldOutMeasurement

    class Model:
        def __init__(self) -> None:
            self.step = 0

        def save_pretrained(self, folder: str) -> None:
            Path(folder).mkdir(parents=True)
            (Path(folder) / "weights").write_text(str(self.step))

    class Seen:
        last = None
        best: HeldOutMeasurement | None = None

    model, seen = Model(), Seen()

    def held(step: int) -> HeldOutMeasurement:
        return HeldOutMeasurement(
            step=step,
            loss=1.0 / (step + 1),
            num_rows=4,
            accuracy=0.5,
            balanced_accuracy=0.5,
            letter_share=dict.fromkeys("ABCD", 0.25),
            answer_share=dict.fromkeys("ABCD", 0.25),
        )

    for step in (2, 3):
        model.step = step
        checkpoints.save_best(model, tmp_path, held(step))
    seen.best = held(2)  # killed after step 3: the log goes back to the checkpoint of step 2
    checkpoints.keep_adapter(model, tmp_path, seen, "best-loss")  # type: ignore[arg-type]
    assert (tmp_path / "adapter" / "weights").read_text() == "2"
    checkpoints.drop_older_adapters(tmp_path, 3)
    with pytest.raises(TrainError, match="but it is gone"):
        checkpoints.keep_adapter(model, tmp_path, seen, "best-loss")  # type: ignore[arg-type]
