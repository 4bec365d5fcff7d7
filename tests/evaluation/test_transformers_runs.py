"""``--engine transformers`` as users give it: flags that go together, the fingerprint, a whole evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers_cases import (
    make_files,
)

from kmmlu_fast.command.flags import parse_config
from kmmlu_fast.core.errors import ConfigError
from kmmlu_fast.evaluation.config import EvalConfig
from kmmlu_fast.evaluation.plan import make_eval_plan
from kmmlu_fast.evaluation.session import run_evaluation

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_files(tmp_path_factory.mktemp("transformers"))


def flags(root: Path, *more: str) -> list[str]:
    return [
        "--model",
        str(root / "base"),
        "--dataset",
        "sample",
        "--limit",
        "1",
        "--output-dir",
        str(root / "runs"),
        *more,
    ]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--engine", "transformers", "--quantization", "fp8"], "takes nf4"),
        (["--quantization", "bitsandbytes"], "give --engine transformers"),
        (["--engine", "transformers", "--tensor-parallel-size", "2"], "one device"),
        (["--engine", "transformers", "--load-format", "dummy"], "--load-format goes with vLLM"),
        (
            ["--engine", "transformers", "--quantization", "nf4", "--adapter-mode", "merge"],
            "merge does not go with",
        ),
    ],
)
def test_settings_that_do_not_go_together(root: Path, extra: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(EvalConfig, flags(root, *extra), "eval")


def test_engine_and_quantisation_are_in_the_fingerprint_and_vllms_stays(root: Path) -> None:
    def parts(*more: str) -> dict[str, Any]:
        plan = make_eval_plan(parse_config(EvalConfig, flags(root, *more), "eval"))
        plan.close()
        return plan.parts

    by_vllm, alone = parts(), parts("--engine", "transformers")
    assert "engine" not in by_vllm and set(by_vllm["versions"]) == {"vllm", "transformers"}
    four_bit = parts("--engine", "transformers", "--quantization", "nf4")
    assert four_bit == parts("--engine", "transformers", "--quantization", "bitsandbytes")
    assert len({json.dumps(found, sort_keys=True) for found in (by_vllm, alone, four_bit)}) == 3


def test_an_evaluation_of_base_and_adapter(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "kmmlu_fast")
    adapter = [
        "--adapter",
        str(root / "lora"),
        "--dtype",
        "float32",
        "--engine",
        "transformers",
        "--num-fewshot",
        "2",
    ]
    base, lora = run_evaluation(parse_config(EvalConfig, flags(root, *adapter), "eval"))
    assert "transformers is slow on a CPU" in caplog.text
    assert len(base.predictions) == len(lora.predictions) == 45
    assert lora.metrics.to_json()["adapter_shift"]["largest_nats"] > 0.1
    assert lora.metrics.to_json()["engine"]["engine"] == "transformers"
    assert base.predictions["prediction"].to_list() != lora.predictions["prediction"].to_list()


def test_swapping_is_vllms(root: Path) -> None:
    more = ["--engine", "transformers", "--adapter-mode", "swap", "--adapter", str(root / "lora")]
    with pytest.raises(ConfigError, match="use serve"):
        run_evaluation(parse_config(EvalConfig, flags(root, *more), "eval"))
