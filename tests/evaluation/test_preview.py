"""``eval --plan``: the evaluation's own questions, prompts and runs, and no engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmmlu_fast import cli, evaluate, plan_evaluation
from kmmlu_fast.command.flags import build_config
from kmmlu_fast.core.errors import AdapterError, ConfigError, EngineError, ModelError
from kmmlu_fast.engines.fake import FakeEngine
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.preview import format_span, preview_evaluation
from kmmlu_fast.evaluation.session import run_evaluation

SHAPE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}


def planned(**values: object) -> str:
    return "\n".join(preview_evaluation(build_config(EvalConfig, plan=True, **values)).lines)


def test_it_names_what_becomes_of_each_run(model: Path, lora: Path, tmp_path: Path) -> None:
    asked = {"model": model, "dataset": "sample", "output_dir": tmp_path, "subjects": ["Law", "Math"]}
    text = planned(adapter=[f"mine={lora}"], **asked)
    assert "8 questions of 2 subjects" in text and "8 prompts, " in text
    assert "base: asked, into" in text and "mine: swap, asked, into" in text and " for 2 runs" in text
    assert list(tmp_path.iterdir()) == []
    config = build_config(EvalConfig, **asked)
    (run,) = run_evaluation(config, lambda adapters, length, path: FakeEngine())
    text = planned(adapter=[f"mine={lora}"], **asked)
    assert f"base: finished before, reused from {run.path}" in text and " for 1 run," in text
    assert "seconds, every run is finished" in planned(**asked)
    assert f"base: asked, replacing {run.path}" in planned(overwrite=True, **asked)


def test_shared_beginnings_are_counted_once(model: Path, tmp_path: Path) -> None:
    asked = {"model": model, "dataset": "sample", "output_dir": tmp_path}
    assert "shared with the prompt before" not in planned(**asked)
    assert "shared with the prompt before" in planned(num_fewshot=2, **asked)


def test_a_card_that_is_not_here(tmp_path: Path) -> None:
    """The tokenizer is missing too: the counts of config.json remain."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    text = planned(model=tmp_path, dataset="sample", gpu_memory=24, adapter=[])
    assert "on a GPU with 24 GiB" in text and "fits: " in text and "of 21.6 GiB" in text
    assert "180 questions of 45 subjects" in text and "65 to 130 tokens per question assumed" in text
    with pytest.raises(EngineError, match=r"needs .* of the 7\.2 GiB that may be used: use --engine"):
        plan_evaluation(model=tmp_path, dataset="sample", gpu_memory=8)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError):
        planned(model=tmp_path, dataset="sample", gpu_memory=24)


def test_what_an_evaluation_refuses_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError):
        planned(model=model, dataset="sample", adapter=[str(tmp_path / "none")])
    with pytest.raises(ConfigError, match="--gpu-memory needs --plan"):
        build_config(EvalConfig, gpu_memory=24)
    with pytest.raises(ConfigError, match="plan_evaluation"):
        evaluate(model=model, dataset="sample", plan=True)
    for value in (float("inf"), float("nan"), 0, -1):
        with pytest.raises(ConfigError):
            build_config(EvalConfig, plan=True, gpu_memory=value)


def test_the_door(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--plan", "--model", str(model), "--dataset", "sample", "--output-dir", str(tmp_path)]
    assert cli.dispatch_command([*words, "--until-precise", "5"]) == 0
    assert "time: at most" in capsys.readouterr().out
    assert cli.dispatch_command([*words, "--gpu-memory", "0.5"]) == 2
    out, err = capsys.readouterr()
    assert "does not fit" in out and err.count("\n") == 1 and "needs" in err


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.2, 0.4, "about 1 s"),
        (40, 55, "40 to 55 s"),
        (100, 600, "2 to 10 min"),
        (3600, 20_000, "1 to 6 hours"),
        (90_000, 400_000, "1 to 5 days"),
    ],
)
def test_spans(low: float, high: float, text: str) -> None:
    assert format_span(low, high) == text
